"""Messages that are settled before they are handled, and those that came far too often."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus import (
    ConfigurationError,
    DeadLettered,
    Discard,
    Discarded,
    MessageRetried,
    NotHandled,
    Quarantine,
    Reject,
    Retry,
    Stalled,
    open_bus,
)
from tbus._message import Message
from tbus._transport import Verdict
from tbus.testing.conformance._kit import Gate, Seen

from .kit import make_delivery
from .test_intake import open_rig

DONE = Verdict.DONE
ONCE: dict[str, Any] = {"delivery": "at_most_once", "max_deliveries": None}


async def test_a_message_is_settled_when_its_handler_begins_and_its_key_waits_for_the_end(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    async with open_rig(gate, **ONCE) as rig:
        rig.give("a", "b")
        rig.give("x", key="other")
        await wait_all_tasks_blocked()
        assert sorted(rig.feed.settled) == [("a", DONE), ("x", DONE)]
        assert len(rig.intake.dispatcher) == 3
        gate.open()
        await wait_all_tasks_blocked()
        assert sorted(rig.feed.settled) == [("a", DONE), ("b", DONE), ("x", DONE)]
        assert len(rig.intake.dispatcher) == 0
        rig.intake.stop()
        await rig.intake.wait_idle()
    assert rig.events == []


async def test_a_discard_from_a_task_group_is_told_as_one(autojump_clock: MockClock) -> None:
    async with open_rig(**ONCE) as rig:
        rig.raises["a"] = [ExceptionGroup("tasks", [Discard("old")])]
        rig.give("a")
        await wait_all_tasks_blocked()
    assert [event.reason for event in rig.told(Discarded)] == ["old"]


@pytest.mark.parametrize("error", [ValueError("no"), Reject("no"), Discard("no")])
async def test_whatever_a_handler_raises_its_message_is_gone(
    autojump_clock: MockClock, error: Exception
) -> None:
    async with open_rig(**ONCE) as rig:
        rig.raises["a"] = [error]
        rig.give("a", "b")
        await trio.sleep(1000)
    assert [body for body, _, _ in rig.runs] == ["a", "b"]
    assert rig.feed.settled == [("a", DONE), ("b", DONE)]
    assert rig.buried == []
    assert rig.feed.attempts == {}
    assert rig.told(MessageRetried) == []


async def test_a_run_that_is_too_long_is_told_and_the_key_goes_on(
    autojump_clock: MockClock,
) -> None:
    seen = Seen()

    async def handle(message: Message) -> None:
        if message.body == b"a":
            await trio.sleep_forever()
        await seen(message)

    async with open_rig(handle, timeout=5.0, **ONCE) as rig:
        rig.give("a", "b")
        await trio.sleep(6)
    assert [event.error for event in rig.told(NotHandled)] == [
        "TimeoutError: the handler ran longer than 5.0 s"
    ]
    assert seen.text == "b"


async def test_a_cancelled_handler_is_told_and_what_was_not_begun_is_not_settled(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    async with open_rig(gate, **ONCE) as rig:
        rig.give("a", "b")
        await wait_all_tasks_blocked()
        rig.subscription.stop()
        rig.subscription.evict()
        await rig.intake.wait_idle()
    assert rig.feed.settled == [("a", DONE)]
    assert [event.error for event in rig.told(NotHandled)] == ["its handler was cancelled"]


async def test_a_partition_that_goes_waits_for_what_runs_and_what_is_lost_is_told(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    drained = trio.Event()
    async with open_rig(gate, **ONCE) as rig:
        rig.give("a", "b")
        await wait_all_tasks_blocked()
        rig.intake.drain({0: 0}, drained.set)
        await wait_all_tasks_blocked()
        assert not drained.is_set()
        rig.intake.lose({0: 0})
        await drained.wait()
        assert len(rig.intake.dispatcher) == 0
    assert rig.feed.settled == [("a", DONE)]
    assert [event.position for event in rig.told(NotHandled)]


async def test_a_parked_key_is_not_settled_and_what_overflows_is_dead_lettered(
    autojump_clock: MockClock,
) -> None:
    async with open_rig(max_in_flight=4, **ONCE) as rig:
        rig.intake.keys.park("k", "by hand")
        rig.give("a", "b", "c")
        await trio.sleep(10)
        assert rig.runs == []
        assert rig.feed.settled == [("b", DONE), ("c", DONE)]
        assert [body for body, _, _ in rig.buried] == ["b", "c"]
        rig.intake.keys.release("k")
        await trio.sleep(10)
    assert [body for body, _, _ in rig.runs] == ["a"]
    assert rig.feed.settled[-1] == ("a", DONE)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"delivery": "exactly_once"}, "delivery"),
        ({"delivery": "at_most_once", "retry": Retry()}, "retry"),
        ({"delivery": "at_most_once", "quarantine": Quarantine()}, "quarantine"),
        ({"max_deliveries": 0}, "max_deliveries"),
        ({"max_deliveries": True}, "max_deliveries"),
        ({"max_deliveries": 2.5}, "max_deliveries"),
    ],
)
async def test_what_does_not_go_together_is_refused(options: dict[str, Any], field: str) -> None:
    async with open_bus() as bus:
        with pytest.raises(ConfigurationError, match=field):
            await bus.subscribe("t", Seen(), group="g", **options)


# --- far too often ---


async def test_what_came_too_often_is_dead_lettered_in_its_place_and_never_run(
    autojump_clock: MockClock,
) -> None:
    async with open_rig(max_deliveries=3) as rig:
        rig.feed.give(
            make_delivery("a", "k", redelivered=2),
            make_delivery("b", "k", redelivered=3, attempts=1),
            make_delivery("c", "k"),
        )
        await trio.sleep(10)
    assert [body for body, _, _ in rig.runs] == ["a", "c"]
    assert rig.feed.settled == [("a", DONE), ("b", DONE), ("c", DONE)]
    [(_, target, reason)] = rig.buried
    assert target == "t.dead"
    assert reason == (
        "the broker delivered it 4 times (max_deliveries is 3):"
        " whoever had it before may have died of it"
    )
    assert [event.attempts for event in rig.told(DeadLettered)] == [1]
    assert rig.feed.attempts == {}


async def test_redeliveries_are_no_attempts(autojump_clock: MockClock) -> None:
    async with open_rig(max_deliveries=20) as rig:
        rig.feed.give(make_delivery("a", "k", redelivered=19))
        await trio.sleep(10)
    assert rig.runs == [("a", 1, 0.0)]


async def test_none_puts_no_limit_to_deliveries(autojump_clock: MockClock) -> None:
    async with open_rig(max_deliveries=None) as rig:
        rig.feed.give(make_delivery("a", "k", redelivered=10**9))
        await trio.sleep(10)
    assert rig.runs == [("a", 1, 0.0)]


async def test_without_a_dead_letter_topic_it_is_stalled_first_and_run_later_without_an_attempt(
    autojump_clock: MockClock,
) -> None:
    async with open_rig(max_deliveries=3, dead_letter=None) as rig:
        rig.feed.give(make_delivery("a", "k", redelivered=3), make_delivery("b", "k"))
        await trio.sleep(1000)
    assert [(event.attempts, event.delay) for event in rig.told(Stalled)] == [(0, 60.0)]
    assert rig.runs == [("a", 1, 60.0), ("b", 1, 60.0)]


async def test_it_holds_for_keys_that_come_while_another_is_parked(
    autojump_clock: MockClock,
) -> None:
    async with open_rig(max_deliveries=3) as rig:
        rig.intake.keys.park("parked", "by hand")
        rig.feed.give(make_delivery("a", "k", redelivered=3), make_delivery("b", "k"))
        await trio.sleep(10)
    assert [body for body, _, _ in rig.runs] == ["b"]
    assert [body for body, _, _ in rig.buried] == ["a"]


async def test_pulled_messages_are_counted_too(autojump_clock: MockClock) -> None:
    seen: list[bytes] = []
    async with open_bus("memory://twice") as keeper, open_bus("memory://twice") as bus:
        await keeper.publish("t", b"a", key="k")
        for _ in range(2):
            async with keeper.open_messages("t", group="g") as messages:
                async for _message in messages:
                    break
        await keeper.publish("t", b"b", key="k")
        async with bus.open_messages("t", group="g", max_deliveries=2) as messages:
            async for message in messages:
                async with message:
                    seen.append(message.body)
                break
        assert await keeper.list_topics() == ["t", "t.dead"]
    assert seen == [b"b"]


async def test_a_key_that_is_parked_while_its_handler_runs_goes_no_further(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    async with open_rig(gate, **ONCE) as rig:
        rig.give("a", "b")
        await wait_all_tasks_blocked()
        rig.intake.keys.park("k", "by hand")
        gate.open()
        await trio.sleep(10)
        assert rig.feed.settled == [("a", DONE)]
        rig.intake.keys.release("k")
        await trio.sleep(10)
    assert rig.feed.settled == [("a", DONE), ("b", DONE)]


async def test_max_deliveries_may_be_none_in_a_subscription() -> None:
    seen = Seen()
    async with open_bus() as bus:
        await bus.subscribe("t", seen, group="g", max_deliveries=None)
        await bus.publish("t", b"a")
        await seen.wait(1)
