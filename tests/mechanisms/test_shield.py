"""Shielded blocks of handlers: how long they hold, and what becomes of the message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tbus import Bus, Message, MessageRetried, Retry, Subscription, open_bus
from tbus._runtime import current_runtime
from tbus._shield import Shields
from tbus._timers import Timers
from tbus._workers import WorkerPool
from tbus.testing.conformance._kit import watching

from .kit import RecordingSource

Handler = Callable[[Message], Awaitable[None]]


class Leave(Exception):
    """From the block of the bus: an end that waits for no handler."""


class Work:
    """A handler that is `seconds` in a shielded block, and then `after` outside of it."""

    def __init__(self, seconds: float, after: float | None = None) -> None:
        self.seconds = seconds
        self.after = after
        self.attempts: list[int] = []
        self.steps: list[tuple[str, float]] = []
        self.inside = anyio.Event()

    def note(self, step: str) -> None:
        self.steps.append((step, anyio.current_time()))

    async def __call__(self, message: Message) -> None:
        self.attempts.append(message.attempt)
        try:
            async with message.shielded():
                self.inside.set()
                await anyio.sleep(self.seconds)
                self.note("block ended")
            if self.after is not None:
                await anyio.sleep(self.after)
            self.note("returned")
        except BaseException as error:
            self.note(type(error).__name__)
            raise


@asynccontextmanager
async def working(
    work: Handler, grace: float = 10.0, where: str = "memory://", **options: object
) -> AsyncIterator[Bus]:
    """A bus whose handler has been given one message."""
    async with open_bus(where, grace=grace) as bus:
        await bus.subscribe("t", work, group="g", **options)  # type: ignore[arg-type]
        await bus.publish("t", b"a", key="k")
        yield bus


@asynccontextmanager
async def cut_short(
    work: Handler, grace: float = 10.0, where: str = "memory://", **options: object
) -> AsyncIterator[Bus]:
    """The same, and its end waits for no handler."""
    with suppress(Leave):
        async with working(work, grace, where, **options) as bus:
            yield bus
            raise Leave


async def test_an_end_that_waits_for_no_handler_waits_for_a_shielded_block(
    autojump_clock: MockClock,
) -> None:
    work = Work(4.0)
    async with cut_short(work):
        await work.inside.wait()
        began = trio.current_time()
    assert trio.current_time() - began == 4.0
    assert [step for step, _ in work.steps] == ["block ended", "returned"]


async def test_what_comes_behind_the_block_is_cut_when_that_ends(autojump_clock: MockClock) -> None:
    work = Work(4.0, after=1.0)
    async with cut_short(work):
        await work.inside.wait()
        began = trio.current_time()
    assert work.steps == [("block ended", began + 4.0), ("Cancelled", began + 4.0)]


async def test_a_block_holds_for_the_grace_period_and_no_longer(autojump_clock: MockClock) -> None:
    work = Work(100.0)
    async with cut_short(work, grace=7.0):
        await work.inside.wait()
        began = trio.current_time()
    assert work.steps == [("Cancelled", began + 7.0)]
    assert trio.current_time() - began == 7.0


async def test_a_graceful_end_gives_a_block_its_grace_period_once(
    autojump_clock: MockClock,
) -> None:
    work = Work(100.0)
    async with working(work, grace=7.0):
        await work.inside.wait()
        began = trio.current_time()
    assert work.steps == [("Cancelled", began + 7.0)]


async def test_a_closing_gives_a_block_its_grace_period_once(autojump_clock: MockClock) -> None:
    work = Work(100.0)
    async with open_bus(grace=7.0) as bus:
        subscription: Subscription = await bus.subscribe("t", work, group="g")
        await bus.publish("t", b"a", key="k")
        await work.inside.wait()
        began = trio.current_time()
        await subscription.close()
        assert work.steps == [("Cancelled", began + 7.0)]
        assert (await bus.lag("t", "g")).messages == 1


async def test_a_message_whose_block_was_its_last_act_is_settled(autojump_clock: MockClock) -> None:
    work = Work(4.0)
    async with open_bus("memory://shield-settled") as keeper:
        async with cut_short(work, where="memory://shield-settled"):
            await work.inside.wait()
        assert (await keeper.lag("t", "g")).messages == 0


async def test_the_time_of_a_handler_counts_on_and_is_a_failed_attempt_after_the_block(
    autojump_clock: MockClock,
) -> None:
    work = Work(8.0, after=1.0)
    retry = Retry(initial=0.0, jitter=0.0)
    async with working(work, timeout=5.0, retry=retry) as bus, watching(bus) as watch:
        await work.inside.wait()
        began = trio.current_time()
        retried = await watch.wait(MessageRetried)
        assert trio.current_time() == began + 8.0
        assert "longer than 5.0 s" in retried.error
        assert retried.attempt == 1
        work.seconds = work.after = 0.0


async def test_a_handler_that_ends_with_its_block_has_not_run_out_of_time(
    autojump_clock: MockClock,
) -> None:
    work = Work(8.0)
    async with working(work, timeout=5.0) as bus:
        await trio.sleep(20)
        assert (await bus.lag("t", "g")).messages == 0
    assert work.attempts == [1]


async def test_a_block_outlives_its_handlers_time_by_the_grace_period_at_most(
    autojump_clock: MockClock,
) -> None:
    work = Work(100.0)
    retry = Retry(initial=0.0, jitter=0.0)
    async with working(work, grace=7.0, timeout=5.0, retry=retry) as bus, watching(bus) as watch:
        await work.inside.wait()
        began = trio.current_time()
        await watch.wait(MessageRetried)
        assert [step for step, _ in work.steps] == ["Cancelled"]
        assert work.steps[0][1] - began == pytest.approx(12.0, abs=0.001)
        work.seconds = 0.0


async def test_blocks_may_be_nested_and_the_outermost_counts(autojump_clock: MockClock) -> None:
    steps = []
    inside = trio.Event()

    async def handle(message: Message) -> None:
        async with message.shielded():
            async with message.shielded():
                inside.set()
                await trio.sleep(2)
            steps.append(("inner", trio.current_time()))
            async with message.shielded():
                await trio.sleep(2)
            steps.append(("outer", trio.current_time()))

    async with cut_short(handle):
        await inside.wait()
        began = trio.current_time()
    assert steps == [("inner", began + 2), ("outer", began + 4)]


async def test_a_nested_block_begun_late_holds_no_longer_than_the_one_around_it(
    autojump_clock: MockClock,
) -> None:
    steps = []
    inside = trio.Event()

    async def handle(message: Message) -> None:
        try:
            async with message.shielded():
                inside.set()
                await trio.sleep(6)
                async with message.shielded():
                    await trio.sleep(100)
        finally:
            steps.append(trio.current_time())

    async with cut_short(handle, grace=7.0):
        await inside.wait()
        began = trio.current_time()
    assert steps == [began + 7.0]


async def test_tasks_that_a_handler_started_may_shield_themselves(
    autojump_clock: MockClock,
) -> None:
    ended = []
    inside = trio.Event()

    async def write(message: Message, seconds: float) -> None:
        async with message.shielded():
            inside.set()
            await trio.sleep(seconds)
            ended.append(seconds)

    async def handle(message: Message) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, message, 2)
            nursery.start_soon(write, message, 3)

    async with cut_short(handle):
        await inside.wait()
    assert ended == [2, 3]


async def test_a_handler_that_was_cancelled_does_not_enter(autojump_clock: MockClock) -> None:
    entered = []
    started = trio.Event()

    async def handle(message: Message) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            async with message.shielded():  # noqa: ASYNC102 - that is what is asked
                entered.append(message)

    async with cut_short(handle):
        await started.wait()
    assert entered == []


async def test_evicting_some_messages_holds_their_blocks_for_the_grace_period(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        runtime = current_runtime()
        timers = Timers(runtime)
        nursery.start_soon(timers.run)
        async with trio.open_nursery() as inner:
            pool = WorkerPool(runtime, inner, 10, timers, 7.0)
            work = Work(100.0)
            source = RecordingSource(pool, work)
            source.push("a", "k")
            await work.inside.wait()
            began = trio.current_time()
            assert pool.evict(source, lambda message: message.key == "other") == 0
            assert pool.evict(source, lambda message: message.key == "k") == 1
        assert work.steps == [("Cancelled", began + 7.0)]
        assert source.log == ["interrupted a"]
        nursery.cancel_scope.cancel()


async def test_a_failure_of_the_bus_holds_off_for_blocks_too(autojump_clock: MockClock) -> None:
    """The nursery is cancelled at once then, and no timer runs any more."""
    work = Work(100.0)

    async def handle(message: Message) -> None:
        if message.body == b"interrupt":
            raise KeyboardInterrupt
        await work(message)

    with suppress(KeyboardInterrupt):
        async with working(handle, grace=7.0) as bus:
            await work.inside.wait()
            began = trio.current_time()
            await bus.publish("t", b"interrupt", key="other")
            await trio.sleep_forever()
    assert work.steps == [("Cancelled", began + 7.0)]


async def test_outside_of_a_handler_it_is_an_error_that_says_so(autojump_clock: MockClock) -> None:
    kept: list[Message] = []

    async def keep(message: Message) -> None:
        kept.append(message)
        if len(kept) == 2:
            with pytest.raises(RuntimeError, match="the handler of that message"):
                async with kept[0].shielded():
                    pass

    async with open_bus() as bus:
        await bus.subscribe("t", keep, group="g")
        await bus.publish("t", b"a", key="k")
        await bus.publish("t", b"b", key="k")
        await trio.testing.wait_all_tasks_blocked()
        assert len(kept) == 2
        with pytest.raises(RuntimeError, match="the handler of that message"):
            async with kept[0].shielded():
                pass
        async with bus.open_messages("t", group="pulled") as messages, await anext(messages) as one:
            with pytest.raises(RuntimeError, match="CancelScope"):
                async with one.shielded():
                    pass


def test_shields_that_nothing_limits_set_no_timer() -> None:
    alarms: list[float] = []

    def call_at(when: float, _: Callable[[], object]) -> None:  # pragma: no cover - not called
        alarms.append(when)

    Shields(call_at, lambda: 0.0, float("inf"))  # type: ignore[arg-type]
    assert alarms == []


@pytest.mark.asyncio_too
async def test_a_block_is_finished_and_what_follows_is_cut_on_either_loop(backend: str) -> None:
    work = Work(0.05, after=60.0)
    with anyio.fail_after(5):
        async with cut_short(work):
            await work.inside.wait()
    assert [step for step, _ in work.steps] == [
        "block ended", "Cancelled" if backend == "trio" else "CancelledError"
    ]  # fmt: skip


@pytest.mark.asyncio_too
async def test_a_block_is_cut_at_its_limit_on_either_loop(backend: str) -> None:
    work = Work(60.0)
    with anyio.fail_after(5):
        async with cut_short(work, grace=0.05):
            await work.inside.wait()
    assert [step for step, _ in work.steps] == [
        "Cancelled" if backend == "trio" else "CancelledError"
    ]  # fmt: skip
