"""Handlers that take lists: when a list is due, and what becomes of one, on virtual time."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus import (
    Batch,
    BatchFailed,
    BatchRetried,
    ConfigurationError,
    DeadLettered,
    Discard,
    Discarded,
    Envelope,
    InvalidEnvelope,
    MessageRetried,
    Quarantine,
    Rate,
    Reject,
    Retry,
    RetryAfter,
    open_bus,
)
from tbus._gathering import Gathering
from tbus._message import Delivery, Message, Position
from tbus._transport import Verdict

from .kit import make_delivery, text
from .test_intake import Rig, open_rig

DONE = Verdict.DONE
RETRY = Retry(attempts=4, initial=1.0, factor=2.0, maximum=60.0, jitter=0.0)


class Lists:
    """A handler that notes each list with the time and raises what it is told, run by run.
    `fails` is asked before that."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, float]] = []
        self.attempts: list[list[int]] = []
        self.raises: list[Exception | None] = []
        self.fails: Callable[[list[Message]], Exception | None] = lambda _: None
        self.takes = 0.0
        """Seconds that each run takes."""
        self.takes_first: list[float] = []
        """The same for the first ones."""

    async def __call__(self, messages: list[Message]) -> None:
        bodies = " ".join(map(text, messages))
        self.runs.append((bodies, round(trio.current_time(), 6)))
        self.attempts.append([message.attempt for message in messages])
        seconds = self.takes_first.pop(0) if self.takes_first else self.takes
        if seconds:
            await trio.sleep(seconds)
        error = self.fails(messages)
        if self.raises:
            error = self.raises.pop(0)
        if error is not None:
            raise error


@asynccontextmanager
async def open_lists(
    size: int = 3, within: float = 5.0, **options: Any
) -> AsyncIterator[tuple[Rig, Lists]]:
    lists = Lists()
    options.setdefault("retry", RETRY)
    async with open_rig(lists, batch=Batch(size, within), **options) as rig:
        yield rig, lists


def poison(*bodies: str, error: type[Exception] = ValueError) -> Callable[[list[Message]], Any]:
    """Fails whatever list holds one of these."""

    def fails(messages: list[Message]) -> Exception | None:
        bad = [text(message) for message in messages if text(message) in bodies]
        return error(bad[0]) if bad else None

    return fails


def settled(rig: Rig) -> str:
    return " ".join(body for body, verdict in rig.feed.settled if verdict is DONE)


# --- when a list is due ---


async def test_a_full_list_is_handled_at_once_and_the_rest_after_exactly_the_time(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3, within=5.0) as (rig, lists):
        rig.give("a1", key="a")
        rig.give("b1", "b2", key="b")
        rig.give("c1", key="c")
        await trio.sleep(100)
    assert lists.runs == [("a1 b1 b2", 0.0), ("c1", 5.0)]
    assert settled(rig) == "a1 b1 b2 c1"
    assert rig.events == []


async def test_the_time_counts_from_the_first_that_can_be_handled(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=10, within=5.0) as (rig, lists):
        for number in range(8):
            rig.give(str(number), key=str(number))
            await trio.sleep(2)
        await trio.sleep(10)
    assert lists.runs == [("0 1 2", 5.0), ("3 4 5", 11.0), ("6 7", 17.0)]


async def test_what_is_left_over_waits_no_longer_than_its_own_time(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3, within=5.0) as (rig, lists):
        rig.give("a1", key="a")
        rig.give("b1", key="b")
        await trio.sleep(4)
        rig.give("a2", "a3", key="a")
        await trio.sleep(100)
    assert lists.runs == [("a1 a2 a3", 4.0), ("b1", 5.0)]


async def test_a_key_that_was_busy_waits_from_the_end_of_its_list(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=2, within=5.0) as (rig, lists):
        lists.takes = 3
        rig.give("a1", "a2", "a3", key="a")
        await trio.sleep(100)
    assert lists.runs == [("a1 a2", 0.0), ("a3", 8.0)]


