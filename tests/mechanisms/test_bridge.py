"""The bridge, with its real thread, in real time: every wait here is for an event."""

# Clients' tasks that swallow a cancellation, or never wait, are what is tested here.
# flake8: noqa: ASYNC102,ASYNC103,ASYNC104,ASYNC124
from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
import trio

from tbus import _bridge
from tbus._bridge import HELPING, Bridge, open_bridge
from tbus._errors import BusClosed, TbusError
from tbus._watermark import Watermark


class Broken(Exception):
    pass


async def in_loop(bridge: Bridge, function: Callable[[], Any] = lambda: None) -> Any:
    """Run a plain function in the loop and wait: all that was submitted before has run."""

    async def run() -> Any:
        return function()

    return await bridge.call(run)


def assert_nothing_is_left(bridge: Bridge) -> None:
    assert not bridge._thread.is_alive()
    assert bridge.loop.is_closed()


async def end_of_failed_bridge(bridge: Bridge) -> BaseException:
    """Wait, as the bus does, until the bridge says why it failed."""
    try:
        await bridge.wait_failed()
    except Exception as error:  # noqa: BLE001 - it is what is asked for
        return error
    raise AssertionError("wait_failed returned")


# --- crossings ---


@pytest.mark.asyncio_too
async def test_what_is_submitted_runs_in_the_loop_in_order() -> None:
    seen: list[tuple[int, int]] = []
    async with open_bridge() as bridge:
        for number in range(3 * HELPING):
            bridge.submit(lambda n: seen.append((n, threading.get_ident())), number)
        await in_loop(bridge)
        thread = bridge._thread.ident
    assert seen == [(number, thread) for number in range(3 * HELPING)]


@pytest.mark.asyncio_too
async def test_what_is_posted_runs_in_the_program_in_order() -> None:
    seen: list[tuple[int, int]] = []
    done = anyio.Event()
    count = 3 * HELPING

    def arrive(number: int) -> None:
        seen.append((number, threading.get_ident()))
        if number == count - 1:
            done.set()

    async with open_bridge() as bridge:

        def post_all() -> None:
            for number in range(count):
                bridge.post(arrive, number)

        bridge.submit(post_all)
        await done.wait()
    assert seen == [(number, threading.get_ident()) for number in range(count)]


@pytest.mark.asyncio_too
async def test_many_submits_in_one_pass_cost_one_wake() -> None:
    async with open_bridge() as bridge:
        wakes = 0
        wake = bridge.loop.call_soon_threadsafe

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return wake(*args, **kwargs)

        await in_loop(bridge)
        bridge.loop.call_soon_threadsafe = counted  # type: ignore[method-assign,assignment]
        seen: list[int] = []
        for number in range(1000):
            bridge.submit(seen.append, number)
        assert wakes == 0
        await in_loop(bridge)
        assert len(seen) == 1000
        assert wakes <= 1  # none, if the loop had not gone to sleep yet


async def test_many_posts_in_one_pass_cost_one_wake() -> None:
    async with open_bridge() as bridge:
        wakes = 0
        run_soon = bridge.runtime.run_soon

        def counted(function: Callable[[], object]) -> None:
            nonlocal wakes
            wakes += 1
            run_soon(function)

        await in_loop(bridge)
        object.__setattr__(bridge.runtime, "run_soon", counted)
        done = trio.Event()
        seen: list[int] = []

        def post_all() -> None:
            for number in range(HELPING - 1):
                bridge.post(seen.append, number)
            bridge.post(done.set)

        bridge.submit(post_all)
        await done.wait()
        assert len(seen) == HELPING - 1
        assert wakes == 1


