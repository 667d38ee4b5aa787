"""Every transport keeps what a bus promises; each case is a sentence of that."""

from __future__ import annotations

from typing import Any

import pytest

from tbus.testing import Ability, Harness, MemoryHarness
from tbus.testing.conformance import Case, cases
from tests.brokers.harness import KafkaHarness, NatsHarness

MARKS: dict[str, Any] = {"memory": (), "nats": pytest.mark.broker, "kafka": pytest.mark.broker}
ABILITIES: dict[str, Ability] = {
    "memory": MemoryHarness.abilities,
    "nats": NatsHarness.abilities,
    "kafka": KafkaHarness.abilities,
}


def each(*, trio_only: bool) -> list[Any]:
    """Every case with every broker that is able to take it."""
    return [
        pytest.param(name, case, id=f"{name}-{case}", marks=MARKS[name])
        for name, abilities in ABILITIES.items()
        for case in cases(abilities)
        if case.trio_only is trio_only
    ]


@pytest.mark.parametrize(("harness", "case"), each(trio_only=False), indirect=["harness"])
@pytest.mark.asyncio_too
async def test_a_bus_keeps_that(case: Case, harness: Harness) -> None:
    await case.run(harness)


@pytest.mark.parametrize(("harness", "case"), each(trio_only=True), indirect=["harness"])
async def test_a_bus_on_trio_keeps_that(case: Case, harness: Harness) -> None:
    await case.run(harness)