async def test_without_a_time_to_wait_the_handler_gets_what_is_there(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=10, within=0) as (rig, lists):
        lists.takes = 1
        rig.give("a", "b", key="k")
        await trio.sleep(0.5)
        rig.give("c", "d", key="k")
        await trio.sleep(10)
    assert lists.runs == [("a b", 0.0), ("c d", 1.0)]


async def test_lists_run_beside_each_other_but_never_two_of_one_key(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=2, within=1.0, concurrency=2) as (rig, lists):
        lists.takes_first = [6, 9]
        lists.takes = 1
        for number in range(3):
            rig.give(f"a{number}", key="a")
            rig.give(f"b{number}", key="b")
            rig.give(f"c{number}", key="c")
        await trio.sleep(5)
        assert lists.runs == [("a0 b0", 0.0), ("c0 c1", 0.0)]
        assert rig.intake.running == 2
        await trio.sleep(100)
    assert lists.runs[2:] == [("a1 a2", 6.0), ("b1 b2", 7.0), ("c2", 10.0)]


async def test_lists_are_of_several_partitions_and_of_messages_without_a_key(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3) as (rig, lists):
        rig.feed.give(
            make_delivery("a", "a", position=Position(0, 1)),
            make_delivery("b", "b", position=Position(1, 1)),
            make_delivery("c", None, position=Position(1, 2)),
        )
        await wait_all_tasks_blocked()
    assert lists.runs == [("a b c", 0.0)]


@pytest.mark.parametrize(("order", "runs"), [("partition", 1), ("none", 2)])
async def test_other_orders_make_lists_too(
    autojump_clock: MockClock, order: str, runs: int
) -> None:
    async with open_lists(size=2, order=order) as (rig, lists):
        lists.takes = math.inf
        rig.give("a", "b", "c", "d", key="k")
        await trio.sleep(1)
        assert len(lists.runs) == runs


# --- failures of a whole list ---


async def test_a_list_that_fails_is_repeated_as_a_whole_while_others_go_on(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3) as (rig, lists):
        lists.raises = [ValueError("no"), None, ValueError("no"), None]
        rig.give("a1", "a2", key="a")
        rig.give("b1", key="b")
        await trio.sleep(0.5)
        rig.give("a3", key="a")
        rig.give("b2", key="b")
        rig.give("c1", "c2", "c3", key="c")
        await trio.sleep(100)
    assert lists.runs == [
        ("a1 a2 b1", 0.0), ("c1 c2 c3", 0.5), ("a1 a2 b1", 1.0), ("a1 a2 b1", 3.0),
        ("a3 b2", 8.0),
    ]  # fmt: skip
    assert lists.attempts == [[1, 1, 1], [1, 1, 1], [2, 2, 2], [3, 3, 3], [1, 1]]
    assert [(e.messages, e.attempt, e.delay, e.alone) for e in rig.told(BatchRetried)] == [
        (3, 1, 1.0, False), (3, 2, 2.0, False),
    ]  # fmt: skip
    assert rig.feed.attempts == {"a1": 2, "a2": 2, "b1": 2}
    assert settled(rig) == "c1 c2 c3 a1 a2 b1 a3 b2"


async def test_the_last_attempt_runs_message_by_message_so_only_the_guilty_is_dead_lettered(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=4) as (rig, lists):
        lists.fails = poison("b1")
        rig.give("a1", "a2", key="a")
        rig.give("b1", "b2", key="b")
        await trio.sleep(100)
    assert [run for run in lists.runs if run[1] < 7] == [
        ("a1 a2 b1 b2", 0.0), ("a1 a2 b1 b2", 1.0), ("a1 a2 b1 b2", 3.0),
    ]  # fmt: skip
    assert sorted(lists.runs[3:]) == [("a1", 7.0), ("a2", 7.0), ("b1", 7.0), ("b2", 7.0)]
    assert lists.attempts[3:] == [[4]] * 4
    assert [(body, reason) for body, _, reason in rig.buried] == [
        ("b1", "ValueError: b1 (attempt 4 of 4)")
    ]
    assert [event.attempts for event in rig.told(DeadLettered)] == [4]
    order = settled(rig).split()
    assert order.index("a1") < order.index("a2")
    assert order.index("b1") < order.index("b2")


