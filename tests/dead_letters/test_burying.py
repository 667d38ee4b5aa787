"""A dead letter is stored before its original is settled, once, and however large it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from tbus import DeadLettered, Message, Reject, Retry, Stalled, TopicOptions, open_bus
from tbus._dead_letters import DeadLetter, read_dead_letter
from tbus._transport import FeedRequest
from tbus.testing import Harness
from tbus.testing.conformance._kit import Seen, watching
from tbus.transports.memory import MemoryTransport
from tests.brokers.nats import NatsServer

from .kit import ONCE

RETRY = Retry(attempts=3, initial=1.0, factor=3.0, maximum=100.0, jitter=0.0)


async def fail(message: Message) -> None:
    raise ValueError("never\n" * 100)


async def read(transport: object, topic: str = "t.dead") -> list[DeadLetter | None]:
    """What a topic holds."""
    transport = cast("MemoryTransport", transport)
    feed = await transport.open_feed(FeedRequest(topic))
    try:
        deliveries = await feed.receive()
    finally:
        with trio.CancelScope(shield=True):
            await feed.aclose()
    return [read_dead_letter(topic, delivery) for delivery in deliveries]


async def test_a_letter_tells_when_it_failed_first_and_last(autojump_clock: MockClock) -> None:
    async with open_bus() as bus, watching(bus) as watch:
        await bus.subscribe("t", fail, group="g", retry=RETRY)
        await bus.publish("t", b"a")
        await watch.wait(DeadLettered)
        [letter] = await read(bus.transport)
    assert letter is not None
    assert letter.first_failed is not None
    assert letter.last_failed is not None
    assert (letter.last_failed - letter.first_failed).total_seconds() == pytest.approx(4, abs=1e-5)


async def test_a_letter_that_waited_for_its_topic_tells_when_the_handler_failed_last(
    autojump_clock: MockClock,
) -> None:
    async with open_bus() as bus, watching(bus) as watch:
        await bus.subscribe("t", fail, group="g", retry=RETRY)
        await bus.publish("t", b"a")
        cast("MemoryTransport", bus.transport).faults.refuse_publishes(1000.0)
        await watch.wait(DeadLettered)
        [letter] = await read(bus.transport)
    assert trio.current_time() > 1000
    assert letter is not None
    assert letter.first_failed is not None
    assert letter.last_failed is not None
    assert (letter.last_failed - letter.first_failed).total_seconds() == pytest.approx(4, abs=1e-5)


async def test_a_letter_whose_outcome_was_lost_is_stored_once(autojump_clock: MockClock) -> None:
    async with open_bus() as bus, watching(bus) as watch:
        await bus.subscribe("t", fail, group="g", retry=ONCE)
        await bus.publish("t", b"a")
        cast("MemoryTransport", bus.transport).faults.lose_outcomes(2, stored=True)
        stalled = await watch.wait(Stalled)
        await watch.wait(DeadLettered)
        letters = await read(bus.transport)
    assert "OutcomeUnknown" in stalled.reason
    assert len(letters) == 1


async def test_a_letter_that_was_stored_before_a_crash_is_not_stored_again(
    broker: Harness,
) -> None:
    topic = broker.topic()
    dead = f"{topic}.dead"
    async with broker.open_bus() as bus, watching(bus) as watch:

        async def handle(message: Message) -> None:
            # What a process that was killed before it settled the message had done.
            error = Reject("no")
            now = (trio.current_time(), trio.current_time())
            await bus._graveyard.bury(message, dead, "no", error, now)
            raise error

        await bus.subscribe(topic, handle, group="g")
        await bus.publish(topic, b"a", key="k")
        await watch.wait(DeadLettered)
        await bus.publish(dead, b"the next one")
        seen = Seen()
        await bus.subscribe(dead, seen, group="undertaker")
        await seen.wait(2)
    assert seen.bodies == [b"a", b"the next one"]


@pytest.mark.parametrize("limit", [0, 50])
async def test_the_configuration_bounds_tracebacks(limit: int, autojump_clock: MockClock) -> None:
    async with open_bus(dead_letter_traceback=limit) as bus, watching(bus) as watch:
        await bus.subscribe("t", fail, group="g", retry=ONCE)
        await bus.publish("t", b"a")
        await watch.wait(DeadLettered)
        [letter] = await read(bus.transport)
    assert letter is not None
    assert len(letter.traceback) <= limit
    assert bool(letter.traceback) is bool(limit)


@pytest.mark.parametrize(
    ("room", "has_traceback", "has_error"),
    [(3000, True, True), (2100, False, True), (700, False, False)],
)
async def test_a_letter_for_which_there_is_no_room_is_stored_with_less(
    room: int, has_traceback: bool, has_error: bool, autojump_clock: MockClock
) -> None:
    async with open_bus() as bus, watching(bus) as watch:
        await bus.configure_topic("t.dead", TopicOptions(max_bytes=room))
        await bus.subscribe("t", fail, group="g", retry=ONCE)
        await bus.publish("t", b"body", key="k", headers=[("A", "1"), ("A", "2")])
        await watch.wait(DeadLettered)
        [letter] = await read(bus.transport)
    assert letter is not None
    assert not watch.of(Stalled)
    assert (bool(letter.traceback), bool(letter.error)) == (has_traceback, has_error)
    assert (letter.body, letter.key) == (b"body", "k")
    assert letter.headers == (("A", "1"), ("A", "2"))
    assert letter.error_type == "ValueError"
    assert letter.reason.startswith("ValueError: never")


async def test_a_message_as_large_as_the_server_takes_cannot_be_dead_lettered_and_is_held(
    start_nats_server: Callable[..., NatsServer],
) -> None:
    server = start_nats_server(config="max_payload: 8192")

    async def handle(message: Message) -> None:
        if message.key == "large":
            raise Reject("x" * 5000)

    seen = Seen(handle)
    with trio.fail_after(20):
        async with open_bus(server.url, grace=0.1) as bus, watching(bus) as watch:
            await bus.subscribe("t", seen, group="g", retry=ONCE)
            # Fits with its id and key, and does not with what a letter has beyond that.
            await bus.publish("t", b"x" * 8050, key="large")
            stalled = await watch.wait(Stalled, 2)
            await bus.publish("t", b"small", key="other")
            await seen.wait(1)
            assert (await bus.lag("t", "g")).messages >= 1
            assert not watch.of(DeadLettered)
    assert "could not be stored" in stalled.reason
    assert "max_payload, 8192 bytes" in stalled.reason
    assert "bytes of headers" in stalled.reason


async def test_a_message_that_leaves_half_a_kilobyte_of_room_can_be_dead_lettered(
    start_nats_server: Callable[..., NatsServer],
) -> None:
    server = start_nats_server(config="max_payload: 8192")
    with trio.fail_after(20):
        async with open_bus(server.url) as bus, watching(bus) as watch:
            await bus.subscribe("t", fail, group="g", retry=ONCE)
            receipt = await bus.publish("t", b"x" * (8192 - 1000), key="k")
            await watch.wait(DeadLettered)
            [letter] = await read(bus.transport)
    assert letter is not None
    assert letter.position == receipt.position
    assert len(letter.body) == 8192 - 1000
    assert not letter.traceback
