"""How many handlers run at once where the loop is busy: the decisions, then the workers."""

from __future__ import annotations

from math import inf

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tbus._crowd import CROWD, FEW, LOOK_EVERY, MOST_CALLS, PASSES, Crowd
from tbus._message import Message
from tbus._runtime import current_runtime
from tbus._workers import WorkerPool

from .kit import RecordingSource


def crowded() -> Crowd:
    """One of which a worker looks while another waits."""
    crowd = Crowd()
    assert crowd.begin()
    assert not crowd.begin()
    return crowd


def calls_after(crowd: Crowd, *passes: int) -> list[int]:
    """How many workers are called after passes in which so many handlers ended."""
    calls = []
    for ended in passes:
        crowd.ended += ended
        calls.append(crowd.count_pass())
    return calls


# --- decisions ---


def test_somebody_looks_after_so_many_handlers_that_have_waited():
    crowd = Crowd()
    assert crowd.look_at == LOOK_EVERY
    crowd.ended = LOOK_EVERY
    assert crowd.begin()
    assert not crowd.is_on
    crowd.end()
    assert crowd.look_at == 2 * LOOK_EVERY


def test_where_it_is_not_wanted_nobody_looks():
    assert Crowd(is_wanted=False).look_at == inf


def test_who_ends_while_somebody_looks_waits_once_there_are_too_many():
    crowd = Crowd()
    crowd.ended = 1000
    assert crowd.begin()
    assert crowd.look_at == 1000 + CROWD
    assert not crowd.begin()
    assert crowd.is_on
    crowd.ended += CROWD + 5
    crowd.count_pass()
    assert crowd.look_at == crowd.ended + CROWD


def test_nobody_is_called_while_enough_end():
    assert calls_after(crowded(), *[FEW] * PASSES * 3) == [0] * PASSES * 3


def test_one_is_called_where_fewer_end():
    few = [FEW] * (PASSES - 1) + [FEW - 1]
    assert calls_after(crowded(), *few, *few) == ([0] * (PASSES - 1) + [1]) * 2


@pytest.mark.parametrize("ended", [0, FEW // 4 - 1])
def test_twice_as_many_are_called_each_time_where_hardly_any_ends(ended: int):
    calls = calls_after(crowded(), *[ended] * PASSES * 8)
    assert [number for number in calls if number] == [1, 2, 4, 8, 16, 32, MOST_CALLS, MOST_CALLS]


def test_what_was_called_before_is_forgotten_when_some_end():
    crowd = crowded()
    calls_after(crowd, *[0] * PASSES * 4)
    assert calls_after(crowd, *[FEW // 2] * PASSES)[-1] == 1
    assert calls_after(crowd, *[0] * PASSES)[-1] == 2
    assert calls_after(crowd, *[FEW] * PASSES)[-1] == 0
    assert calls_after(crowd, *[0] * PASSES)[-1] == 1


def test_when_it_is_over_nobody_waits():
    crowd = crowded()
    crowd.ended = 5000
    crowd.end()
    assert not crowd.is_on
    assert crowd.look_at == 5000 + LOOK_EVERY
    assert crowd.begin()


# --- workers ---


@pytest.mark.parametrize("limit", [100, 400, 1000])
async def test_handlers_that_all_end_at_once_run_all_again_at_once(
    autojump_clock: MockClock, limit: int
) -> None:
    async def wait(message: Message) -> None:
        await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        pool = WorkerPool(current_runtime(), nursery, limit)
        source = RecordingSource(pool, wait)
        began = trio.current_time()
        source.push("x" * limit * 5)
        for _ in range(5):
            await trio.sleep(0.5)
            assert len(pool.running()) == limit
            await trio.sleep(0.5)
    assert trio.current_time() - began == pytest.approx(5)
    assert len(source.log) == limit * 5
    assert len(pool) == 0


async def test_where_the_loop_is_always_busy_fewer_run_than_may(autojump_clock: MockClock) -> None:
    passes = 4
    counts = []

    async def wait(message: Message) -> None:
        for _ in range(passes):
            await trio.lowlevel.checkpoint()
        counts.append(len(pool.running()))

    async with trio.open_nursery() as nursery:
        pool = WorkerPool(current_runtime(), nursery, 1000)
        source = RecordingSource(pool, wait)
        source.push("x" * 10_000)
    assert max(counts[5000:9000]) <= CROWD * passes  # so many end in each pass, and no more
    assert min(counts[5000:9000]) >= FEW  # yet it is kept busy
    assert len(source.log) == 10_000
    assert len(pool) == 0


async def test_who_waits_in_a_crowd_is_called_when_the_others_wait_for_something(
    autojump_clock: MockClock,
) -> None:
    """Nobody is left behind by handlers that end all at once and then never again."""
    release = trio.Event()
    ended = 0

    async def wait(message: Message) -> None:
        nonlocal ended
        if ended < 300:
            await trio.sleep(1)
            ended += 1
        else:
            await release.wait()

    async with trio.open_nursery() as nursery:
        pool = WorkerPool(current_runtime(), nursery, 300)
        RecordingSource(pool, wait).push("x" * 600)
        await trio.sleep(1.5)
        assert len(pool.running()) == 300
        release.set()
    assert len(pool) == 0


async def test_who_waits_in_a_crowd_is_cancelled_with_the_others(autojump_clock: MockClock) -> None:
    handled = 0

    async def wait(message: Message) -> None:
        nonlocal handled
        await trio.lowlevel.checkpoint()
        handled += 1
        if handled == 3000:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        pool = WorkerPool(current_runtime(), nursery, 1000)
        source = RecordingSource(pool, wait)
        source.push("x" * 10_000)
    assert len(pool) == 0
    assert source.dispatcher.running == 0
    ran = [line for line in source.log if line.startswith("interrupted")]
    assert len(ran) <= CROWD * 2  # those that were in a handler, and nobody else