async def test_without_a_limit_to_attempts_messages_run_alone_after_some(
    autojump_clock: MockClock,
) -> None:
    retry = Retry(attempts=None, initial=1.0, factor=1.0, jitter=0.0)
    async with open_lists(size=2, retry=retry) as (rig, lists):
        lists.fails = poison("b")
        rig.give("a", key="a")
        rig.give("b", key="b")
        await trio.sleep(7.5)
    assert lists.runs == [
        ("a b", 0.0), ("a b", 1.0), ("a b", 2.0), ("a b", 3.0),
        ("a", 4.0), ("b", 4.0), ("b", 5.0), ("b", 6.0), ("b", 7.0),
    ]  # fmt: skip
    assert settled(rig) == "a"


@pytest.mark.parametrize("error", [Reject("bad"), InvalidEnvelope("bad"), KeyError("bad")])
async def test_what_is_not_retried_runs_message_by_message_first(
    autojump_clock: MockClock, error: Exception
) -> None:
    retry = Retry(attempts=4, initial=1.0, jitter=0.0, on=ValueError)
    async with open_lists(size=3, retry=retry) as (rig, lists):
        lists.fails = lambda messages: error if "b" in map(text, messages) else None
        rig.give("a", "b", "c", key="k")
        await trio.sleep(100)
    assert lists.runs == [("a b c", 0.0), ("a", 0.0), ("b", 0.0), ("c", 0.0)]
    assert [body for body, _, _ in rig.buried] == ["b"]
    assert settled(rig) == "a b c"


async def test_a_discarded_list_runs_message_by_message_and_uses_up_no_attempt(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=2) as (rig, lists):
        lists.fails = poison("b", error=Discard)
        rig.give("a", key="a")
        rig.give("b", key="b")
        await trio.sleep(100)
    assert lists.runs == [("a b", 0.0), ("a", 0.0), ("b", 0.0)]
    assert lists.attempts == [[1, 1], [1], [1]]
    assert [event.reason for event in rig.told(Discarded)] == ["b"]
    assert rig.feed.attempts == {}


async def test_a_list_that_takes_too_long_has_failed(autojump_clock: MockClock) -> None:
    async with open_lists(size=2, timeout=10.0) as (rig, lists):
        lists.takes_first = [math.inf]
        rig.give("a", "b")
        await trio.sleep(100)
    assert lists.runs == [("a b", 0.0), ("a b", 11.0)]
    assert [event.error for event in rig.told(BatchRetried)] == [
        "TimeoutError: the handler ran longer than 10.0 s"
    ]


async def test_a_list_may_ask_for_its_delay(autojump_clock: MockClock) -> None:
    async with open_lists(size=2) as (rig, lists):
        lists.raises = [RetryAfter(30), None]
        rig.give("a", "b")
        await trio.sleep(100)
    assert lists.runs == [("a b", 0.0), ("a b", 30.0)]


async def test_a_message_with_attempts_from_before_is_alone_when_the_next_is_its_last(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3) as (rig, lists):
        rig.feed.give(
            make_delivery("a", "a", attempts=2),
            make_delivery("b", "b", attempts=3),
            make_delivery("b2", "b"),
            make_delivery("c", "c"),
        )
        await trio.sleep(100)
    assert lists.runs == [("b", 0.0), ("a c b2", 0.0)]
    assert lists.attempts == [[4], [3, 1, 1]]


# --- BatchFailed ---


def failing(errors: dict[str, Exception]) -> Callable[[list[Message]], Exception | None]:
    def fails(messages: list[Message]) -> Exception | None:
        found = {m: errors.pop(text(m)) for m in messages if text(m) in errors}
        return BatchFailed(found) if found else None

    return fails