async def test_posts_of_many_passes_cost_no_wake_while_the_program_is_busy() -> None:
    async with open_bridge() as bridge:
        wakes = 0
        run_soon = bridge.runtime.run_soon

        def counted(function: Callable[[], object]) -> None:
            nonlocal wakes
            wakes += 1
            run_soon(function)

        await in_loop(bridge)
        object.__setattr__(bridge.runtime, "run_soon", counted)
        seen: list[int] = []
        passed = threading.Event()

        def post(left: int) -> None:
            bridge.post(seen.append, left)
            if left:
                bridge.loop.call_soon(post, left - 1)
            else:
                bridge.loop.call_soon(passed.set)

        bridge.loop.call_soon_threadsafe(post, 20)
        passed.wait()  # the program is busy
        assert wakes == 0
        assert seen == []
        await in_loop(bridge)
        assert seen == list(range(20, -1, -1))


async def test_no_helping_keeps_the_loop_from_its_other_work() -> None:
    async with open_bridge() as bridge:
        seen: list[str] = []

        def submitted() -> None:
            if not seen:
                bridge.loop.call_soon(seen.append, "other work")
            seen.append("submitted")

        for _ in range(2 * HELPING + 1):
            bridge.submit(submitted)
        await in_loop(bridge)
    assert seen.index("other work") == HELPING
    assert seen.count("submitted") == 2 * HELPING + 1


# --- calls ---


@pytest.mark.asyncio_too
async def test_a_call_returns_what_its_function_returns_in_the_loop() -> None:
    async with open_bridge() as bridge:

        async def work(left: int, right: int) -> tuple[int, bool]:
            await asyncio.sleep(0)
            return left + right, asyncio.get_running_loop() is bridge.loop

        assert await bridge.call(work, 1, 2) == (3, True)


@pytest.mark.asyncio_too
async def test_a_call_raises_what_its_function_raises_and_the_bridge_goes_on() -> None:
    error = Broken("as it is")

    async def work() -> None:
        raise error

    async with open_bridge() as bridge:
        with pytest.raises(Broken) as caught:
            await bridge.call(work)
        assert caught.value is error
        assert await in_loop(bridge, lambda: "still here") == "still here"


@pytest.mark.asyncio_too
async def test_a_cancelled_call_leaves_at_once_and_its_task_is_cancelled() -> None:
    async with open_bridge() as bridge:
        started, cancelled, ended = anyio.Event(), anyio.Event(), threading.Event()

        async def work() -> None:
            bridge.post(started.set)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                bridge.post(cancelled.set)
                raise
            finally:
                ended.set()

        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as nursery:
                nursery.start_soon(bridge.call, work)
                await started.wait()
                scope.cancel()
        assert scope.cancelled_caught
        await cancelled.wait()
        assert ended.is_set()
        assert await in_loop(bridge, lambda: "still here") == "still here"


async def test_a_cancelled_call_waits_for_nobody_in_the_loop() -> None:
    async with open_bridge() as bridge:
        started, go_on = trio.Event(), asyncio.Event()

        async def stubborn() -> None:
            bridge.post(started.set)
            while not go_on.is_set():
                try:
                    await go_on.wait()
                except asyncio.CancelledError:
                    continue

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bridge.call, stubborn)
                await started.wait()
                scope.cancel()
        assert scope.cancelled_caught
        assert not go_on.is_set()
        await in_loop(bridge, go_on.set)


@pytest.mark.asyncio_too
async def test_a_call_that_is_pending_at_the_end_is_told_that_the_bus_has_closed() -> None:
    started = anyio.Event()
    told: list[BaseException] = []

    async def for_ever() -> None:
        bridge.post(started.set)
        await asyncio.Event().wait()

    async def call() -> None:
        try:
            await bridge.call(for_ever)
        except BusClosed as error:
            told.append(error)

    async with anyio.create_task_group() as nursery, open_bridge() as bridge:
        nursery.start_soon(call)
        await started.wait()
    assert len(told) == 1
    assert_nothing_is_left(bridge)


async def test_a_call_whose_task_swallows_the_end_is_told_all_the_same() -> None:
    started = trio.Event()
    told: list[BaseException] = []

    async def stubborn() -> None:
        bridge.post(started.set)
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async def call() -> None:
        try:
            await bridge.call(stubborn)
        except BusClosed as error:
            told.append(error)

    async with trio.open_nursery() as nursery, open_bridge() as bridge:
        nursery.start_soon(call)
        await started.wait()
    assert len(told) == 1
    assert_nothing_is_left(bridge)


