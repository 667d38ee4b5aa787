"""Where a topic ends now, as every transport tells it."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tbus import TopicOptions, open_bus
from tbus.testing import Harness
from tests.brokers.harness import ask
from tests.brokers.nats import NatsServer


async def test_a_topic_that_does_not_exist_has_none_and_is_not_made(broker: Harness) -> None:
    topic = broker.topic()
    async with broker.open_bus() as bus:
        assert await bus.transport.last_positions(topic) == {}
        assert await bus.get_topic(topic) is None


async def test_a_topic_that_holds_nothing_has_none(broker: Harness) -> None:
    topic = broker.topic()
    async with broker.open_bus() as bus:
        await bus.configure_topic(topic)
        assert await bus.transport.last_positions(topic) == {}


async def test_the_last_message_is_told(broker: Harness) -> None:
    topic = broker.topic()
    async with broker.open_bus() as bus:
        _, _, last = [await bus.publish(topic, b"") for _ in range(3)]
        position = last.position
        assert await bus.transport.last_positions(topic) == {position.partition: position.offset}


async def test_only_partitions_that_hold_something_are_told(autojump_clock: MockClock) -> None:
    async with open_bus() as bus:
        await bus.configure_topic("t", TopicOptions(partitions=4))
        receipts = [await bus.publish("t", b"", key="k") for _ in range(2)]
        partition = receipts[0].position.partition
        assert await bus.transport.last_positions("t") == {partition: 2}


async def test_what_retention_took_does_not_count(mock_clock: MockClock) -> None:
    async with open_bus() as bus:
        await bus.configure_topic("t", TopicOptions(retention_time=10.0))
        await bus.publish("t", b"")
        mock_clock.jump(5)
        assert await bus.transport.last_positions("t") == {0: 1}
        mock_clock.jump(6)
        assert await bus.transport.last_positions("t") == {}


@pytest.mark.broker
async def test_a_last_message_that_was_removed_by_itself_does_not_count(
    shared_nats_server: NatsServer, topic: str
) -> None:
    async with open_bus(shared_nats_server.url) as bus:
        for _ in range(3):
            await bus.publish(topic, b"")
        assert ask(shared_nats_server, f"$JS.API.STREAM.MSG.DELETE.{topic}", {"seq": 3})["success"]
        assert await bus.transport.last_positions(topic) == {0: 2}