async def test_what_is_not_named_is_settled_and_what_is_comes_again_alone_or_with_others(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=4) as (rig, lists):
        lists.fails = failing({"b1": ValueError("no")})
        rig.give("a1", "a2", key="a")
        rig.feed.give(make_delivery("b1", "b", position=Position(7, 42)))
        rig.give("c1", key="c")
        await wait_all_tasks_blocked()
        assert settled(rig) == "a1 a2 c1"
        await trio.sleep(100)
    assert lists.runs == [("a1 a2 b1 c1", 0.0), ("b1", 6.0)]  # 1 s, and 5 s for others to come
    assert lists.attempts[1] == [2]
    assert [(e.position, e.error) for e in rig.told(MessageRetried)] == [("7:42", "ValueError: no")]


async def test_what_stands_behind_a_message_that_failed_is_not_settled_before_it(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=4, within=0) as (rig, lists):
        lists.fails = failing({"a2": ValueError("no")})
        rig.give("a1", "a2", "a3", "a4", key="a")
        await wait_all_tasks_blocked()
        assert settled(rig) == "a1"
        await trio.sleep(100)
    assert lists.runs == [("a1 a2 a3 a4", 0.0), ("a2 a3 a4", 1.0)]
    assert lists.attempts[1] == [2, 1, 1]
    assert settled(rig) == "a1 a2 a3 a4"


async def test_what_failed_behind_another_has_used_up_an_attempt_too(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3, within=0) as (rig, lists):
        lists.fails = failing({"a1": ValueError("no"), "a3": RetryAfter(50)})
        rig.give("a1", "a2", "a3", key="a")
        await trio.sleep(100)
    assert lists.runs == [("a1 a2 a3", 0.0), ("a1 a2 a3", 1.0)]
    assert lists.attempts[1] == [2, 1, 2]
    assert rig.feed.attempts == {"a1": 1, "a3": 1}


async def test_each_named_message_may_have_a_verdict_of_its_own(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=5, within=0) as (rig, lists):
        lists.fails = failing({
            "a1": Discard("old"), "b1": Reject("bad"), "c1": RetryAfter(7), "d1": ValueError("no"),
        })  # fmt: skip
        rig.feed.give(*(make_delivery(f"{key}1", key) for key in "abcde"))
        await trio.sleep(0.5)
        assert settled(rig) == "e1 a1 b1"
        await trio.sleep(100)
    assert lists.runs == [("a1 b1 c1 d1 e1", 0.0), ("d1", 1.0), ("c1", 7.0)]
    assert [body for body, _, _ in rig.buried] == ["b1"]
    assert [event.reason for event in rig.told(Discarded)] == ["old"]


async def test_behind_a_message_that_was_dead_lettered_the_rest_of_its_key_is_settled(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3, within=0) as (rig, lists):
        lists.fails = failing({"a1": Reject("bad")})
        rig.give("a1", "a2", "a3", key="a")
        await trio.sleep(100)
    assert len(lists.runs) == 1
    assert settled(rig) == "a1 a2 a3"


async def test_one_message_that_is_named_again_and_again_is_dead_lettered_after_its_attempts(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=2, within=0) as (rig, lists):

        def fails(messages: list[Message]) -> Exception | None:
            bad = [message for message in messages if text(message) == "b"]
            return BatchFailed({message: ValueError("no") for message in bad}) if bad else None

        lists.fails = fails
        rig.feed.give(make_delivery("a", "a"), make_delivery("b", "b"))
        await trio.sleep(100)
    assert lists.runs == [("a b", 0.0), ("b", 1.0), ("b", 3.0), ("b", 7.0)]
    assert [body for body, _, _ in rig.buried] == ["b"]