async def test_a_call_that_was_answered_before_the_end_keeps_its_answer() -> None:
    answers: list[str] = []
    asked, answered = trio.Event(), threading.Event()

    async def work() -> str:
        bridge.post(asked.set)
        answered.set()
        return "answer"

    async def call() -> None:
        answers.append(await bridge.call(work))

    async with trio.open_nursery() as nursery, open_bridge() as bridge:
        nursery.start_soon(call)
        await asked.wait()
        answered.wait()
        in_the_outbox = threading.Event()
        bridge.loop.call_soon_threadsafe(in_the_outbox.set)
        in_the_outbox.wait()
    assert answers == ["answer"]


async def test_an_answer_that_comes_with_the_very_end_is_not_lost() -> None:
    started: trio.Event
    answers: list[str] = []

    async def work() -> str:
        bridge.post(started.set)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "answer"
        return "never"

    async def call() -> None:
        answers.append(await bridge.call(work))

    rounds = 20  # which of two tasks runs first is Trio's choice, at random
    for _ in range(rounds):
        started = trio.Event()
        async with trio.open_nursery() as nursery, open_bridge() as bridge:
            nursery.start_soon(call)
            await started.wait()
    assert answers == ["answer"] * rounds


@pytest.mark.asyncio_too
async def test_after_the_end_nothing_is_taken_any_more() -> None:
    async with open_bridge() as bridge:
        pass
    with pytest.raises(BusClosed):
        bridge.submit(lambda: None)
    with pytest.raises(BusClosed):
        await bridge.call(asyncio.sleep, 0)


async def test_everything_that_was_posted_has_run_when_the_block_is_left() -> None:
    seen: list[int] = []
    count = 3 * HELPING
    async with open_bridge() as bridge:

        async def post_at_the_end() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                for number in range(count):
                    bridge.post(seen.append, number)

        await in_loop(bridge, lambda: bridge.start(post_at_the_end))
        await in_loop(bridge)
    assert seen == list(range(count))


@pytest.mark.asyncio_too
async def test_whatever_is_posted_when_the_loop_has_ended_has_run_when_the_block_is_left() -> None:
    seen: list[int] = []
    count = 3 * HELPING
    async with open_bridge() as bridge:

        def tell_all() -> None:
            for number in range(count):
                bridge.post(seen.append, number)

        bridge.at_end.append(tell_all)
    assert seen == list(range(count))


# --- failures ---


@pytest.mark.asyncio_too
async def test_an_exception_in_a_submitted_function_ends_the_bridge() -> None:
    async with open_bridge() as bridge:

        def work() -> None:
            raise Broken("submitted")

        bridge.submit(work)
        assert repr(await end_of_failed_bridge(bridge)) == "Broken('submitted')"
    assert_nothing_is_left(bridge)


@pytest.mark.asyncio_too
async def test_an_exception_in_a_posted_function_ends_the_bridge() -> None:
    async with open_bridge() as bridge:

        def work() -> None:
            raise Broken("posted")

        bridge.submit(bridge.post, work)
        assert repr(await end_of_failed_bridge(bridge)) == "Broken('posted')"
    assert_nothing_is_left(bridge)


@pytest.mark.asyncio_too
async def test_an_exception_in_a_task_of_the_loops_nursery_ends_the_bridge() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise Broken("task")

    async with open_bridge() as bridge:
        bridge.submit(bridge.start, work)
        assert repr(await end_of_failed_bridge(bridge)) == "Broken('task')"
    assert_nothing_is_left(bridge)


def cancel_me() -> None:
    """As a client does whose own task was cancelled: nobody has asked for it."""
    raise asyncio.CancelledError


