"""Every transport keeps what a bus promises; each case is a sentence of that."""

from __future__ import annotations

import pytest

from tbus.testing import Ability, Harness
from tbus.testing.conformance import Case, cases

EVERY = cases(~Ability.NOTHING)


@pytest.mark.parametrize("case", EVERY, ids=str)
@pytest.mark.asyncio_too
async def test_a_bus_keeps_that(case: Case, harness: Harness, backend: str) -> None:
    if case.needs not in harness.abilities:
        pytest.skip("this broker cannot do that")
    if case.trio_only and backend != "trio":
        pytest.skip("this is about Trio")
    await case.run(harness)