async def test_what_a_task_group_says_of_a_list_counts_as_if_it_were_said_alone(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=2) as (rig, lists):
        fails = failing({"b": Reject("no")})

        def in_a_group(messages: list[Message]) -> Exception | None:
            failure = fails(messages)
            return failure and ExceptionGroup("tasks", [failure])

        lists.fails = in_a_group
        rig.feed.give(make_delivery("a", "a"), make_delivery("b", "b"))
        await trio.sleep(100)
    assert lists.runs == [("a b", 0.0)]
    assert settled(rig) == "a b"
    assert [(body, reason) for body, _, reason in rig.buried] == [("b", "no")]


async def test_a_message_that_is_not_in_the_list_fails_the_list(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=2) as (rig, lists):
        other = Message("t", "k", "g", make_delivery("x"))
        lists.raises = [BatchFailed({other: ValueError("no")}), None]
        rig.give("a", "b")
        await trio.sleep(100)
    assert lists.runs == [("a b", 0.0), ("a b", 1.0)]
    assert "not in the list" in rig.told(BatchRetried)[0].error


@pytest.mark.parametrize("errors", [{}, {Message("t", "k", "g", make_delivery("x")): "text"}])
def test_a_failure_without_messages_or_errors_is_a_mistake(errors: Any) -> None:
    with pytest.raises(ConfigurationError, match="BatchFailed"):
        BatchFailed(errors)


def test_a_failure_tells_what_failed() -> None:
    first, second = (Message("t", "k", "g", make_delivery("x")) for _ in range(2))
    error = BatchFailed({first: ValueError("no"), second: KeyError("k")})
    assert str(error) == "ValueError: no, and 1 more"
    assert list(error.errors) == [first, second]


# --- payloads ---


async def test_decoded_lists_are_of_pairs_and_what_cannot_be_decoded_goes_alone(
    autojump_clock: MockClock,
) -> None:
    runs: list[list[tuple[dict[str, int], str | None, int]]] = []

    async def handle(pairs: list[tuple[dict[str, int], Message]]) -> None:
        runs.append([(event, message.key, message.attempt) for event, message in pairs])

    async with open_bus() as bus, bus.open_dead_letters("t") as _:
        await bus.subscribe("t", handle, group="g", decode=dict[str, int], batch=Batch(4, 5.0))
        for key, payload in [("a", {"n": 1}), ("b", {"n": "x"}), ("b", {"n": 2}), ("c", {"n": 3})]:
            await bus.publish("t", Envelope.new(key, "Happened", payload))
        await trio.sleep(100)
    assert runs == [[({"n": 1}, "a", 1), ({"n": 3}, "c", 1), ({"n": 2}, "b", 1)]]


# --- the rest of the house ---


async def test_a_rate_counts_lists(autojump_clock: MockClock) -> None:
    async with open_lists(size=2, within=0, rate=Rate(1.0, burst=1)) as (rig, lists):
        rig.give(*"abcdef", key="k")
        await trio.sleep(100)
    assert lists.runs == [("a b", 0.0), ("c d", 1.0), ("e f", 2.0)]


async def test_what_came_too_often_is_dead_lettered_without_a_run_and_without_a_list(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3, max_deliveries=3) as (rig, lists):
        rig.feed.give(
            make_delivery("a", "k"),
            make_delivery("b", "k", redelivered=3),
            make_delivery("c", "k"),
            make_delivery("d", "other"),
        )
        await trio.sleep(100)
    assert lists.runs == [("a d", 5.0), ("c", 10.0)]
    assert [body for body, _, _ in rig.buried] == ["b"]
    assert settled(rig) == "a d b c"


async def test_at_the_end_a_list_that_runs_is_settled_and_what_waits_is_given_back(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=2) as (rig, lists):
        lists.takes = 3
        rig.give("a", "b", "c", "d", key="k")
        rig.give("x", key="x")
        await trio.sleep(1)
        rig.subscription.stop()
        assert len(rig.intake.dispatcher) == 2
        await rig.intake.wait_idle()
        assert trio.current_time() == 3.0
        await trio.sleep(100)
    assert lists.runs == [("a b", 0.0)]
    assert settled(rig) == "a b"