@pytest.mark.asyncio_too
async def test_a_cancellation_of_a_clients_own_ends_one_call_and_no_more() -> None:
    async def ask() -> None:
        cancel_me()

    async with open_bridge() as bridge:
        with pytest.raises(TbusError, match="cancelled"):
            await bridge.call(ask)
        assert await in_loop(bridge, lambda: "alive") == "alive"
    assert_nothing_is_left(bridge)


async def test_one_that_answers_being_cancelled_in_a_call_ends_that_call_and_no_more() -> None:
    begun = trio.Event()
    async with open_bridge() as bridge:

        async def ask() -> None:
            bridge.post(begun.set)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancel_me()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.call, ask)
            await begun.wait()
            nursery.cancel_scope.cancel()
        assert await in_loop(bridge, lambda: "alive") == "alive"
    assert_nothing_is_left(bridge)


async def test_one_in_a_task_of_the_loops_nursery_is_told() -> None:
    async def work() -> None:
        cancel_me()

    async with open_bridge() as bridge:
        bridge.submit(bridge.start, work)
        error = await end_of_failed_bridge(bridge)
    assert isinstance(error, RuntimeError)
    assert "unasked" in str(error)
    assert_nothing_is_left(bridge)


async def test_the_first_failure_is_the_one_that_is_told() -> None:
    async with open_bridge() as bridge:

        def fail(text: str) -> None:
            raise Broken(text)

        for text in ("first", "second", "third"):
            bridge.submit(fail, text)
        await in_loop(bridge)
        assert repr(await end_of_failed_bridge(bridge)) == "Broken('first')"


async def test_what_was_submitted_behind_a_failing_function_runs_all_the_same() -> None:
    ran: list[str] = []

    def fail() -> None:
        raise Broken

    with pytest.raises(Broken):  # noqa: PT012 - the block is what is tested
        async with open_bridge() as bridge:
            bridge.submit(fail)
            bridge.submit(ran.append, "behind")
            await in_loop(bridge)
    assert ran == ["behind"]


def fail_at_the_end() -> None:
    raise Broken("at the very end")


