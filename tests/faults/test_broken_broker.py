"""The conformance cases that break their broker, on a real nats-server that is broken."""

from __future__ import annotations

import pytest

from tbus.testing import Ability
from tbus.testing.conformance import Case, cases
from tests.brokers.harness import BreakableNatsHarness

BREAKING = Ability.CUT | Ability.SUSPEND | Ability.RESTART


@pytest.mark.parametrize(
    "case", [case for case in cases(~Ability.NOTHING) if case.needs & BREAKING], ids=str
)
async def test_on_trio(case: Case, harness: BreakableNatsHarness) -> None:
    await case.run(harness)