async def test_at_the_end_a_list_that_is_cancelled_has_not_failed(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=2) as (rig, lists):
        lists.takes = math.inf
        rig.give("a", "b")
        await wait_all_tasks_blocked()
        rig.subscription.stop()
        rig.subscription.evict()
        await rig.intake.wait_idle()
        await trio.sleep(100)
    assert settled(rig) == ""
    assert rig.feed.attempts == {}
    assert rig.events == []


async def test_at_the_end_a_list_between_two_attempts_is_given_back(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=2) as (rig, lists):
        lists.raises = [ValueError("no")]
        rig.give("a", "b")
        await trio.sleep(0.5)
        rig.subscription.stop()
        await rig.intake.wait_idle()
        await trio.sleep(100)
    assert lists.runs == [("a b", 0.0)]
    assert len(rig.intake.dispatcher) == 0


def of_two_partitions() -> list[Delivery]:
    """One message of the first partition, and two of another one's key."""
    return [
        make_delivery("a1", "a"),
        make_delivery("b1", "b", position=Position(1, 1)),
        make_delivery("b2", "b", position=Position(1, 2)),
    ]


async def test_a_partition_that_goes_takes_its_messages_out_of_lists_that_wait(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3) as (rig, lists):
        lists.raises = [ValueError("no"), None]
        rig.feed.give(*of_two_partitions())
        await trio.sleep(0.5)
        drained = trio.Event()
        rig.intake.drain({1: 0}, drained.set)
        assert drained.is_set()
        await trio.sleep(100)
    assert lists.runs == [("a1 b1 b2", 0.0), ("a1", 1.0)]
    assert settled(rig) == "a1"


async def test_a_partition_that_goes_waits_for_the_list_and_the_list_is_settled(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3) as (rig, lists):
        lists.takes = 3
        rig.feed.give(*of_two_partitions())
        await trio.sleep(1)
        drained = trio.Event()
        rig.intake.drain({1: 0}, drained.set)
        await drained.wait()
        assert trio.current_time() == 3.0
    assert settled(rig) == "a1 b1 b2"


async def test_a_partition_that_is_lost_cancels_the_list_and_the_others_come_again(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3, within=5.0) as (rig, lists):
        lists.takes_first = [math.inf]
        rig.feed.give(*of_two_partitions())
        await trio.sleep(1)
        rig.intake.lose({1: 0})
        await trio.sleep(100)
    assert lists.runs == [("a1 b1 b2", 0.0), ("a1", 6.0)]
    assert lists.attempts[1] == [1]
    assert settled(rig) == "a1"
    assert len(rig.intake.dispatcher) == 0


async def test_a_list_that_fails_after_a_partition_went_comes_again_without_it(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3) as (rig, lists):
        lists.takes = 3
        lists.raises = [ValueError("no"), None]
        rig.feed.give(*of_two_partitions())
        await trio.sleep(1)
        drained = trio.Event()
        rig.intake.drain({1: 0}, drained.set)
        await drained.wait()
        await trio.sleep(100)
    assert lists.runs == [("a1 b1 b2", 0.0), ("a1", 4.0)]
    assert len(rig.intake.dispatcher) == 0


async def test_a_partition_that_goes_does_not_make_others_wait_longer(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3, within=5.0) as (rig, lists):
        rig.feed.give(make_delivery("a1", "a"), make_delivery("b1", "b", position=Position(1, 1)))
        await trio.sleep(3)
        rig.intake.drain({1: 0}, lambda: None)
        await trio.sleep(100)
    assert lists.runs == [("a1", 5.0)]


async def test_of_a_key_that_has_moved_the_part_that_is_still_here_comes_again(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3) as (rig, lists):
        lists.raises = [ValueError("no"), None]
        rig.feed.give(
            make_delivery("a1", "a"),
            make_delivery("a2", "a", position=Position(1, 1)),
            make_delivery("a3", "a", position=Position(1, 2)),
        )
        await trio.sleep(0.5)
        rig.intake.drain({1: 0}, lambda: None)
        await trio.sleep(100)
    assert lists.runs == [("a1 a2 a3", 0.0), ("a1", 1.0)]


