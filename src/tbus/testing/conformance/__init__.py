"""What every bus keeps, whatever its broker: cases to run over a transport.

A case is a coroutine function of a `Harness`; its name is the sentence that it proves. With
pytest, one test runs them all::

    pytest.register_assert_rewrite("tbus.testing.conformance")


    @pytest.mark.parametrize("case", conformance.cases(MyHarness.abilities), ids=str)
    async def test_conformance(case):
        await case.run(MyHarness())

Each case ends with a census: whatever it opened is gone when its last block is left.
"""

from __future__ import annotations

from ..harness import Ability
from . import (
    _attempts,
    _batches,
    _cancelled_calls,
    _cancelling,
    _closing,
    _dead_letters,
    _events,
    _failures,
    _faults,
    _flow,
    _groups,
    _members,
    _once,
    _order,
    _parked,
    _pipelined,
    _publishing,
    _pulled,
    _shielded,
    _topics,
)
from ._case import Case

__all__ = ["Case", "cases"]


def cases(abilities: Ability, *, backend: str | None = None) -> list[Case]:
    """The cases for a broker that can do so much, in a fixed order.

    Args:
        abilities: of the harness that they will be run with.
        backend: "trio" or "asyncio": only those that run there. A few need Trio.
    """
    modules = (
        _publishing, _pipelined, _order, _failures, _attempts, _once, _batches, _dead_letters,
        _groups, _members, _flow, _pulled, _closing, _events, _cancelling, _cancelled_calls,
        _faults, _shielded, _parked, _topics,
    )  # fmt: skip
    found = [case for module in modules for case in vars(module).values() if isinstance(case, Case)]
    return [
        case
        for case in found
        if case.needs in abilities and not (case.trio_only and backend == "asyncio")
    ]