def untold(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Failures that went into the log, for nobody else was there to be told."""
    return [repr(record.exc_info[1]) for record in caplog.records if record.exc_info is not None]


@pytest.mark.asyncio_too
async def test_a_failure_that_comes_with_the_very_end_is_raised_where_the_block_is_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(Broken, match="at the very end"):
        async with open_bridge() as bridge:
            bridge.at_end.append(fail_at_the_end)
    assert_nothing_is_left(bridge)
    assert untold(caplog) == []


@pytest.mark.asyncio_too
async def test_a_failure_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with open_bridge() as bridge:
        bridge.at_end.append(fail_at_the_end)
        bridge.submit(fail_at_the_end)
        assert isinstance(await end_of_failed_bridge(bridge), Broken)
    assert untold(caplog) == []


@pytest.mark.asyncio_too
async def test_a_failure_at_the_very_end_hides_no_exception_that_leaves_the_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KeyError):  # noqa: PT012 - the block is what is tested
        async with open_bridge() as bridge:
            bridge.at_end.append(fail_at_the_end)
            raise KeyError
    assert untold(caplog) == ["Broken('at the very end')"]


@pytest.mark.asyncio_too
async def test_a_failure_at_the_very_end_hides_no_cancellation_that_leaves_the_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with anyio.CancelScope() as scope:
        async with open_bridge() as bridge:
            bridge.at_end.append(fail_at_the_end)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert untold(caplog) == ["Broken('at the very end')"]


@pytest.mark.asyncio_too
async def test_a_task_that_failed_while_the_block_was_being_left_is_told() -> None:
    async def fail() -> None:
        raise Broken("just before")

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            bridge.post(failed.set)
            assert bridge._stopping is not None
            with anyio.CancelScope(shield=True):
                await bridge._stopping.wait()

    failed = anyio.Event()
    with pytest.raises(Broken, match="just before"):  # noqa: PT012 - the block is what is tested
        async with open_bridge() as bridge:
            await in_loop(bridge, lambda: bridge.start(linger))
            await in_loop(bridge, lambda: bridge.start(fail))
            await failed.wait()
    assert_nothing_is_left(bridge)


@pytest.mark.asyncio_too
async def test_a_task_that_fails_because_it_is_cancelled_at_the_end_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise Broken("cancelled")

    async with open_bridge() as bridge:
        await in_loop(bridge, lambda: bridge.start(fail))
        await in_loop(bridge)
    assert untold(caplog) == ["Broken('cancelled')"]


async def fail_at_once() -> None:
    raise Broken("task")


@pytest.mark.asyncio_too
async def test_a_task_that_fails_is_told_while_another_one_swallows_its_cancellation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_bridge() as bridge:
        bridge.submit(bridge.start, stubborn_task)
        bridge.submit(bridge.start, fail_at_once)
        with anyio.fail_after(5):
            assert repr(await end_of_failed_bridge(bridge)) == "Broken('task')"
    assert_nothing_is_left(bridge)
    assert untold(caplog) == []


@pytest.mark.asyncio_too
async def test_it_is_raised_where_the_block_is_left_if_nobody_has_waited_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(Broken, match="task"):  # noqa: PT012 - the block is what is tested
        async with open_bridge() as bridge:
            await in_loop(bridge, lambda: bridge.start(stubborn_task))
            await in_loop(bridge, lambda: bridge.start(fail_at_once))
    assert_nothing_is_left(bridge)
    assert untold(caplog) == []


@pytest.mark.asyncio_too
async def test_a_task_that_fails_in_the_pass_in_which_the_loop_is_asked_to_end_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail_and_end() -> None:
        bridge.start(fail_at_once)
        bridge._stop_serving()

    with pytest.raises(Broken, match="task"):
        async with open_bridge() as bridge:
            bridge.submit(fail_and_end)
    assert_nothing_is_left(bridge)
    assert untold(caplog) == []


@pytest.mark.asyncio_too
async def test_what_a_task_raises_because_another_one_has_failed_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise Broken("cancelled")

    async with open_bridge() as bridge:
        bridge.submit(bridge.start, fail_when_cancelled)
        await in_loop(bridge)
        bridge.submit(bridge.start, fail_at_once)
        assert repr(await end_of_failed_bridge(bridge)) == "Broken('task')"
    assert untold(caplog) == ["Broken('cancelled')"]


@pytest.mark.asyncio_too
async def test_what_ends_a_loop_that_is_stopped_under_a_task_is_in_the_log_for_who_looks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "tbus.bridge")
    async with open_bridge() as bridge:
        bridge.submit(bridge.start, stubborn_task)
        await in_loop(bridge)
    (told,) = [record for record in caplog.records if record.exc_info is not None]
    assert told.levelno == logging.DEBUG
    assert told.exc_info is not None
    assert isinstance(told.exc_info[1], RuntimeError)


async def test_a_call_made_after_the_loop_has_failed_ends_with_the_bridge(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[BaseException] = []

    async def fail() -> None:
        raise Broken("task")

    async def call() -> None:
        try:
            await bridge.call(asyncio.sleep, 0)
        except BusClosed as error:
            told.append(error)

    async with trio.open_nursery() as nursery, open_bridge() as bridge:
        bridge.submit(bridge.start, fail)
        await end_of_failed_bridge(bridge)
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
    assert len(told) == 1
    assert_nothing_is_left(bridge)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_loop_that_cannot_be_made_is_an_error_and_no_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_loop(*args: Any) -> Any:
        raise OSError("too many open files")

    monkeypatch.setattr(_bridge, "OwnedLoop", no_loop)
    with pytest.raises(OSError, match="too many open files"):
        async with open_bridge():
            pass


async def test_a_thread_that_cannot_be_started_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        async with open_bridge():
            pass


# --- the end ---


async def stubborn_task() -> None:
    """A client's task that swallows every cancellation."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


@pytest.mark.asyncio_too
@pytest.mark.parametrize("count", [1, 5])
async def test_stubborn_tasks_cannot_hold_the_end(count: int) -> None:
    async with open_bridge() as bridge:
        for _ in range(count):
            bridge.submit(bridge.start, stubborn_task)
        await in_loop(bridge)
        await in_loop(bridge)
        assert bridge.tasks().count("tbus stubborn_task") == count
        began = time.monotonic()
    assert time.monotonic() - began < 5  # of a test's patience, not a figure
    assert_nothing_is_left(bridge)


async def test_a_stubborn_task_that_the_client_started_by_itself_cannot_either() -> None:
    async with open_bridge() as bridge:
        tasks = await in_loop(bridge, lambda: [bridge.loop.create_task(stubborn_task())])
        await in_loop(bridge)
    assert_nothing_is_left(bridge)
    assert len(tasks) == 1


async def test_a_task_that_starts_another_one_for_every_cancellation_cannot_either() -> None:
    async def hydra() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            bridge.loop.create_task(hydra())
            raise

    async with open_bridge() as bridge:
        await in_loop(bridge, lambda: bridge.loop.create_task(hydra()))
        await in_loop(bridge)
    assert_nothing_is_left(bridge)


async def test_a_client_that_was_cancelled_has_time_to_say_goodbye() -> None:
    said: list[str] = []

    async def client() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            said.append("goodbye")

    async with open_bridge() as bridge:
        # Not in the nursery, whose scope cancels at every checkpoint.
        await in_loop(bridge, lambda: bridge.loop.create_task(client()))
        await in_loop(bridge)
    assert said == ["goodbye"]


async def test_a_name_lookup_that_hangs_does_not_hold_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer, hanging = threading.Event(), trio.Event()
    threads: list[threading.Thread] = []
    async with open_bridge() as bridge:

        def blocking() -> None:
            threads.append(threading.current_thread())
            bridge.loop.call_soon_threadsafe(bridge.post, hanging.set)
            answer.wait()

        async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
            return await bridge.loop.run_in_executor(None, blocking)

        bridge.loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]

        async def look_up() -> None:
            await bridge.loop.getaddrinfo("host.invalid", 1)

        bridge.submit(bridge.start, look_up)
        await hanging.wait()
        assert "tbus lookup" in bridge.threads()
    assert_nothing_is_left(bridge)
    (thread,) = threads
    assert thread.is_alive()
    assert thread.daemon
    assert "a name lookup hangs" in caplog.text
    answer.set()
    thread.join()


