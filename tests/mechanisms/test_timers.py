"""One task for all timers, and the few places where Trio and asyncio differ."""

# An async test that awaits nothing runs in the loop that it asks about.
# flake8: noqa: ASYNC124
from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus._runtime import current_runtime
from tbus._timers import Timers


@asynccontextmanager
async def open_timers() -> AsyncIterator[Timers]:
    timers = Timers(current_runtime())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        yield timers
        nursery.cancel_scope.cancel()


async def test_callbacks_run_at_their_time_whatever_the_order_they_were_asked_for(
    autojump_clock: MockClock,
) -> None:
    ran: list[tuple[str, float]] = []

    def keep(name: str) -> None:
        ran.append((name, trio.current_time()))

    async with open_timers() as timers:
        for name, delay in (("c", 3.0), ("a", 1.0), ("z", 50.0), ("b", 2.0)):
            timers.call_later(delay, partial(keep, name))
        await trio.sleep(10)
        timers.call_at(12.0, lambda: ran.append(("d", trio.current_time())))
        await trio.sleep(10)
    assert ran == [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 12.0)]


async def test_callbacks_of_one_time_run_in_the_order_they_were_asked_for(
    autojump_clock: MockClock,
) -> None:
    ran: list[int] = []
    async with open_timers() as timers:
        for number in range(20):
            timers.call_at(5.0, partial(ran.append, number))
        await trio.sleep(10)
    assert ran == list(range(20))


async def test_a_sooner_timer_does_not_wait_for_a_later_one(autojump_clock: MockClock) -> None:
    ran: list[float] = []
    async with open_timers() as timers:
        timers.call_later(1000.0, lambda: ran.append(-1.0))
        await wait_all_tasks_blocked()
        timers.call_later(1.0, lambda: ran.append(trio.current_time()))
        await trio.sleep(2)
        assert ran == [1.0]


async def test_a_cancelled_timer_does_nothing(autojump_clock: MockClock) -> None:
    ran: list[str] = []
    async with open_timers() as timers:
        timers.call_later(1.0, lambda: ran.append("cancelled")).cancel()
        timers.call_later(2.0, lambda: ran.append("kept"))
        await trio.sleep(3)
    assert ran == ["kept"]


async def test_a_timer_whose_time_is_over_runs_soon(autojump_clock: MockClock) -> None:
    ran: list[float] = []
    async with open_timers() as timers:
        await trio.sleep(5)
        timers.call_at(1.0, lambda: ran.append(trio.current_time()))
        await wait_all_tasks_blocked()
        assert ran == [5.0]


async def test_a_callback_may_ask_for_another_one(autojump_clock: MockClock) -> None:
    ran: list[float] = []
    async with open_timers() as timers:

        def again() -> None:
            ran.append(trio.current_time())
            timers.call_later(1.0, again)

        timers.call_later(1.0, again)
        await trio.sleep(3.5)
    assert ran == [1.0, 2.0, 3.0]


async def test_timers_asked_for_before_the_task_runs_are_kept(autojump_clock: MockClock) -> None:
    ran: list[float] = []
    timers = Timers(current_runtime())
    timers.call_later(1.0, lambda: ran.append(trio.current_time()))
    assert len(timers) == 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert ran == [1.0]
    assert len(timers) == 0


async def test_the_task_sleeps_without_a_deadline_when_there_is_no_timer(
    autojump_clock: MockClock,
) -> None:
    async with open_timers():
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")


# --- the runtime ---


@pytest.mark.asyncio_too
async def test_the_runtime_is_that_of_the_loop(backend: str) -> None:
    runtime = current_runtime()
    assert runtime.name == backend
    assert abs(runtime.clock() - anyio.current_time()) < 60


@pytest.mark.asyncio_too
async def test_functions_from_another_thread_run_in_the_loop_in_order() -> None:
    runtime = current_runtime()
    done = runtime.one_shot()
    ran: list[tuple[int, int]] = []

    def keep(number: int) -> None:
        ran.append((number, threading.get_ident()))

    def call_all() -> None:
        for number in range(100):
            runtime.run_soon(partial(keep, number))
        runtime.run_soon(done.set)

    thread = threading.Thread(target=call_all)
    thread.start()
    await done.wait()
    thread.join()
    assert ran == [(number, threading.get_ident()) for number in range(100)]


@pytest.mark.asyncio_too
async def test_a_scope_of_the_runtime_cuts_at_its_deadline_and_when_it_is_cancelled() -> None:
    runtime = current_runtime()
    with runtime.open_scope() as scope:
        scope.deadline = runtime.clock()
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    with runtime.open_scope() as scope:
        scope.cancel()
        await anyio.sleep_forever()
    assert scope.cancel_called
    assert scope.cancelled_caught


@pytest.mark.asyncio_too
@pytest.mark.parametrize("name", ["checkpoint", "checkpoint_if_cancelled"])
async def test_a_checkpoint_delivers_the_cancellation_that_the_runtime_names(name: str) -> None:
    runtime = current_runtime()
    checkpoint = getattr(runtime, name)
    await checkpoint()
    seen: list[type[BaseException]] = []
    with runtime.open_scope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except BaseException as error:
            seen.append(type(error))
            raise
    assert scope.cancelled_caught
    assert seen == [runtime.cancelled]


@pytest.mark.asyncio_too
async def test_a_nursery_of_the_runtime_waits_for_its_tasks() -> None:
    runtime = current_runtime()
    ran: list[int] = []

    async def run(number: int) -> None:
        await runtime.checkpoint()
        ran.append(number)

    async with runtime.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(run, number, name="a task")
    assert sorted(ran) == [0, 1, 2]
