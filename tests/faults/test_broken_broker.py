"""The conformance cases that break their broker, on real brokers that are broken."""

from __future__ import annotations

import pytest

from tbus.testing import Ability
from tbus.testing.conformance import Case, cases
from tests.brokers.harness import BreakableKafkaHarness, BreakableNatsHarness

BREAKING = Ability.CUT | Ability.SUSPEND | Ability.RESTART


@pytest.mark.parametrize(
    "case", [case for case in cases(~Ability.NOTHING) if case.needs & BREAKING], ids=str
)
async def test_on_trio(case: Case, harness: BreakableNatsHarness) -> None:
    await case.run(harness)


@pytest.mark.parametrize(
    "case",
    [case for case in cases(BreakableKafkaHarness.abilities) if case.needs & BREAKING],
    ids=str,
)
async def test_kafka_on_trio(case: Case, kafka: BreakableKafkaHarness) -> None:
    await case.run(kafka)
