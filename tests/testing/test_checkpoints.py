"""A function can be cancelled at each of its checkpoints in turn."""

from __future__ import annotations

from itertools import count

import pytest
import trio

from tbus.testing import cancel_at_every_checkpoint


async def test_every_checkpoint_is_cancelled_once_in_each_way():
    reached = []

    async def three():
        done = 0
        try:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                done += 1
        finally:
            reached.append(done)

    assert await cancel_at_every_checkpoint(three) == 6
    assert reached == [0, 1, 2, 3, 0, 1, 2, 3]


async def test_a_cancellation_may_come_when_the_wait_is_just_over():
    got = []

    async def receive():
        send, receive = trio.open_memory_channel[str](0)
        async with send, receive, trio.open_nursery() as nursery:
            nursery.start_soon(send.send, "it")
            got.append(await receive.receive())
            await trio.lowlevel.checkpoint_if_cancelled()
            got.append("and more")

    await cancel_at_every_checkpoint(receive)
    # It was received, and what follows was not reached: only then is that seen.
    assert got.count("it") > got.count("and more") >= 2


async def test_it_tells_after_each_run_whether_it_was_cut_short():
    told = []

    async def one():
        await trio.lowlevel.checkpoint()

    async def after(cut_short):
        await trio.lowlevel.checkpoint()
        told.append(cut_short)

    await cancel_at_every_checkpoint(one, after=after)
    assert told == [True, False, True, False]


async def test_what_the_function_starts_is_cancelled_with_it():
    ended = []

    async def child():
        try:
            await trio.sleep_forever()
        finally:
            ended.append("child")

    async def parent():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    runs = await cancel_at_every_checkpoint(parent)
    assert len(ended) >= runs


async def test_an_error_tells_at_which_checkpoint_it_was_cancelled():
    async def clumsy():
        try:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            raise ValueError("clumsy") from None  # noqa: ASYNC104 - that is the point

    with pytest.raises(ValueError, match="clumsy") as raised:
        await cancel_at_every_checkpoint(clumsy)
    assert raised.value.__notes__ == ["cancelled at checkpoint 1, while it waits"]


async def test_a_function_without_an_end_is_cancelled_as_often_as_was_asked():
    async def endless():
        for _ in count():
            await trio.lowlevel.checkpoint()

    assert await cancel_at_every_checkpoint(endless, at_most=5) == 10


async def test_a_token_that_a_cancellation_loses_is_found():
    """What it is for: a token that is taken, and never put back if cancelled then."""
    tokens = 1

    async def careless():
        nonlocal tokens
        tokens -= 1
        await trio.lowlevel.checkpoint()
        tokens += 1

    await cancel_at_every_checkpoint(careless, at_most=3)
    assert tokens < 1
