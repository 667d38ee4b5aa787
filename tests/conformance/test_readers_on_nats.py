"""On NATS, one process reads for a group with order, and any number without."""

from __future__ import annotations

import pytest
import trio

from tbus import Message, SubscriptionFailed, open_bus
from tests.brokers.nats import NatsServer


async def ignore(message: Message) -> None:
    """Handle nothing."""


async def test_a_second_reader_of_a_group_is_refused_until_the_first_has_ended(
    shared_nats_server: NatsServer, topic: str
) -> None:
    async with open_bus(shared_nats_server.url) as first:
        await first.subscribe(topic, ignore, group="g")
        async with open_bus(shared_nats_server.url) as second:
            with pytest.raises(SubscriptionFailed, match=r"'g'.*another process.*order='none'"):
                await second.subscribe(topic, ignore, group="g")
            await second.subscribe(topic, ignore, group="another")
    async with open_bus(shared_nats_server.url) as second:
        await second.subscribe(topic, ignore, group="g")


async def test_readers_without_order_share_the_messages(
    shared_nats_server: NatsServer, topic: str
) -> None:
    seen: list[bytes] = []
    done = trio.Event()

    async def handle(message: Message) -> None:
        seen.append(message.body)
        if len(seen) == 100:
            done.set()

    async with (
        open_bus(shared_nats_server.url) as first,
        open_bus(shared_nats_server.url) as second,
    ):
        for bus in (first, second):
            await bus.subscribe(topic, handle, group="g", order="none", max_in_flight=10)
        for number in range(100):
            await first.publish(topic, b"%d" % number)
        with trio.fail_after(20):
            await done.wait()
    assert sorted(seen) == sorted(b"%d" % number for number in range(100))
