"""Every transport keeps what a bus promises; each case is a sentence of that."""

from __future__ import annotations

import pytest

from tbus.testing import Ability, Harness
from tbus.testing.conformance import Case, cases

EVERYTHING = ~Ability.NOTHING


@pytest.mark.parametrize("case", cases(EVERYTHING), ids=str)
async def test_on_trio(case: Case, harness: Harness) -> None:
    if case.needs not in harness.abilities:
        pytest.skip("this broker cannot do that")
    await case.run(harness)