async def test_a_key_may_be_parked_while_more_of_it_runs_than_may_wait(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3, quarantine=Quarantine(limit=1)) as (rig, lists):
        lists.takes = 3
        rig.give("a1", "a2", "a3", "a4", "a5", key="a")
        await trio.sleep(1)
        rig.intake.keys.park("a", "by hand")
        await trio.sleep(100)
    assert lists.runs == [("a1 a2 a3", 0.0)]
    assert [body for body, _, _ in rig.buried] == ["a4", "a5"]
    assert sorted(settled(rig).split()) == ["a1", "a2", "a3", "a4", "a5"]


async def test_a_key_is_quarantined_after_its_last_attempt_alone(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=2, quarantine=Quarantine()) as (rig, lists):
        lists.fails = poison("a1")
        rig.give("a1", "a2", "a3", key="a")
        rig.give("b1", key="b")
        await trio.sleep(100)
        [parked] = rig.intake.keys.parked()
        assert (parked.key, parked.waiting) == ("a", 3)
        assert settled(rig) == "b1"
        lists.fails = lambda _: None
        rig.intake.keys.release("a")
        await trio.sleep(100)
    assert settled(rig) == "b1 a1 a2 a3"


async def test_a_key_that_is_parked_leaves_a_list_that_waits_and_one_that_fails(
    autojump_clock: MockClock,
) -> None:
    async with open_lists(size=3) as (rig, lists):
        lists.takes = 3
        lists.raises = [ValueError("no"), ValueError("no"), None]
        for key in "abc":
            rig.give(f"{key}1", key=key)
        await trio.sleep(1)
        rig.intake.keys.park("a", "by hand")  # while it runs
        await trio.sleep(2.5)
        rig.intake.keys.park("b", "by hand")  # while it waits
        await trio.sleep(100)
        assert lists.runs == [("a1 b1 c1", 0.0), ("c1", 4.0), ("c1", 14.0)]
        rig.intake.keys.release("a")
        rig.intake.keys.release("b")
        await trio.sleep(100)
    assert settled(rig) == "c1 a1 b1"
    assert lists.attempts[-1] == [1, 1]


async def test_a_key_that_goes_to_the_dead_letters_while_its_list_fails_goes_in_order(
    autojump_clock: MockClock,
) -> None:
    quarantine = Quarantine("dead_letter")
    async with open_lists(size=3, quarantine=quarantine) as (rig, lists):
        lists.takes = 3
        lists.raises = [ValueError("no"), None]
        rig.give("a1", "a2", "a3", "a4", key="a")
        await trio.sleep(1)
        rig.intake.keys.park("a", "by hand")
        await trio.sleep(100)
    assert lists.runs == [("a1 a2 a3", 0.0)]
    assert [body for body, _, _ in rig.buried] == ["a1", "a2", "a3", "a4"]
    assert [event.attempts for event in rig.told(DeadLettered)] == [1, 1, 1, 0]


async def test_each_message_of_a_list_may_be_shielded(autojump_clock: MockClock) -> None:
    entered: list[str] = []

    async def handle(messages: list[Message]) -> None:
        for message in messages:
            async with message.shielded():
                entered.append(text(message))

    async with open_rig(handle, batch=Batch(2, 1.0)) as rig:
        rig.give("a", "b")
        await trio.sleep(1)
    assert entered == ["a", "b"]
    assert settled(rig) == "a b"


