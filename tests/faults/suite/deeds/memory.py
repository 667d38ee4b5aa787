"""What the memory transport does to itself."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from ..stage import Stage
from ._moments import moments


def again_and_again(what: str, *arguments: float) -> Callable[[Stage], Awaitable[None]]:
    """A fault of the memory transport, again and again, each ended by the next but one moment."""

    async def deed(stage: Stage) -> None:
        async for _ in moments(stage):
            await stage.program.tell(what, *arguments)
            stage.note(what.replace("_", " "))
            await trio.sleep(random.uniform(0.2, 1.0))
            await stage.program.tell("restore")

    return deed
