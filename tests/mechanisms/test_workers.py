"""The workers, on virtual time."""

# Handlers that swallow a cancellation, or never wait, are what is tested here.
# flake8: noqa: ASYNC103,ASYNC104,ASYNC112,ASYNC124,ASYNC401
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tbus._message import Message
from tbus._runtime import current_runtime
from tbus._workers import DEADLINE_SLACK, SLICE_MESSAGES, WorkerPool

from .kit import RecordingSource, text


class Broken(Exception):
    pass


@asynccontextmanager
async def open_pool(limit: int = 100) -> AsyncIterator[WorkerPool]:
    """A pool in a nursery of its own; leaving waits for its workers."""
    async with trio.open_nursery() as nursery:
        yield WorkerPool(current_runtime(), nursery, limit)


@asynccontextmanager
async def open_busy_pool() -> AsyncIterator[tuple[WorkerPool, RecordingSource]]:
    """A pool with one handler that runs on, and a source whose handlers take a second of ten."""

    async def wait(message: Message) -> None:
        await trio.sleep(100 if text(message) == "long" else 1)

    async with open_pool() as pool:
        RecordingSource(pool, wait, timeout=1000).push(["long"])
        await trio.testing.wait_all_tasks_blocked()
        yield pool, RecordingSource(pool, wait, timeout=10)


