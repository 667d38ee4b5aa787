"""One case of the suite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import attrs

from ..harness import Ability, Harness

Function = Callable[[Harness], Awaitable[None]]


@attrs.frozen
class Case:
    """A behaviour that a bus keeps, as a program that shows it.

    Attributes:
        function: takes a harness; raises, mostly `AssertionError`, if it is not so.
        needs: what the broker must be able to do.
        trio_only: it does not run on asyncio.
        limit: seconds after which something must be wrong; nothing waits for time to pass.
    """

    function: Function
    needs: Ability = Ability.NOTHING
    trio_only: bool = False
    limit: float = 20.0

    def __str__(self) -> str:
        return self.function.__name__

    async def run(self, harness: Harness) -> None:
        """Run it, and look whether anything is left behind.

        Raises:
            AssertionError: it is not as the case's name says, or something is left.
            TimeoutError: something never came.
        """
        with anyio.fail_after(self.limit):
            async with harness.running():
                before = harness.census()
                await self.function(harness)
                left = harness.census().beyond(before)
                assert not left, "left behind:\n" + "\n".join(left)


def case(
    *, needs: Ability = Ability.NOTHING, trio_only: bool = False, limit: float = 20.0
) -> Callable[[Function], Case]:
    """Make a case of a function."""

    def make(function: Function) -> Case:
        return Case(function, needs, trio_only, limit)

    return make