@pytest.mark.asyncio_too
async def test_the_bridge_ends_when_its_block_is_left_by_an_exception() -> None:
    with pytest.raises(Broken):  # noqa: PT012 - the block is what is tested
        async with open_bridge() as bridge:
            bridge.submit(bridge.start, stubborn_task)
            raise Broken
    assert_nothing_is_left(bridge)


@pytest.mark.asyncio_too
async def test_the_bridge_ends_when_its_block_is_left_by_a_cancellation() -> None:
    with anyio.CancelScope() as scope:
        async with open_bridge() as bridge:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert_nothing_is_left(bridge)


async def test_a_bridge_opened_under_a_cancellation_leaves_nothing() -> None:
    bridges: list[Bridge] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_bridge() as bridge:
            bridges.append(bridge)
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    for bridge in bridges:
        assert_nothing_is_left(bridge)


@pytest.mark.asyncio_too
async def test_bridges_do_not_know_each_other() -> None:
    async with open_bridge() as outer:
        async with open_bridge() as inner, open_bridge() as third:
            loops = {await in_loop(one, asyncio.get_running_loop) for one in (outer, inner, third)}
            assert len(loops) == 3
        assert_nothing_is_left(inner)
        assert_nothing_is_left(third)
        assert await in_loop(outer, lambda: "still here") == "still here"
    assert_nothing_is_left(outer)


async def test_one_that_fails_leaves_the_other_alone() -> None:
    def fail() -> None:
        raise Broken

    async with open_bridge() as one, open_bridge() as other:
        one.submit(fail)
        await end_of_failed_bridge(one)
        assert await in_loop(other, lambda: "still here") == "still here"


