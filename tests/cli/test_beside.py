"""A task beside a block: whatever ends either leaves as itself."""

from __future__ import annotations

import pytest
import trio

from tbus.cli._beside import running_beside


@pytest.mark.parametrize("failure", [LookupError("mine"), SystemExit(3), KeyboardInterrupt()])
async def test_what_the_block_raises_leaves_as_itself(failure):
    with pytest.raises(type(failure)) as caught:
        async with running_beside(trio.sleep_forever, "forever"):
            raise failure
    assert caught.value is failure


async def test_what_the_task_raises_ends_the_block_and_leaves_as_itself():
    async def fail() -> None:
        raise BrokenPipeError("gone")

    with pytest.raises(BrokenPipeError, match="gone"):
        async with running_beside(fail, "failing"):
            await trio.sleep_forever()


async def test_the_scope_ends_the_block_quietly():
    async with running_beside(trio.sleep_forever, "forever") as scope:
        scope.cancel()
        await trio.sleep_forever()
    assert scope.cancelled_caught
