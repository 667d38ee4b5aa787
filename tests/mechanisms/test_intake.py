"""One subscription's work over a feed by hand, on virtual time: verdicts, delays, graves."""

# What handlers wait for is given as a function that makes the awaitable.
# flake8: noqa: ASYNC105,ASYNC124,ASYNC401
from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, TypeVar

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus._batch_source import BatchSource
from tbus._errors import (
    ConsumerGone,
    Discard,
    InvalidEnvelope,
    Reject,
    RetryAfter,
    TransportLost,
)
from tbus._events import DeadLettered, Discarded, Event, KeyBacklog, MessageRetried, Stalled
from tbus._gathering import Batch
from tbus._intake import HAND_OVER, Intake, IntakeOptions
from tbus._message import Message, Position
from tbus._quarantine import Quarantine
from tbus._requests import intake_type
from tbus._retry import Retry
from tbus._runtime import current_runtime
from tbus._subscription import HandlerSource
from tbus._timers import Timers
from tbus._transport import Verdict
from tbus._workers import WorkerPool

from .kit import HandFeed, make_delivery, text

E = TypeVar("E", bound=Event)
DONE = Verdict.DONE


class Broken(Exception):
    pass


class Rig:
    """An intake and its workers. `handle` raises what `raises` says for the message's text,
    run by run, and keeps text, attempt and time."""

    def __init__(self, options: dict[str, Any]) -> None:
        fields: dict[str, Any] = {
            "concurrency": 100,
            "max_in_flight": 100,
            "order": "key",
            "retry": Retry(attempts=3, initial=1.0, factor=2.0, maximum=60.0, jitter=0.0),
            "dead_letter": "t.dead",
            "timeout": 10.0,
        }
        self.options = IntakeOptions(**(fields | options))
        self.feed = HandFeed()
        self.events: list[Event] = []
        self.runs: list[tuple[str, int, float]] = []
        self.raises: dict[str, list[Exception | None]] = {}
        self.buried: list[tuple[str, str, str]] = []
        self.bury_errors: list[Exception] = []
        self.before_return: Callable[[Message], Any] | None = None
        self.before_ready: Callable[[], object] | None = None
        self.intake: Intake
        self.pool: WorkerPool
        self.subscription: HandlerSource

    def open(self, nursery: trio.Nursery, handler: Any = None) -> None:
        runtime = current_runtime()
        timers = Timers(runtime)
        nursery.start_soon(timers.run)
        self.pool = WorkerPool(runtime, nursery, 100)
        kind = HandlerSource if self.options.batch is None else BatchSource
        self.subscription = kind(
            "t", "g", handler or self.handle, None, self.options.timeout, self.pool
        )
        self.intake = intake_type(self.options)(
            "t", "g", self.feed, self.options, runtime=runtime, timers=timers,
            emit=self.events.append, bury=self.bury, on_ready=self.on_ready,
        )  # fmt: skip
        self.subscription.attach(self.intake)
        nursery.start_soon(self.intake.run)

    def on_ready(self) -> None:
        if self.before_ready is not None:
            self.before_ready()
        self.subscription.on_ready()

    async def handle(self, message: Message) -> None:
        self.runs.append((text(message), message.attempt, trio.current_time()))
        errors = self.raises.get(text(message))
        if errors and (error := errors.pop(0)) is not None:
            raise error
        if self.before_return is not None:
            await self.before_return(message)

    async def bury(
        self,
        message: Message,
        target: str,
        reason: str,
        error: Exception | None,
        failed: tuple[float, float],
    ) -> None:
        await trio.lowlevel.checkpoint()
        if self.bury_errors:
            raise self.bury_errors.pop(0)
        self.buried.append((text(message), target, reason))

    def give(self, *bodies: str, key: str | None = "k") -> None:
        self.feed.give(*(make_delivery(body, key) for body in bodies))

    def told(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def times(self, body: str) -> list[float]:
        return [round(when, 6) for ran, _, when in self.runs if ran == body]


@asynccontextmanager
async def open_rig(handler: Any = None, **options: Any) -> AsyncIterator[Rig]:
    rig = Rig(options)
    async with trio.open_nursery() as nursery:
        rig.open(nursery, handler)
        yield rig
        nursery.cancel_scope.cancel()


# --- done ---


async def test_what_was_handled_is_settled_once_and_in_order(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.give("a", "b", "c")
        await wait_all_tasks_blocked()
    assert rig.feed.settled == [("a", DONE), ("b", DONE), ("c", DONE)]
    assert rig.events == []
    assert len(rig.intake.dispatcher) == 0


async def test_a_message_is_not_settled_before_its_handler_returns(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        release = trio.Event()
        rig.before_return = lambda _: release.wait()
        rig.give("a")
        await wait_all_tasks_blocked()
        assert rig.feed.settled == []
        release.set()
        await wait_all_tasks_blocked()
        assert rig.feed.settled == [("a", DONE)]


async def test_a_large_batch_is_handed_over_in_helpings(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.give(*map(str, range(3 * HAND_OVER)), key=None)
        await wait_all_tasks_blocked()
        assert len(rig.feed.settled) == 3 * HAND_OVER


@pytest.mark.parametrize(("taking", "at_once"), [(0.0, HAND_OVER), (0.0004, 3 * 128), (0.002, 128)])
async def test_handing_over_gives_the_loop_to_others_after_a_millisecond(
    autojump_clock: MockClock, taking: float, at_once: int
) -> None:
    """128 messages take so long."""
    seen = [0]

    class Passes(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            seen.append(len(rig.intake.dispatcher))

    async with open_rig(concurrency=1) as rig:
        release = trio.Event()
        rig.before_return = lambda _: release.wait()
        rig.before_ready = lambda: autojump_clock.jump(taking)
        rig.give(*map(str, range(2 * HAND_OVER)), key=None)
        trio.lowlevel.add_instrument(passes := Passes())
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(passes)
    assert seen[-1] == 2 * HAND_OVER
    assert max(after - before for before, after in pairwise(seen)) == at_once


@pytest.mark.parametrize(
    ("order", "concurrent"), [("key", {"a1", "b1"}), ("partition", {"a1"}), ("none", None)]
)
async def test_the_order_says_what_is_handled_one_after_another(
    autojump_clock: MockClock, order: str, concurrent: set[str] | None
) -> None:
    async with open_rig(order=order) as rig:
        rig.before_return = lambda _: trio.sleep_forever()  # noqa: ASYNC105
        rig.give("a1", "a2", key="a")
        rig.give("b1", "b2", key="b")
        await trio.sleep(1)
        assert {ran for ran, _, _ in rig.runs} == (concurrent or {"a1", "a2", "b1", "b2"})


async def test_partitions_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    async with open_rig(order="partition") as rig:
        rig.before_return = lambda _: trio.sleep_forever()  # noqa: ASYNC105
        rig.feed.give(
            *(make_delivery(f"{p}", "k", position=Position(p, 1)) for p in range(3)),
            make_delivery("behind", "other", position=Position(1, 2)),
        )
        await trio.sleep(1)
        assert sorted(ran for ran, _, _ in rig.runs) == ["0", "1", "2"]


async def test_what_stops_the_feed_stops_the_pull_loop(autojump_clock: MockClock) -> None:
    class GoneFeed(HandFeed):
        async def receive(self) -> Any:
            raise ConsumerGone("removed")

    rig = Rig({})
    rig.feed = GoneFeed()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            rig.open(nursery)
    assert caught.group_contains(ConsumerGone, depth=1)


# --- retries ---


async def test_a_failed_message_is_tried_again_after_exactly_the_policys_delays(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.raises["a"] = [Broken("one"), Broken("two")]
        rig.give("a")
        await trio.sleep(10)
        assert rig.times("a") == [0.0, 1.0, 3.0]
        assert [attempt for _, attempt, _ in rig.runs] == [1, 2, 3]
        assert rig.feed.settled == [("a", DONE)]
        assert [(e.attempt, e.delay, e.error) for e in rig.told(MessageRetried)] == [
            (1, 1.0, "Broken: one"),
            (2, 2.0, "Broken: two"),
        ]
        assert rig.intake._first_failed == {}


@pytest.mark.parametrize(
    "options", [{}, {"batch": Batch(2, within=0)}, {"delivery": "at_most_once"}]
)
async def test_where_each_failed_attempt_was_raised_is_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)

    async def book(message: object) -> None:
        raise Broken("no stock")

    async with open_rig(book, **options) as rig:
        rig.give("a", key="k")
        await trio.sleep(100)
    records = [record for record in caplog.records if record.name == "tbus.handlers"]
    assert len(records) == (1 if "delivery" in options else 3)
    assert {record.levelname for record in records} == {"DEBUG"}
    assert "topic t, group g, key 'k', message 0:" in records[0].getMessage()
    assert records[0].getMessage().endswith("attempt 1 failed")
    assert caplog.text.count("in book") == len(records)
    assert caplog.text.count("Broken: no stock") >= len(records)


async def test_a_failing_message_keeps_its_place_and_other_keys_go_on(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.raises["a1"] = [Broken(), Broken()]
        rig.give("a1", "a2", key="a")
        rig.give("b1", "b2", key="b")
        await trio.sleep(0.5)
        assert [body for body, _ in rig.feed.settled] == ["b1", "b2"]
        await trio.sleep(10)
        assert [body for body, _ in rig.feed.settled] == ["b1", "b2", "a1", "a2"]
        assert rig.times("a2") == [3.0]


async def test_a_message_that_waits_for_its_retry_takes_no_worker(
    autojump_clock: MockClock,
) -> None:
    async with open_rig(concurrency=1) as rig:
        rig.raises["a"] = [Broken()]
        rig.give("a", key="a")
        rig.give("b", key="b")
        await trio.sleep(0.5)
        assert len(rig.pool) == 0
        assert rig.feed.settled == [("b", DONE)]


async def test_a_handler_may_say_when_it_wants_to_be_tried_again(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.raises["a"] = [RetryAfter(7.5), RetryAfter(0)]
        rig.give("a")
        await trio.sleep(10)
        assert rig.times("a") == [0.0, 7.5, 7.5]


async def test_a_handler_that_ran_out_of_time_is_tried_again(autojump_clock: MockClock) -> None:
    async with open_rig(timeout=5.0) as rig:

        async def first_too_long(message: Message) -> None:
            if message.attempt == 1:
                await trio.sleep_forever()

        rig.before_return = first_too_long
        rig.give("a")
        await trio.sleep(10)
        assert [round(time, 2) for time in rig.times("a")] == [0.0, 6.0]
        assert rig.told(MessageRetried)[0].error.startswith("TimeoutError: ")


async def test_a_reject_from_a_task_group_does_not_park_the_key(autojump_clock: MockClock) -> None:
    async with open_rig(quarantine=Quarantine("park")) as rig:
        rig.raises["a"] = [ExceptionGroup("tasks", [Reject("no")])]
        rig.give("a", "b")
        await wait_all_tasks_blocked()
        assert rig.subscription.intake.keys.parked() == ()
    assert rig.buried == [("a", "t.dead", "no")]
    assert rig.feed.settled == [("a", DONE), ("b", DONE)]


async def test_a_discarded_message_is_settled_and_not_tried_again(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.raises["a"] = [Discard("old news")]
        rig.give("a", "b")
        await trio.sleep(10)
        assert rig.feed.settled == [("a", DONE), ("b", DONE)]
        assert rig.buried == []
        assert [event.reason for event in rig.told(Discarded)] == ["old news"]


async def test_an_error_that_cannot_even_tell_its_text_is_retried_like_any_other(
    autojump_clock: MockClock,
) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async with open_rig() as rig:
        rig.raises["a"] = [Mute(), Mute(), Mute()]
        rig.give("a")
        await trio.sleep(10)
        assert rig.buried == [
            ("a", "t.dead", "Mute: <its __str__ raised RuntimeError> (attempt 3 of 3)")
        ]


# --- dead letters ---


async def test_a_message_that_fails_too_often_is_buried_and_then_settled(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.raises["a"] = [Broken("x")] * 3
        rig.give("a", "b")
        await trio.sleep(10)
        assert len(rig.times("a")) == 3
        assert rig.buried == [("a", "t.dead", "Broken: x (attempt 3 of 3)")]
        assert rig.feed.settled == [("a", DONE), ("b", DONE)]
        (event,) = rig.told(DeadLettered)
        assert (event.dead_letter, event.attempts) == ("t.dead", 3)


async def test_the_original_is_settled_only_after_its_dead_letter_is_stored(
    autojump_clock: MockClock,
) -> None:
    stored = trio.Event()
    settled_before: list[object] = []

    async with open_rig() as rig:

        async def slow_bury(*args: Any) -> None:
            await stored.wait()
            settled_before.extend(rig.feed.settled)

        rig.intake._bury = slow_bury
        rig.raises["a"] = [Reject("never")]
        rig.give("a", "b")
        await trio.sleep(10)
        assert rig.feed.settled == []
        assert rig.times("b") == []
        stored.set()
        await trio.sleep(10)
        assert settled_before == []
        assert rig.feed.settled == [("a", DONE), ("b", DONE)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Reject("no such customer"), "no such customer"),
        (InvalidEnvelope("not JSON"), "InvalidEnvelope: not JSON"),
    ],
)
async def test_what_can_never_succeed_is_buried_at_once(
    autojump_clock: MockClock, error: Exception, reason: str
) -> None:
    async with open_rig() as rig:
        rig.raises["a"] = [error]
        rig.give("a")
        await wait_all_tasks_blocked()
        assert rig.buried == [("a", "t.dead", reason)]
        assert len(rig.runs) == 1


async def test_a_body_that_is_no_envelope_is_buried_when_a_handler_lets_that_pass(
    autojump_clock: MockClock,
) -> None:
    async def open_envelope(message: Message) -> None:
        assert message.envelope is not None

    async with open_rig(open_envelope) as rig:
        rig.give("{not json")
        await wait_all_tasks_blocked()
        assert [(body, target) for body, target, _ in rig.buried] == [("{not json", "t.dead")]
        assert rig.feed.settled == [("{not json", DONE)]


async def test_a_dead_letter_that_cannot_be_stored_is_tried_again_without_the_handler(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.raises["a"] = [Reject("never")]
        rig.bury_errors = [TransportLost("down"), TransportLost("still down")]
        rig.give("a", "b", key="k")
        rig.give("other", key="o")
        await trio.sleep(0.5)
        assert rig.feed.settled == [("other", DONE)]
        await trio.sleep(10)
        assert rig.times("a") == [0.0]
        assert rig.times("b") == [3.0]
        assert rig.feed.settled == [("other", DONE), ("a", DONE), ("b", DONE)]
        assert rig.buried == [("a", "t.dead", "never")]
        assert [(e.delay, e.age, e.attempts) for e in rig.told(Stalled)] == [
            (1.0, 0.0, 1),
            (2.0, 1.0, 1),
        ]
        assert "its dead letter could not be stored: TransportLost: down" in (
            rig.told(Stalled)[0].reason
        )
        assert rig.intake.graves == {}


async def test_without_a_dead_letter_topic_the_handler_runs_again_at_the_maximum_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with open_rig(dead_letter=None) as rig:
        rig.raises["a"] = [Broken("x")] * 5
        rig.give("a", "b")
        await trio.sleep(1000)
        assert rig.times("a") == [0.0, 1.0, 3.0, 63.0, 123.0, 183.0]
        assert rig.times("b") == [183.0]
        assert rig.feed.settled == [("a", DONE), ("b", DONE)]
        assert [(e.delay, e.attempts) for e in rig.told(Stalled)] == [
            (60.0, 3),
            (60.0, 4),
            (60.0, 5),
        ]
        assert "it has no dead-letter topic" in rig.told(Stalled)[0].reason


async def test_without_a_dead_letter_topic_what_is_no_envelope_is_held_and_reported(
    autojump_clock: MockClock,
) -> None:
    async with open_rig(dead_letter=None) as rig:
        rig.raises["a"] = [InvalidEnvelope("not JSON")] * 10
        rig.give("a", "b")
        await trio.sleep(150)
        assert rig.times("a") == [0.0]
        assert rig.feed.settled == []
        assert len(rig.told(Stalled)) == 3


async def test_a_burial_that_is_cut_off_gives_the_message_back(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:

        async def never(*args: Any) -> None:
            await trio.sleep_forever()

        rig.intake._bury = never
        rig.raises["a"] = [Reject("never")]
        rig.give("a")
        await trio.sleep(1)
    assert rig.feed.settled == []
    assert rig.intake.dispatcher.running == 0


# --- backlog ---


async def test_a_key_that_holds_half_of_what_may_be_in_flight_is_reported(
    autojump_clock: MockClock,
) -> None:
    async with open_rig(max_in_flight=10) as rig:
        rig.before_return = lambda _: trio.sleep_forever()  # noqa: ASYNC105
        rig.give(*"abcd", key="slow")
        rig.give(*"xyz", key=None)
        await wait_all_tasks_blocked()
        assert rig.told(KeyBacklog) == []
        rig.give(*"efg", key="slow")
        await wait_all_tasks_blocked()
        (event,) = rig.told(KeyBacklog)
        assert attrs.astuple(event) == ("t", "g", "slow", 5, 10)


@pytest.mark.parametrize("order", ["none", "partition"])
async def test_where_keys_do_not_wait_for_each_other_none_is_reported(
    autojump_clock: MockClock, order: str
) -> None:
    async with open_rig(max_in_flight=10, order=order) as rig:
        rig.before_return = lambda _: trio.sleep_forever()  # noqa: ASYNC105
        rig.give(*"abcdefghij", key="k")
        await wait_all_tasks_blocked()
        assert rig.told(KeyBacklog) == []


# --- the end ---


async def test_stopping_lets_what_runs_finish_and_begins_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.before_return = lambda _: trio.sleep(5)  # noqa: ASYNC105
        rig.give("a", "b")
        await trio.sleep(1)
        rig.subscription.stop()
        began = trio.current_time()
        await rig.intake.wait_idle()
        assert trio.current_time() - began == pytest.approx(4)
        await trio.sleep(10)
    assert rig.feed.settled == [("a", DONE)]
    assert rig.feed.stopped
    assert [ran for ran, _, _ in rig.runs] == ["a"]


async def test_stopping_while_a_message_waits_for_its_retry_runs_it_no_more(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.raises["a"] = [Broken()]
        rig.give("a", "b")
        await trio.sleep(0.5)
        rig.subscription.stop()
        await rig.intake.wait_idle()
        assert trio.current_time() == pytest.approx(0.5)
        await trio.sleep(10)
    assert rig.times("a") == [0.0]
    assert rig.feed.settled == []
    assert len(rig.intake.dispatcher) == 0


async def test_a_handler_that_fails_after_the_stop_is_neither_settled_nor_tried_again(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:

        async def fail_late(message: Message) -> None:
            await trio.sleep(2)
            raise Broken

        rig.before_return = fail_late
        rig.give("a")
        await trio.sleep(1)
        rig.subscription.stop()
        await rig.intake.wait_idle()
        assert trio.current_time() == pytest.approx(2)
        await trio.sleep(100)
    assert rig.feed.settled == []
    assert len(rig.runs) == 1


async def test_handlers_cancelled_at_the_end_use_up_no_attempt(autojump_clock: MockClock) -> None:
    messages: list[Message] = []
    async with open_rig() as rig:

        async def wait(message: Message) -> None:
            messages.append(message)
            await trio.sleep_forever()

        rig.before_return = wait
        rig.give("a")
        await trio.sleep(1)
        rig.subscription.stop()
        rig.subscription.evict()
        await rig.intake.wait_idle()
    assert rig.feed.settled == []
    assert rig.events == []
    assert [message.attempt for message in messages] == [1]


async def test_what_the_feed_still_had_at_the_stop_is_not_handled(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        await wait_all_tasks_blocked()
        rig.give(*map(str, range(10)))
        rig.subscription.stop()
        await wait_all_tasks_blocked()
    assert rig.runs == []
    assert rig.feed.settled == []


async def test_stopping_twice_is_stopping_once(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.intake.stop()
        rig.intake.stop()
        await rig.intake.wait_idle()


@pytest.mark.parametrize("order", ["key", "none"])
async def test_a_delivery_without_a_key_waits_for_nobody(
    autojump_clock: MockClock, order: str
) -> None:
    async with open_rig(order=order) as rig:
        rig.before_return = lambda _: trio.sleep_forever()  # noqa: ASYNC105
        rig.give("a", "b", key=None)
        await trio.sleep(1)
        assert len(rig.runs) == 2