async def test_trio_keeps_no_instrument_of_a_bridge_that_has_ended() -> None:
    before = dict(trio._core._run.GLOBAL_RUN_CONTEXT.runner.instruments)
    async with open_bridge():
        assert dict(trio._core._run.GLOBAL_RUN_CONTEXT.runner.instruments) != before
    assert dict(trio._core._run.GLOBAL_RUN_CONTEXT.runner.instruments) == before


# --- fairness ---


class Rests:
    """Counts what is slept, by which thread, in place of sleeping alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_thread: dict[int, int] = {}
        real = time.sleep

        def sleep(seconds: float) -> None:
            this = threading.get_ident()
            self.by_thread[this] = self.by_thread.get(this, 0) + 1
            real(seconds)

        monkeypatch.setattr(time, "sleep", sleep)


def work_for(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def test_a_busy_program_rests_for_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    rests = Rests(monkeypatch)
    async with open_bridge() as bridge:
        await in_loop(bridge)
        before = rests.by_thread.get(threading.get_ident(), 0)
        for _ in range(10):
            work_for(_bridge.REST_EVERY)
            await trio.lowlevel.checkpoint()
        assert rests.by_thread[threading.get_ident()] - before >= 9


async def test_a_busy_loop_rests_for_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    rests = Rests(monkeypatch)
    async with open_bridge() as bridge:

        async def busy() -> None:
            for _ in range(10):
                work_for(_bridge.REST_EVERY)
                await asyncio.sleep(0)

        await bridge.call(busy)
        assert bridge._thread.ident is not None
        assert rests.by_thread[bridge._thread.ident] >= 9


async def test_nobody_rests_who_is_not_to_be_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    rests = Rests(monkeypatch)
    async with open_bridge(fair=False) as bridge:
        await in_loop(bridge)
        for _ in range(10):
            work_for(_bridge.REST_EVERY)
            await trio.lowlevel.checkpoint()
    assert rests.by_thread == {}


async def test_a_crossing_gets_through_while_the_program_is_busy_in_slices() -> None:
    async with open_bridge() as bridge:
        answered = False

        def answer() -> None:
            nonlocal answered
            answered = True

        await in_loop(bridge)
        bridge.submit(bridge.post, answer)
        slices = 0
        while not answered and slices < 100:
            work_for(2 * _bridge.REST_EVERY)
            await trio.lowlevel.checkpoint()
            slices += 1
        assert answered
        assert slices < 100


def test_the_program_needs_nothing_else_to_be_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def use(count: int) -> list[int]:
        answers = []
        for number in range(count):
            async with open_bridge() as bridge:
                answers.append(await in_loop(bridge, partial(int, number)))
        return answers

    function: Callable[[int], Awaitable[list[int]]] = use
    assert trio.run(function, 2) == [0, 1]
    assert asyncio.run(use(2)) == [0, 1]


async def test_a_connection_that_a_client_has_forgotten_is_closed_with_the_loop() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    forgotten: list[asyncio.BaseTransport] = []

    async def connect() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        forgotten.append(transport)

    with listener:
        async with open_bridge() as bridge:
            await bridge.call(connect)
            peer, _ = listener.accept()
        with peer:
            peer.settimeout(5)
            assert peer.recv(1) == b""
    assert forgotten[0].is_closing()


async def test_what_a_callback_of_ours_raises_ends_the_bridge() -> None:
    async with open_bridge() as bridge:

        async def schedule() -> None:
            asyncio.get_running_loop().call_soon(Watermark(1).open, "no number")  # type: ignore[arg-type]

        await bridge.call(schedule)
        with trio.fail_after(5), pytest.raises(TypeError):
            await bridge.wait_failed()


async def test_who_fails_as_the_loop_has_ended_keeps_nobody_else_from_ending() -> None:
    called: list[str] = []

    def fail() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        async with open_bridge() as bridge:
            bridge.at_end += [fail, lambda: called.append("the other")]
    assert called == ["the other"]
    assert_nothing_is_left(bridge)