class CountingNursery:
    """A nursery that counts what is started in it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.cancel_scope = nursery.cancel_scope
        self.started = 0
        self._nursery = nursery

    def start_soon(self, function: Any, *args: Any, name: object = None) -> None:
        self.started += 1
        self._nursery.start_soon(function, *args, name=name)


async def nothing(message: Message) -> None:
    pass


# --- how many there are ---


async def test_there_is_no_worker_while_there_is_nothing_to_handle(
    autojump_clock: MockClock,
) -> None:
    async with open_pool() as pool:
        assert len(pool) == 0
        source = RecordingSource(pool, nothing)
        source.push("ab")
        assert len(pool) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert source.log == ["done a", "done b"]
        assert len(pool) == 0


async def test_one_worker_suffices_for_handlers_that_never_wait(autojump_clock: MockClock) -> None:
    async with open_pool() as pool:
        source = RecordingSource(pool, nothing)
        for _ in range(20):
            source.push("x" * 500)
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert len(source.log) == 10_000
        assert pool.peak <= 2  # the second one finds that the first comes back, and goes


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
async def test_handlers_that_wait_run_side_by_side_up_to_the_limit(
    autojump_clock: MockClock, limit: int
) -> None:
    running = most = 0

    async def wait(message: Message) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    async with open_pool(limit) as pool:
        source = RecordingSource(pool, wait)
        began = trio.current_time()
        source.push("x" * 100)
    assert most == pool.peak == limit
    assert trio.current_time() - began == pytest.approx(-(-100 // limit))
    assert len(source.log) == 100
    assert len(pool) == 0


async def test_a_hundred_handlers_that_wait_run_after_a_few_passes_of_the_loop(
    autojump_clock: MockClock,
) -> None:
    running = passes = 0

    async def wait(message: Message) -> None:
        nonlocal running
        running += 1
        await trio.sleep(1)

    async with open_pool() as pool:
        RecordingSource(pool, wait).push("x" * 100)
        while running < 100:
            await trio.lowlevel.checkpoint()
            passes += 1
    assert passes <= 30


async def test_there_are_never_more_workers_than_messages(autojump_clock: MockClock) -> None:
    async def wait(message: Message) -> None:
        await trio.sleep(1)

    for messages in (1, 2, 5, 33, 100):
        async with open_pool(1000) as pool:
            RecordingSource(pool, wait).push("x" * messages)
        assert pool.peak <= messages


async def test_a_worker_that_found_nothing_serves_again_while_others_handle(
    autojump_clock: MockClock,
) -> None:
    async def wait(message: Message) -> None:
        await trio.sleep(1000 if text(message) == "long" else 1)

    async with trio.open_nursery() as nursery:
        counting = CountingNursery(nursery)
        pool = WorkerPool(current_runtime(), counting, 100)
        source = RecordingSource(pool, wait, timeout=2000)
        source.push(["long"])
        for _ in range(50):
            source.push("x" * 20)
            await trio.sleep(2)
        assert len(source.log) == 1000
        assert len(pool.running()) == 1
        assert counting.started == len(pool) == 21
    assert len(pool) == 0


@pytest.mark.parametrize("pause", [0, 1])
async def test_workers_that_ended_together_leave_their_places(
    autojump_clock: MockClock, pause: int
) -> None:
    async def wait(message: Message) -> None:
        await trio.sleep(int(text(message)))

    async with open_pool(3) as pool:
        source = RecordingSource(pool, wait)
        for _ in range(5):
            source.push("123")
            await trio.sleep(3)
            await trio.sleep(pause)
        await trio.testing.wait_all_tasks_blocked()
        assert source.log == ["done 1", "done 2", "done 3"] * 5
        assert len(pool) == 0


async def test_a_worker_that_nobody_calls_for_as_long_as_a_handler_may_take_ends(
    autojump_clock: MockClock,
) -> None:
    async with open_busy_pool() as (pool, short):
        short.push("x" * 20)
        await trio.sleep(5)
        assert len(pool) > 1
        await trio.sleep(10)
        assert len(pool) <= 2
        short.push("x")
        await trio.sleep(2)
        assert len(short.log) == 21


@pytest.mark.parametrize("ends", [9.9, 10, 10.1])
async def test_a_worker_that_is_called_as_its_time_is_up_handles_its_message(
    autojump_clock: MockClock, ends: float
) -> None:
    async with open_busy_pool() as (_, short):
        short.push("xy")
        await trio.sleep(ends)
        short.push("zuv")
        await trio.sleep(1.5)
        assert sorted(short.log) == ["done u", "done v", "done x", "done y", "done z"]


async def test_a_worker_that_waits_for_a_call_is_cancelled_with_the_others(
    autojump_clock: MockClock,
) -> None:
    async def wait(message: Message) -> None:
        if text(message) != "c":
            await trio.sleep(1000 if text(message) == "long" else 1)

    async with trio.open_nursery() as nursery:
        pool = WorkerPool(current_runtime(), nursery, 100)
        source = RecordingSource(pool, wait)
        source.push(["long", "a", "b"])
        await trio.sleep(5)
        assert len(pool) == 3
        source.push("c")  # one of them is called, and cancelled before it comes
        nursery.cancel_scope.cancel()
    assert len(pool) == 0
    assert "done c" not in source.log


async def test_the_limit_is_for_all_subscriptions_together(autojump_clock: MockClock) -> None:
    async with open_pool(5) as pool:
        release = trio.Event()

        async def wait(message: Message) -> None:
            await release.wait()

        sources = [RecordingSource(pool, wait) for _ in range(10)]
        for source in sources:
            source.push("xy")
        await trio.testing.wait_all_tasks_blocked()
        assert len(pool) == len(pool.running()) == 5
        release.set()
    assert all(len(source.log) == 2 for source in sources)


async def test_a_subscriptions_own_limit_is_kept_and_holds_up_nobody_else(
    autojump_clock: MockClock,
) -> None:
    async with open_pool() as pool:
        release = trio.Event()

        async def wait(message: Message) -> None:
            await release.wait()

        narrow = RecordingSource(pool, wait, limit=2)
        other = RecordingSource(pool, nothing)
        narrow.push("abcde")
        await trio.testing.wait_all_tasks_blocked()
        assert narrow.dispatcher.running == 2
        other.push("x")
        await trio.testing.wait_all_tasks_blocked()
        assert other.log == ["done x"]
        release.set()
    assert sorted(narrow.log) == [f"done {body}" for body in "abcde"]


async def test_a_handler_that_waits_does_not_hold_up_the_next_message(
    autojump_clock: MockClock,
) -> None:
    async with open_pool() as pool:
        release = trio.Event()

        async def maybe_wait(message: Message) -> None:
            if text(message) == "slow":
                await release.wait()

        source = RecordingSource(pool, maybe_wait)
        source.push(["slow", "a", "b"])
        await trio.testing.wait_all_tasks_blocked()
        assert source.log == ["done a", "done b"]
        release.set()
    assert source.log[-1] == "done slow"


async def test_messages_of_one_key_are_handled_one_after_another(autojump_clock: MockClock) -> None:
    async def wait(message: Message) -> None:
        await trio.sleep(1)

    async with open_pool() as pool:
        source = RecordingSource(pool, wait)
        source.push("abc", key="k")
        source.push("x", key="other")
    assert [line for line in source.log if line != "done x"] == ["done a", "done b", "done c"]
    assert trio.current_time() == pytest.approx(3)


# --- taking turns ---


async def test_a_flood_on_one_subscription_does_not_starve_another(
    autojump_clock: MockClock,
) -> None:
    handled: list[str] = []

    async with open_pool() as pool:
        quiet: RecordingSource

        async def count(message: Message) -> None:
            handled.append(text(message))
            if len(handled) == 10:
                quiet.push(["quiet"])

        flood, quiet = RecordingSource(pool, count), RecordingSource(pool, count)
        flood.push(["flood"] * 5000)
    assert 10 <= handled.index("quiet") <= 12


async def test_subscriptions_take_turns_message_by_message(autojump_clock: MockClock) -> None:
    handled: list[str] = []

    async def keep(message: Message) -> None:
        handled.append(text(message))

    async with open_pool() as pool:
        for name in "abc":
            RecordingSource(pool, keep).push([name] * 4)
    assert "".join(handled) == "abc" * 4


async def test_a_worker_gives_the_loop_to_others_now_and_then(autojump_clock: MockClock) -> None:
    handled = 0

    async def count(message: Message) -> None:
        nonlocal handled
        handled += 1

    async with open_pool() as pool:
        source = RecordingSource(pool, count)
        source.push("x" * 10 * SLICE_MESSAGES)
        seen = []
        while handled < 10 * SLICE_MESSAGES:
            await trio.lowlevel.checkpoint()
            seen.append(handled)
        steps = [later - earlier for earlier, later in pairwise(seen)]
        assert max(steps) <= 2 * SLICE_MESSAGES


# --- deadlines ---


async def test_a_handler_that_runs_out_of_time_has_failed_exactly_then(
    autojump_clock: MockClock,
) -> None:
    times: list[float] = []

    async def wait(message: Message) -> None:
        try:
            await trio.sleep_forever()
        finally:
            times.append(trio.current_time())

    async with open_pool() as pool:
        source = RecordingSource(pool, wait, timeout=30.0)
        source.push("x")
    assert source.log == ["failed x: TimeoutError"]
    assert str(source.errors[0]) == "the handler ran longer than 30.0 s"
    assert times == [pytest.approx(30.0, abs=DEADLINE_SLACK)]


async def test_each_message_has_the_whole_time_for_itself(autojump_clock: MockClock) -> None:
    async def wait(message: Message) -> None:
        await trio.sleep(0.9)

    async with open_pool(1) as pool:
        source = RecordingSource(pool, wait, timeout=1.0)
        source.push("abcdefgh")
    assert source.log == [f"done {body}" for body in "abcdefgh"]


@pytest.mark.parametrize("before", [["0.004", "0.004"], ["0.018"], ["0.008", "0.01"]])
async def test_a_deadline_is_at_most_the_documented_slack_short(
    autojump_clock: MockClock, before: list[str]
) -> None:
    ran: dict[str, float] = {}

    async def wait(message: Message) -> None:
        began = trio.current_time()
        if text(message) == "last":
            try:
                await trio.sleep_forever()
            finally:
                ran["last"] = trio.current_time() - began
        else:
            await trio.sleep(float(text(message)))

    async with open_pool(1) as pool:
        source = RecordingSource(pool, wait, timeout=1.0)
        source.push([*before, "last"])
    assert 1.0 - DEADLINE_SLACK <= ran["last"] <= 1.0 + 1e-9


async def test_every_subscription_has_its_own_time(autojump_clock: MockClock) -> None:
    ended: dict[str, float] = {}

    async def wait(message: Message) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended[text(message)] = trio.current_time()

    async with open_pool() as pool:
        for name, timeout in (("a", 5.0), ("b", 1.0), ("c", 3.0)):
            RecordingSource(pool, wait, timeout=timeout).push([name])
    assert ended == {
        name: pytest.approx(timeout, abs=DEADLINE_SLACK)
        for name, timeout in (("a", 5.0), ("b", 1.0), ("c", 3.0))
    }


async def test_a_worker_changes_the_time_when_it_changes_the_subscription(
    autojump_clock: MockClock,
) -> None:
    ended: dict[str, float] = {}

    async def wait(message: Message) -> None:
        began = trio.current_time()
        try:
            await trio.sleep_forever()
        finally:
            ended[text(message)] = trio.current_time() - began

    async with open_pool(1) as pool:
        for name, timeout in (("a", 5.0), ("b", 1.0), ("c", 3.0)):
            RecordingSource(pool, wait, timeout=timeout).push([name])
    assert ended == {
        name: pytest.approx(timeout, abs=DEADLINE_SLACK)
        for name, timeout in (("a", 5.0), ("b", 1.0), ("c", 3.0))
    }


async def test_a_worker_changes_the_time_from_one_message_to_the_next(
    autojump_clock: MockClock,
) -> None:
    async def wait(message: Message) -> None:
        await trio.sleep_forever()

    async with open_pool(1) as pool:
        RecordingSource(pool, nothing, timeout=5.0).push(["quick"])
        RecordingSource(pool, wait, timeout=1.0).push(["slow"])
    assert trio.current_time() == pytest.approx(1.0, abs=DEADLINE_SLACK)


async def test_who_is_parked_when_its_deadline_comes_with_the_last_one_s_handles_nothing_more(
    autojump_clock: MockClock,
) -> None:
    # Which of three tasks that wake at once runs first is Trio's to draw: so many times.
    for _ in range(60):
        running: list[int] = []

        async def wait(message: Message) -> None:
            if text(message) == "quick":
                await trio.sleep(0.5)
            elif text(message) == "slow":
                await trio.sleep_forever()
            else:
                await trio.sleep(0.1)
                running.append(len(pool.running()))  # noqa: B023 - of this round

        async with open_pool() as pool:
            source = RecordingSource(pool, wait, timeout=1.0)
            source.push(["quick", "slow"])
            await trio.sleep(1.0)
            source.push(["later"])
        assert running == [1]
        assert source.log[:2] == ["done quick", "failed slow: TimeoutError"]
        assert len(pool) == 0


async def test_a_handler_that_swallows_its_deadline_and_returns_is_done(
    autojump_clock: MockClock,
) -> None:
    starts: list[float] = []

    async def swallow(message: Message) -> None:
        starts.append(trio.current_time())
        if text(message) == "swallows":
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                return
        await trio.sleep(4)  # in a scope that is spent, this would end at once

    async with open_pool(1) as pool:
        source = RecordingSource(pool, swallow, timeout=5.0)
        source.push(["swallows", "next"])
    assert source.log == ["done swallows", "done next"]
    assert trio.current_time() == pytest.approx(starts[1] + 4)


async def test_a_timeout_of_the_handlers_own_is_a_failure_like_any_other(
    autojump_clock: MockClock,
) -> None:
    async def own(message: Message) -> None:
        with trio.fail_after(1):
            await trio.sleep_forever()

    async with open_pool() as pool:
        source = RecordingSource(pool, own, timeout=5.0)
        source.push("x")
    assert source.log == ["failed x: TooSlowError"]


async def test_a_handler_that_raises_as_its_deadline_cuts_it_has_failed_with_that(
    autojump_clock: MockClock,
) -> None:
    async def raise_late(message: Message) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            raise BaseExceptionGroup("both", [cancelled, Broken()]) from None

    async with open_pool() as pool:
        source = RecordingSource(pool, raise_late, timeout=5.0)
        source.push("x")
    assert source.log == ["failed x: ExceptionGroup"]


# --- cancellation from outside ---


async def test_a_handler_that_is_cancelled_from_outside_has_not_failed(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        pool = WorkerPool(current_runtime(), nursery, 10)

        async def wait(message: Message) -> None:
            await trio.sleep_forever()

        source = RecordingSource(pool, wait)
        source.push("ab")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sorted(source.log) == ["interrupted a", "interrupted b"]
    assert len(pool) == 0
    assert source.dispatcher.running == 0


async def test_a_handler_that_raises_beside_its_cancellation_has_not_failed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        pool = WorkerPool(current_runtime(), nursery, 10)

        async def wait(message: Message) -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled as cancelled:
                raise BaseExceptionGroup("both", [cancelled, Broken("beside")]) from None

        source = RecordingSource(pool, wait)
        source.push("a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert source.log == ["interrupted a"]
    assert "raised while it was cancelled" in caplog.text
    assert "beside" in caplog.text


@pytest.mark.parametrize("in_a_group", [False, True])
async def test_what_a_cancelled_handler_raises_in_place_of_the_cancellation_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, in_a_group: bool
) -> None:
    async def clear_up_badly(message: Message) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Broken("clearing up")

    async def in_a_nursery(message: Message) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clear_up_badly, message)

    async with open_pool() as pool:
        source = RecordingSource(pool, in_a_nursery if in_a_group else clear_up_badly)
        source.push("a")
        await trio.testing.wait_all_tasks_blocked()
        pool.evict(source)
    assert source.log == ["interrupted a"]
    [record] = caplog.records
    assert record.getMessage() == "a handler of topic 't' raised while it was cancelled"
    assert "Broken: clearing up" in caplog.text


async def test_nothing_is_logged_of_a_handler_that_is_cancelled(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait(message: Message) -> None:
        await trio.sleep_forever()

    async with open_pool() as pool:
        source = RecordingSource(pool, wait)
        source.push("a")
        await trio.testing.wait_all_tasks_blocked()
        pool.evict(source)
    assert source.log == ["interrupted a"]
    assert not caplog.records


async def test_a_worker_that_is_cancelled_before_it_ran_takes_nothing(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        pool = WorkerPool(current_runtime(), nursery, 10)
        source = RecordingSource(pool, nothing)
        source.push("ab")
        nursery.cancel_scope.cancel()
    assert source.log == []
    assert len(pool) == 0
    assert pool._starting == 0


async def test_a_failure_that_is_being_dealt_with_is_interrupted_too(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        pool = WorkerPool(current_runtime(), nursery, 10)

        class SlowToFail(RecordingSource):
            async def failed(self, lane: Any, error: Exception) -> None:
                await trio.sleep_forever()

        async def fail(message: Message) -> None:
            raise Broken

        source = SlowToFail(pool, fail)
        source.push("a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert source.log == ["interrupted a"]


# --- eviction ---


async def test_evicting_cancels_the_handlers_of_one_subscription_alone(
    autojump_clock: MockClock,
) -> None:
    async with open_pool() as pool:
        release = trio.Event()

        async def wait(message: Message) -> None:
            await release.wait()

        one, other = RecordingSource(pool, wait), RecordingSource(pool, wait)
        one.push("ab")
        other.push("x")
        await trio.testing.wait_all_tasks_blocked()
        pool.withdraw(one)
        assert pool.evict(one) == 2
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(one.log) == ["interrupted a", "interrupted b"]
        assert other.log == []
        release.set()
    assert other.log == ["done x"]


async def test_an_evicted_handler_that_swallows_it_and_returns_is_done(
    autojump_clock: MockClock,
) -> None:
    async with open_pool() as pool:

        async def swallow(message: Message) -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                pass

        source = RecordingSource(pool, swallow)
        source.push("a")
        await trio.testing.wait_all_tasks_blocked()
        pool.evict(source)
    assert source.log == ["done a"]


async def test_an_evicted_handler_that_raises_has_not_failed(autojump_clock: MockClock) -> None:
    async with open_pool() as pool:

        async def swallow(message: Message) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise Broken

        source = RecordingSource(pool, swallow)
        source.push("a")
        await trio.testing.wait_all_tasks_blocked()
        pool.evict(source)
    assert source.log == ["interrupted a"]


@pytest.mark.parametrize("swallows", [False, True])
async def test_others_that_waited_for_an_evicted_subscriptions_workers_go_on(
    autojump_clock: MockClock, swallows: bool
) -> None:
    async with open_pool(2) as pool:

        async def wait(message: Message) -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                if not swallows:
                    raise

        async def sleep(message: Message) -> None:
            await trio.sleep(1)  # in a scope that is spent, this would end at once

        greedy, other = RecordingSource(pool, wait), RecordingSource(pool, sleep)
        greedy.push("ab")
        await trio.testing.wait_all_tasks_blocked()
        other.push("xy")
        await trio.testing.wait_all_tasks_blocked()
        assert other.log == []
        pool.withdraw(greedy)
        pool.evict(greedy)
        await trio.sleep(5)
        assert sorted(other.log) == ["done x", "done y"]


async def test_a_worker_that_was_evicted_while_it_dealt_with_a_failure_serves_others(
    autojump_clock: MockClock,
) -> None:
    async with open_pool(1) as pool:
        dealt_with = trio.Event()

        class SlowToFail(RecordingSource):
            async def failed(self, lane: Any, error: Exception) -> None:
                await dealt_with.wait()
                await super().failed(lane, error)

        async def fail(message: Message) -> None:
            raise Broken

        slow, other = SlowToFail(pool, fail), RecordingSource(pool, fail)
        slow.push("a")
        await trio.testing.wait_all_tasks_blocked()
        other.push("xy")
        pool.withdraw(slow)
        pool.evict(slow)
        dealt_with.set()
        await trio.testing.wait_all_tasks_blocked()
        assert other.log == ["failed x: Broken", "failed y: Broken"]


async def test_a_withdrawn_subscription_begins_nothing_more(autojump_clock: MockClock) -> None:
    async with open_pool(1) as pool:
        release = trio.Event()

        async def wait(message: Message) -> None:
            await release.wait()

        source = RecordingSource(pool, wait)
        source.push("abc")
        await trio.testing.wait_all_tasks_blocked()
        source.dispatcher.clear()
        pool.withdraw(source)
        release.set()
    assert source.log == ["done a"]


# --- what handlers raise ---


async def test_a_handler_that_raises_has_failed_with_just_that(autojump_clock: MockClock) -> None:
    error = Broken("as it is")

    async def fail(message: Message) -> None:
        raise error

    async with open_pool() as pool:
        source = RecordingSource(pool, fail)
        source.push("ab")
    assert source.log == ["failed a: Broken", "failed b: Broken"]
    assert source.errors == [error, error]


async def test_a_handlers_exception_group_is_not_unwrapped(autojump_clock: MockClock) -> None:
    group = ExceptionGroup("mine", [Broken(), ExceptionGroup("inner", [ValueError()])])

    async def fail(message: Message) -> None:
        raise group

    async with open_pool() as pool:
        source = RecordingSource(pool, fail)
        source.push("a")
    assert source.errors == [group]


async def test_keyboard_interrupt_passes_through_and_its_message_is_not_failed(
    autojump_clock: MockClock,
) -> None:
    async def fail(message: Message) -> None:
        raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with open_pool() as pool:
            source = RecordingSource(pool, fail)
            source.push("a")
    assert caught.group_contains(KeyboardInterrupt, depth=1)
    assert source.log == ["interrupted a"]


async def test_keyboard_interrupt_in_a_group_passes_through(autojump_clock: MockClock) -> None:
    async def fail(message: Message) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with open_pool() as pool:
            source = RecordingSource(pool, fail)
            source.push("a")
    assert caught.group_contains(KeyboardInterrupt)
    assert source.log == ["interrupted a"]


async def test_a_defect_in_settling_is_no_failure_of_the_handler(autojump_clock: MockClock) -> None:
    class Defective(RecordingSource):
        def done(self, lane: Any) -> None:
            raise Broken("a defect of ours")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with open_pool() as pool:
            source = Defective(pool, nothing)
            source.push("a")
    assert caught.group_contains(Broken, match="a defect of ours", depth=1)
    assert source.log == []


async def test_a_defect_in_dealing_with_a_failure_ends_the_nursery(
    autojump_clock: MockClock,
) -> None:
    class Defective(RecordingSource):
        async def failed(self, lane: Any, error: Exception) -> None:
            raise ValueError("a defect of ours")

    async def fail(message: Message) -> None:
        raise Broken

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with open_pool() as pool:
            source = Defective(pool, fail)
            source.push("a")
    assert caught.group_contains(ValueError, match="a defect of ours", depth=1)
    assert source.log == ["interrupted a"]


async def test_a_doomed_message_goes_to_failed_without_its_handler(
    autojump_clock: MockClock,
) -> None:
    ran: list[str] = []

    async def keep(message: Message) -> None:
        ran.append(text(message))

    async with open_pool() as pool:
        source = RecordingSource(pool, keep)
        source.push(["doomed", "x"])
        source.doomed = {next(iter(m for m in source.dispatcher if text(m) == "doomed"))}
    assert ran == ["x"]
    assert sorted(source.log) == ["done x", "failed doomed: Doomed"]


# --- what handlers can do ---


async def test_a_handler_sees_the_context_of_whoever_opened_the_pool(
    autojump_clock: MockClock,
) -> None:
    request: ContextVar[str] = ContextVar("request")
    seen: list[str] = []

    async def look(message: Message) -> None:
        seen.append(request.get())

    request.set("outside")
    async with open_pool() as pool:
        RecordingSource(pool, look).push("a")
    assert seen == ["outside"]


async def test_handlers_and_what_they_start_are_known_to_be_inside(
    autojump_clock: MockClock,
) -> None:
    inside: list[bool] = []
    async with open_pool() as pool, open_pool() as other:

        async def look() -> None:
            inside.append(pool.is_inside())
            inside.append(not other.is_inside())

        async def handle(message: Message) -> None:
            await look()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)

        RecordingSource(pool, handle).push("a")
        await trio.testing.wait_all_tasks_blocked()
        assert not pool.is_inside()
    assert inside == [True] * 4


async def test_a_handler_may_have_a_nursery_of_its_own(autojump_clock: MockClock) -> None:
    async def handle(message: Message) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(trio.sleep, 1)
            if text(message) == "fails":
                raise Broken

    async with open_pool() as pool:
        source = RecordingSource(pool, handle, timeout=5.0)
        source.push(["works", "fails"])
    assert sorted(source.log) == ["done works", "failed fails: ExceptionGroup"]
    assert trio.current_time() == pytest.approx(1)


async def test_a_deadline_reaches_into_a_nursery_of_the_handler(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async def handle(message: Message) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(child)

    async with open_pool() as pool:
        source = RecordingSource(pool, handle, timeout=5.0)
        source.push("a")
    assert source.log == ["failed a: TimeoutError"]
    assert ended == [pytest.approx(5.0, abs=DEADLINE_SLACK)] * 2


async def test_a_handler_may_offer_more_to_its_own_subscription(autojump_clock: MockClock) -> None:
    async with open_pool(1) as pool:

        async def handle(message: Message) -> None:
            if text(message) != "z":
                source.push([chr(ord(text(message)) + 1)])

        source = RecordingSource(pool, handle)
        source.push("x")
    assert source.log == ["done x", "done y", "done z"]


async def test_what_runs_can_be_looked_at(autojump_clock: MockClock) -> None:
    async with open_pool() as pool:
        release = trio.Event()

        async def wait(message: Message) -> None:
            await release.wait()

        source = RecordingSource(pool, wait)
        source.push("a", topic="orders")
        await trio.sleep(7)
        source.push("b", topic="bills")
        await trio.sleep(1)
        assert sorted(pool.running()) == [("bills", 7.0), ("orders", 0.0)]
        release.set()
    assert pool.running() == []
