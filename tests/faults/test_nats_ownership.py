"""Who reads a partition on NATS when its owner dies, stands still, or is cut off."""

from __future__ import annotations

import json
from typing import Any

import trio

from tbus import Message, TopicOptions, open_bus
from tbus._events import ConnectionLost, PartitionsAssigned, PartitionsRevoked
from tbus.testing.conformance._kit import Gate, Seen, publish_text, watching
from tests.brokers.harness import ask
from tests.brokers.nats import NatsServer


async def test_an_owner_that_is_cut_off_gives_up_before_another_one_begins(
    nats_server: NatsServer, open_tcp_proxy: Any, topic: str
) -> None:
    """And its handler is cancelled, which is no failed attempt."""
    gate, seen = Gate(), Seen()
    proxy = await open_tcp_proxy(nats_server.port)
    with trio.fail_after(30):
        async with (
            open_bus(proxy.url) as cut,
            open_bus(nats_server.url) as other,
            watching(cut) as watch,
            watching(other) as others,
        ):
            await cut.subscribe(topic, gate, group="g")
            await publish_text(other, topic, "ab")
            await gate.wait(1)
            first = watch.of(PartitionsAssigned)[0]
            proxy.hold()
            begun = trio.current_time()
            await other.subscribe(topic, seen, group="g")
            revoked = await watch.wait(PartitionsRevoked)
            assert not seen.messages
            assert not gate.inside
            second = await others.wait(PartitionsAssigned)
            taken = trio.current_time() - begun
            await seen.wait(2)
            proxy.release()
            proxy.cut()
            await watch.wait(ConnectionLost)
    assert revoked.lost
    assert second.epoch > first.epoch
    assert [message.attempt for message in seen.messages] == [1, 1]
    assert {message.epoch for message in seen.messages} == {second.epoch}
    assert seen.text == "ab"
    assert 2.0 < taken < 3.5


async def test_what_was_settled_out_of_order_before_an_owner_was_lost_is_not_repeated(
    nats_server: NatsServer, open_tcp_proxy: Any, topic: str
) -> None:
    gate, done, again = Gate(), Seen(), Seen()
    proxy = await open_tcp_proxy(nats_server.port)

    async def handle(message: Message) -> None:
        if message.key == "stuck":
            await gate(message)
        else:
            await done(message)

    with trio.fail_after(30):
        async with open_bus(proxy.url, grace=0) as cut, open_bus(nats_server.url) as other:
            await cut.subscribe(topic, handle, group="g")
            await other.publish(topic, b"1", key="stuck")
            await publish_text(other, topic, "abc")
            await done.wait(3)
            await trio.sleep(1.5)  # a heartbeat carries the mark
            proxy.hold()
            await other.subscribe(topic, again, group="g")
            await again.wait(1)
            await publish_text(other, topic, "d")
            await again.wait(2)
            proxy.release()
            proxy.cut()
    assert again.text == "1d"


async def test_an_owner_whose_consumer_was_claimed_by_another_epoch_takes_it_again(
    nats_server: NatsServer, topic: str
) -> None:
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(nats_server.url) as bus, watching(bus) as watch:
            await bus.subscribe(topic, seen, group="g")
            await publish_text(bus, topic, "ab")
            await seen.wait(2)
            info = ask(nats_server, f"$JS.API.CONSUMER.INFO.{topic}.g")
            config = {**info["config"], "priority_groups": ["e99"]}
            body = {"stream_name": topic, "config": config}
            assert "error" not in ask(nats_server, f"$JS.API.CONSUMER.CREATE.{topic}.g", body)
            nats_server.restart()  # the pull that was waiting is gone: it is asked anew
            await publish_text(bus, topic, "cd")
            await seen.wait(4)
            epochs = [event.epoch for event in watch.of(PartitionsAssigned)]
    assert seen.text == "abcd"
    assert epochs == sorted(set(epochs))
    assert len(epochs) >= 2


async def test_the_lease_of_an_idle_member_costs_less_than_two_messages_a_second(
    nats_server: NatsServer, open_tcp_proxy: Any, topic: str
) -> None:
    """Asked of the bucket's stream: what the member has stored there."""
    with trio.fail_after(30):
        async with open_bus(nats_server.url) as bus:
            await bus.configure_topic(topic, TopicOptions(partitions=12))
            await bus.subscribe(topic, Seen(), group="g")
            await trio.sleep(1.0)
            before = ask(nats_server, "$JS.API.STREAM.INFO.KV_tbus")["state"]["last_seq"]
            await trio.sleep(4.0)
            after = ask(nats_server, "$JS.API.STREAM.INFO.KV_tbus")["state"]["last_seq"]
    # Each is one question and one answer; one more than every second may fall into four.
    assert 2 <= after - before <= 4


async def test_nothing_of_a_group_is_left_when_its_topic_is_removed(
    nats_server: NatsServer, topic: str
) -> None:
    async with open_bus(nats_server.url) as bus:
        await bus.subscribe(topic, Seen(), group="g")
        await bus.publish(topic, b"")
    async with open_bus(nats_server.url) as bus:
        state = ask(nats_server, "$JS.API.STREAM.INFO.KV_tbus")["state"]
        assert state["messages"] == 1, json.dumps(state)  # the lease document; the member has gone
        await bus.remove_topic(topic)
    assert ask(nats_server, "$JS.API.STREAM.INFO.KV_tbus")["state"]["messages"] == 0
