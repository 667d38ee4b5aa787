"""What one publish does, and what arrives."""

from __future__ import annotations

import attrs

from ..._envelope import Envelope
from ..._errors import ConfigurationError, InvalidTopic, PublishRefused
from ..._message import Message
from ..._topic import TopicOptions
from ..harness import Ability, Harness
from ._case import case
from ._kit import Seen, raising

EVERY_BYTE = bytes(range(256))


@attrs.frozen
class Placed:
    total: int


@case()
async def a_publish_gets_a_receipt_and_a_position(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        first = await bus.publish(topic, b"1", key="k")
        second = await bus.publish(topic, b"2", key="k")
    assert first.topic == topic
    assert not first.duplicate
    assert first.position < second.position


@case(needs=Ability.DEDUPLICATE)
async def a_repeat_with_the_same_id_is_a_duplicate_and_arrives_once(harness: Harness) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus() as bus:
        first = await bus.publish(topic, b"1", id="one")
        again = await bus.publish(topic, b"1", id="one")
        await bus.publish(topic, b"2", id="two")
        await bus.subscribe(topic, seen, group="g", order="partition")
        await seen.wait(2)
    assert again.duplicate
    assert again.position == first.position
    assert seen.text == "12"


@case()
async def a_repeated_envelope_is_known_by_its_event_id(harness: Harness) -> None:
    topic = harness.topic()
    event = Envelope.new("order-1", "OrderPlaced", {})
    seen = Seen()
    async with harness.open_bus() as bus:
        await bus.publish(topic, event)
        again = await bus.publish(topic, event)
        await bus.subscribe(topic, seen, group="g")
        [message, *_] = await seen.wait(1)
    assert message.envelope.event_id == event.event_id
    assert again.duplicate or Ability.DEDUPLICATE not in harness.abilities


@case()
async def a_handler_sees_the_key_and_the_headers_in_order_and_every_byte(harness: Harness) -> None:
    topic = harness.topic()
    headers = [("B", "2"), ("A", "1"), ("B", "3"), ("b", "äöü 漢字"), ("Empty", "")]
    seen = Seen()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g", order="partition")
        await bus.publish(topic, EVERY_BYTE, key="the key äöü", headers=headers)
        await bus.publish(topic, b"")
        plain, empty = await seen.wait(2)
    assert plain.key == "the key äöü"
    assert [pair for pair in plain.headers if not pair[0].startswith("Nats-")] == headers
    assert plain.body == EVERY_BYTE
    assert plain.attempt == 1
    assert plain.topic == topic
    assert plain.group == "g"
    assert (empty.body, empty.key) == (b"", None)
    assert plain.position < empty.position
    assert plain.timestamp <= empty.timestamp


@case()
async def an_envelope_arrives_with_its_aggregate_as_key_and_its_payload_decoded(
    harness: Harness,
) -> None:
    topic = harness.topic()
    event = Envelope.new("order-1", "OrderPlaced", Placed(42), tenant_id=7)
    seen = Seen()
    got: list[Placed] = []

    async def handle(placed: Placed, message: Message) -> None:
        got.append(placed)
        await seen(message)

    async with harness.open_bus() as bus:
        await bus.subscribe(topic, handle, group="g", decode=Placed)
        await bus.publish(topic, event)
        [message] = await seen.wait(1)
    assert got == [Placed(42)]
    assert message.key == "order-1"
    assert message.envelope == event


@case()
async def what_no_broker_would_take_is_refused_before_anything_is_sent(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        with raising(InvalidTopic, "position"):
            await bus.publish("a topic", b"")
        with raising(ConfigurationError, "line break"):
            await bus.publish(topic, b"", headers=[("A", "1\r\nB: 2")])
        with raising(ConfigurationError, "headers"):
            await bus.publish(topic, b"", headers=[("A:", "1")])
        with raising(ConfigurationError, "str"):
            await bus.publish(topic, "text")  # type: ignore[arg-type]  # to be refused
        with raising(ConfigurationError, "timeout"):
            await bus.publish(topic, b"", timeout=0)
        with raising(ConfigurationError, "aggregate_id"):
            await bus.publish(topic, Envelope.new("a", "E", {}), key="b")
        assert topic not in await bus.list_topics()


@case(needs=Ability.FILL)
async def a_full_topic_refuses_and_drops_nothing(harness: Harness) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus() as bus:
        await bus.configure_topic(topic, TopicOptions(max_messages=2))
        await bus.publish(topic, b"1")
        await bus.publish(topic, b"2")
        with raising(PublishRefused, topic):
            await bus.publish(topic, b"3")
        await bus.subscribe(topic, seen, group="g", order="partition")
        await seen.wait(2)
    assert seen.text == "12"