class Wild:
    """A handler that does anything at all, and sees to it that what it gets is in order."""

    def __init__(self, seed: int, rig: Rig | None = None) -> None:
        self.random = random.Random(seed)
        self.rig = rig
        self.running: set[str | None] = set()
        self.longest = 0

    async def __call__(self, messages: list[Message]) -> None:
        assert self.rig is not None
        keys = {message.key for message in messages if message.key is not None}
        assert not keys & self.running, "two lists of one key"
        self.running |= keys
        self.longest = max(self.longest, len(messages))
        try:
            for key in keys:
                numbers = [int(text(m)) for m in messages if m.key == key]
                lane = self.rig.intake.dispatcher.lane(key)
                assert lane is not None
                first = [int(text(m)) for m in lane.items][: len(numbers)]
                assert numbers == first, "not the first of its key, or with a gap"
            await trio.sleep(self.random.choice([0, 0.1, 3]))
            self.fail(messages)
        finally:
            self.running -= keys

    def fail(self, messages: list[Message]) -> None:
        errors: list[Exception] = [
            ValueError("no"), Reject("bad"), Discard("old"), RetryAfter(2), KeyError("not retried"),
        ]  # fmt: skip
        draw = self.random.random()
        if draw < 0.25:
            raise self.random.choice(errors)
        if draw < 0.5:
            named = self.random.sample(messages, self.random.randint(1, len(messages)))
            raise BatchFailed({message: self.random.choice(errors) for message in named})


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_happens_each_key_is_settled_in_order_and_once(
    autojump_clock: MockClock, seed: int
) -> None:
    wild = Wild(seed)
    retry = Retry(attempts=4, initial=1.0, jitter=0.3, on=ValueError)
    async with open_rig(
        wild, batch=Batch(5, 1.0), concurrency=3, max_in_flight=1000, retry=retry,
        quarantine=Quarantine() if seed % 3 else None,
    ) as rig:  # fmt: skip
        wild.rig = rig
        pushed: dict[str | None, list[str]] = defaultdict(list)
        for number in range(150):
            key = wild.random.choice([*"abcde", None])
            partition = "abcde".find(key or "e")
            pushed[key].append(str(number))
            rig.feed.give(
                make_delivery(str(number), key, position=Position(partition, number), epoch=1)
            )
            if wild.random.random() < 0.2:
                await trio.sleep(wild.random.random() * 2)
            if wild.random.random() < 0.05:
                rig.intake.keys.park(wild.random.choice("abcde"), "by hand")
            if seed % 2 and number == 100:
                drained = trio.Event()
                rig.intake.drain({4: 1}, drained.set)
                if seed % 4 == 1:
                    await drained.wait()
                else:
                    await trio.sleep(1)
                    rig.intake.lose({4: 1})
        for _ in range(300):
            await trio.sleep(100)
            for parked in rig.intake.keys.parked():
                rig.intake.keys.release(parked.key)
        done = [body for body, _ in rig.feed.settled]
    assert wild.longest > 1
    assert len(done) == len(set(done))
    for key, numbers in pushed.items():
        here = [body for body in done if body in numbers]
        if key is not None:
            assert here == sorted(here, key=int)
        if key in {"a", "b", "c", "d"} or not seed % 2:
            assert sorted(here) == sorted(numbers)
    gathering = rig.intake.dispatcher
    assert isinstance(gathering, Gathering)
    assert len(gathering) == 0
    assert not gathering.running
    assert not any([gathering.alone, gathering._widths, gathering._deadlines])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"batch": 3}, "batch"),
        ({"batch": Batch(11, 1.0), "max_in_flight": 10}, "batch"),
        ({"batch": Batch(2, 1.0), "retry": Retry(attempts=1)}, "batch"),
        ({"batch": Batch(2, 1.0), "delivery": "at_most_once"}, "batch"),
    ],
)
async def test_what_does_not_go_together_is_refused(options: dict[str, Any], field: str) -> None:
    async with open_bus() as bus:
        with pytest.raises(ConfigurationError, match=field):
            await bus.subscribe("t", Lists(), group="g", **options)


@pytest.mark.parametrize(
    ("size", "within"), [(0, 1.0), (True, 1.0), (2.5, 1.0), (2, -1), (2, float("inf")), (2, None)]
)
def test_values_of_a_batch_are_checked_when_it_is_made(size: Any, within: Any) -> None:
    with pytest.raises(ConfigurationError):
        Batch(size, within)
