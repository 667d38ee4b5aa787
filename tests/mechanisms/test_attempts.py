"""What is told to the feed of failed attempts, and what comes of what a feed has kept."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus import Discard, Retry
from tbus._events import DeadLettered
from tbus._message import Message
from tbus._transport import Feed, FeedRequest, Verdict
from tbus.testing.conformance._kit import Gate
from tbus.transports.memory import MemoryTransport

from ..memory.kit import Outbox, open_one
from .kit import make_delivery
from .test_intake import open_rig


async def test_every_failed_run_is_told_to_the_feed(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.raises["a"] = [ValueError(), ValueError()]
        rig.give("a", "b")
        await trio.sleep(0.5)
        assert rig.feed.attempts == {"a": 1}
        await trio.sleep(1.0)
        assert rig.feed.attempts == {"a": 2}
        await trio.sleep(10)
    assert rig.feed.attempts == {"a": 2}
    assert [body for body, _ in rig.feed.settled] == ["a", "b"]


async def test_a_run_that_was_too_long_is_a_failed_one(autojump_clock: MockClock) -> None:
    async with open_rig(Gate(), timeout=5.0) as rig:
        rig.give("a")
        await trio.sleep(5.5)
        assert rig.feed.attempts == {"a": 1}


async def test_neither_a_cancelled_run_nor_a_discarded_message_is_a_failed_one(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()

    async def handle(message: Message) -> None:
        if message.body == b"discarded":
            raise Discard("old")
        await gate(message)

    async with open_rig(handle) as rig:
        rig.give("discarded", "cancelled")
        await wait_all_tasks_blocked()
        assert rig.subscription.evict() is False
        await wait_all_tasks_blocked()
        assert not gate.inside
    assert rig.feed.attempts == {}


async def test_attempts_go_on_where_the_feed_says(autojump_clock: MockClock) -> None:
    async with open_rig(retry=Retry(attempts=5, initial=1.0, factor=2.0, jitter=0.0)) as rig:
        rig.raises["a"] = [ValueError(), ValueError()]
        rig.feed.give(make_delivery("a", "k", attempts=3))
        await trio.sleep(100)
    # The delay, too, is the one after the fourth attempt.
    assert rig.runs == [("a", 4, 0.0), ("a", 5, 8.0)]
    assert [event.attempts for event in rig.told(DeadLettered)] == [5]


async def test_one_whose_attempts_were_used_up_before_is_tried_once_more(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.raises["a"] = [ValueError(), ValueError()]
        rig.feed.give(make_delivery("a", "k", attempts=3), make_delivery("b", "l", attempts=3))
        await trio.sleep(100)
    assert sorted(rig.runs) == [("a", 4, 0.0), ("b", 4, 0.0)]
    assert [body for body, _, _ in rig.buried] == ["a"]


async def test_a_released_key_begins_anew_for_the_feed_too(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.raises["a"] = [ValueError()]
        rig.give("a")
        rig.feed.give(make_delivery("b", "k", attempts=2), make_delivery("c", "k"))
        await trio.sleep(0.5)
        rig.intake.keys.park("k", "by hand")
        await trio.sleep(10)
        rig.intake.keys.release("k")
        await trio.sleep(10)
    assert [(body, attempt) for body, attempt, _ in rig.runs] == [
        ("a", 1), ("a", 1), ("b", 1), ("c", 1),
    ]  # fmt: skip
    assert rig.feed.attempts == {"a": 0, "b": 0}


# --- the memory broker ---


async def _open(transport: MemoryTransport) -> Feed:
    return await transport.open_feed(FeedRequest("t", group="g", ack_wait=30.0))


async def test_the_memory_broker_keeps_attempts_for_who_reads_next() -> None:
    async with open_one() as transport:
        Outbox(transport).send_all("abc")
        first = await _open(transport)
        deliveries = await first.receive()
        for delivery, attempts in zip(deliveries, (1, 2, 3), strict=True):
            first.note_attempts(delivery, attempts)
        first.settle(deliveries[1], Verdict.DONE)
        first.note_attempts(deliveries[2], 0)
        await first.aclose()
        second = await _open(transport)
        again = await second.receive()
    assert [(one.body, one.attempts) for one in again] == [(b"a", 1), (b"c", 0)]


async def test_what_failed_behind_a_cut_is_kept_once_the_feed_is_heard_again(
    autojump_clock: MockClock,
) -> None:
    async with open_one() as transport:
        Outbox(transport).send_all("ab")
        first = await _open(transport)
        deliveries = await first.receive()
        transport.faults.disconnect(5.0)
        first.note_attempts(deliveries[0], 1)
        await trio.sleep(10.0)
        await first.aclose()
        second = await _open(transport)
        assert [one.attempts for one in await second.receive()] == [1, 0]


async def test_what_failed_with_an_owner_that_was_not_heard_of_is_not_kept(
    autojump_clock: MockClock,
) -> None:
    async with open_one() as transport:
        Outbox(transport).send_all("a")
        first = await _open(transport)
        [delivery] = await first.receive()
        transport.faults.disconnect(100.0)
        await trio.sleep(50.0)
        first.note_attempts(delivery, 1)
        await first.aclose()
        await trio.sleep(100.0)
        second = await _open(transport)
        assert [one.attempts for one in await second.receive()] == [0]
