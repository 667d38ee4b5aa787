"""A task that runs while a block does, in which nobody sees a nursery."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def running_beside(
    function: Callable[[], Awaitable[None]], name: str
) -> AsyncIterator[trio.CancelScope]:
    """Run a function while the block runs; it is cancelled when the block ends. What the block
    raises leaves as itself, and not in an exception group; so does what the function raises, which
    ends the block.

    Returns:
        a scope around both: cancelled, it ends the block quietly.
    """
    failure: BaseException | None = None

    async def run() -> None:
        nonlocal failure
        try:
            await function()
        except Exception as error:  # noqa: BLE001 - raised again outside the nursery
            failure = failure or error
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, name=name)
        try:
            yield nursery.cancel_scope
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - as above
            failure = error
        nursery.cancel_scope.cancel()
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # it would hold this frame, which holds it
