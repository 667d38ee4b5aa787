"""What only a nats-server can suffer."""

from __future__ import annotations

import json
import socket

import pytest
import trio

from tbus import TopicOptions, open_bus
from tbus._errors import OutcomeUnknown, TransportLost
from tbus._events import (
    Connected,
    ConnectionLost,
    FeedReset,
    PartitionsAssigned,
    PartitionsRevoked,
    TopicMade,
)
from tbus.testing import take_census
from tbus.testing.conformance._kit import Gate, Seen, publish_text, watching
from tests.brokers.harness import ask
from tests.brokers.nats import NatsServer
from tests.brokers.proxy import Direction


async def test_a_topic_kept_in_memory_is_made_again_after_a_restart(nats_server, topic):
    seen = Seen()
    with trio.fail_after(20):
        async with (
            open_bus(nats_server.url, nats={"storage": "memory"}) as bus,
            watching(bus) as watch,
        ):
            await bus.subscribe(topic, seen, group="g")
            await publish_text(bus, topic, "abc")
            await seen.wait(3)
            nats_server.restart()
            await publish_text(bus, topic, "def")
            await seen.wait(6)
            again = [made for made in watch.of(TopicMade) if made.again]
    assert seen.text == "abcdef"
    assert [made.topic for made in again] == [topic]


async def test_a_topic_kept_in_memory_is_made_again_as_it_was_configured(nats_server, topic):
    with trio.fail_after(20):
        async with open_bus(nats_server.url) as bus:
            wanted = TopicOptions(storage="memory", max_messages=7, description="seven")
            made = await bus.configure_topic(topic, wanted)
            nats_server.restart()
            assert await bus.get_topic(topic) is None
            await bus.publish(topic, b"a")
            assert await bus.get_topic(topic) == made


async def test_a_subscription_to_a_topic_in_memory_is_made_again_with_nobody_publishing(
    nats_server, topic
):
    seen = Seen()
    with trio.fail_after(20):
        async with (
            open_bus(nats_server.url, nats={"storage": "memory"}) as bus,
            open_bus(nats_server.url, nats={"storage": "memory"}) as other,
            watching(bus) as watch,
        ):
            await bus.subscribe(topic, seen, group="g")
            nats_server.restart()
            await watch.wait(Connected)
            await watch.wait(FeedReset)
            await other.publish(topic, b"a", key="k")
            await seen.wait(1)
    assert seen.text == "a"


async def test_messages_in_hand_when_the_server_is_killed_are_settled_with_the_next_one(
    nats_server, topic
):
    gate = Gate()
    seen = Seen()

    async def handle(message):
        await gate(message)
        await seen(message)

    with trio.fail_after(20):
        async with open_bus(nats_server.url) as bus, watching(bus) as watch:
            await bus.subscribe(topic, handle, group="g")
            await publish_text(bus, topic, "abc", key="one")
            await publish_text(bus, topic, "123", key="two")
            await gate.wait(2)
            nats_server.kill()
            nats_server.start()
            await watch.wait(FeedReset)
            gate.open()
            await seen.wait(6)
            while (await bus.lag(topic, "g")).messages:
                pass
    assert seen.by_key() == {"one": "abc", "two": "123"}


async def test_a_bus_tells_that_it_lost_the_server_and_that_it_is_back(nats_server):
    with trio.fail_after(20):
        async with open_bus(nats_server.url) as bus, watching(bus) as watch:
            assert bus.health().state == "connected"
            nats_server.kill()
            lost = await watch.wait(ConnectionLost)
            assert bus.health().state == "disconnected"
            nats_server.start()
            back = await watch.wait(Connected)
            assert bus.health().state == "connected"
    assert lost.address == back.address == f"127.0.0.1:{nats_server.port}"
    assert back.attempts >= 1


async def test_a_silent_server_is_named_within_the_connect_timeout(nats_server):
    nats_server.suspend()
    before = take_census()
    started = trio.current_time()
    with pytest.raises(TransportLost, match=rf"127\.0\.0\.1:{nats_server.port}.*1\.0 s"):
        async with open_bus(nats_server.url, nats={"connect_timeout": 1.0}):
            pass
    left = take_census().beyond(before)
    assert trio.current_time() - started < 2.0
    assert not left
    nats_server.resume()


async def test_a_port_where_nobody_listens_is_named_with_the_reason(nats_server):
    nats_server.kill()
    with (
        trio.fail_after(5),
        pytest.raises(TransportLost, match=rf"127\.0\.0\.1:{nats_server.port}: nothing listens"),
    ):
        async with open_bus(nats_server.url):
            pass
    nats_server.start()


async def test_what_was_pulled_and_did_not_arrive_comes_in_its_place(
    nats_server, open_tcp_proxy, topic
):
    seen = Seen()
    proxy = await open_tcp_proxy(nats_server.port)
    text = "".join(chr(ord("a") + number % 26) for number in range(200))
    with trio.fail_after(20):
        async with open_bus(nats_server.url) as publisher, open_bus(proxy.url) as bus:
            await bus.subscribe(topic, seen, group="g")
            for part in range(4):
                proxy.cut_after(1500, Direction.TO_CLIENT)
                await publish_text(publisher, topic, text[part * 50 : part * 50 + 50])
                await seen.wait(part * 50 + 50)
    assert seen.text == text
    assert proxy.connections_made >= 3


@pytest.mark.slow
async def test_a_hundred_thousand_messages_on_one_subscription_delay_another_by_less_than_a_second(
    nats_server,
):
    waited = []
    handled = 0
    arrived = trio.Event()

    async def count(message):
        nonlocal handled
        handled += 1

    async def arrive(message):
        arrived.set()

    with trio.fail_after(50):
        async with open_bus(nats_server.url) as bus:
            async with bus.open_publisher(max_in_flight=5000) as publisher:
                for _ in range(100_000):
                    await publisher.send("flooded", b"drop")
            await bus.subscribe("quiet", arrive, group="g")
            await bus.subscribe("flooded", count, group="g")
            while handled < 100_000:
                arrived = trio.Event()
                before = trio.current_time()
                await bus.publish("quiet", b"me", timeout=30)
                await arrived.wait()
                waited.append(trio.current_time() - before)
                await trio.sleep(0.01)
    assert len(waited) > 10
    assert max(waited) < 1.0


async def test_what_is_completed_after_its_lease_ran_out_is_not_repeated_by_the_same_process(
    nats_server, open_tcp_proxy, topic
):
    gate, seen = Gate(), Seen()
    proxy = await open_tcp_proxy(nats_server.port)

    async def handle(message):
        with trio.CancelScope(shield=True):
            await gate(message)
            await seen(message)

    with trio.fail_after(20):
        async with (
            open_bus(proxy.url) as bus,
            open_bus(nats_server.url) as other,
            watching(bus) as watch,
        ):
            await bus.subscribe(topic, handle, group="g")
            await publish_text(other, topic, "abc")
            await gate.wait(1)
            proxy.hold()
            await watch.wait(PartitionsRevoked)
            gate.open()
            await seen.wait(1)
            proxy.release()
            proxy.cut()
            await seen.wait(3)
            epochs = [event.epoch for event in watch.of(PartitionsAssigned)]
    assert seen.text == "abc"
    assert len(epochs) == 2


async def test_what_the_group_has_acknowledged_is_not_called_lost(nats_server, topic):
    """The server may still be taking acknowledgements in when it is set back, and then begins
    behind the floor that it has told. Here another program acknowledges in between."""
    gate, seen = Gate(), Seen()

    async def handle(message):
        await gate(message)
        await seen(message)

    with trio.fail_after(20):
        async with open_bus(nats_server.url) as bus:
            await bus.subscribe(topic, handle, group="g", max_in_flight=1)
            await publish_text(bus, topic, "abcd")
            await gate.wait(1)
            config = ask(nats_server, f"$JS.API.CONSUMER.INFO.{topic}.g")["config"]
            body = {"stream_name": topic, "config": {**config, "max_ack_pending": 2}}
            assert "error" not in ask(nats_server, f"$JS.API.CONSUMER.CREATE.{topic}.g", body)
            acknowledge_next(nats_server, f"{topic}.g", config["priority_groups"][0])
            gate.open()
            await seen.wait(3)
    assert seen.text == "acd"


def acknowledge_next(server: NatsServer, consumer: str, group: str) -> None:
    """Pull one message as another program would, and acknowledge it."""
    body = json.dumps({"batch": 1, "group": group}).encode()
    with socket.create_connection(("127.0.0.1", server.port), 5.0) as connection:
        connection.sendall(
            b'CONNECT {"verbose":false,"headers":true}\r\nSUB answer 1\r\n'
            + f"PUB $JS.API.CONSUMER.MSG.NEXT.{consumer} answer {len(body)}\r\n".encode()
            + body
            + b"\r\n"
        )
        lines = connection.makefile("rb")
        while not (line := lines.readline()).startswith((b"MSG ", b"HMSG ")):
            pass
        reply = line.split(b" ")[3]
        connection.sendall(b"PUB %b 4\r\n+ACK\r\nPING\r\n" % reply)
        while not lines.readline().startswith(b"PONG"):
            pass


@pytest.mark.parametrize("answer", [b"not json", b"", b"{}", b'{"seq": 0}', b"[]", b"\xff"])
async def test_what_somebody_else_answers_to_a_publish_is_no_receipt_and_does_no_harm(
    nats_server, topic, answer
):
    async with open_bus(nats_server.url) as bus, trio.open_nursery() as nursery:
        await bus.configure_topic(topic)
        # A stream that never answers, so that the only answer is the other one's.
        config = ask(nats_server, f"$JS.API.STREAM.INFO.{topic}")["config"]
        body = {**config, "no_ack": True}
        assert "error" not in ask(nats_server, f"$JS.API.STREAM.UPDATE.{topic}", body)
        listens = trio.Event()
        nursery.start_soon(answer_all, nats_server.port, topic, answer, listens)
        await listens.wait()
        with trio.fail_after(10):
            with pytest.raises(OutcomeUnknown):
                await bus.publish(topic, b"a", timeout=0.5)
            receipt = await bus.publish(f"{topic}-beside", b"b", timeout=5)
        assert receipt.position.offset == 1
        nursery.cancel_scope.cancel()


async def answer_all(port: int, subject: str, answer: bytes, listens: trio.Event) -> None:
    """Answer everything that is published to a subject."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(
            b'CONNECT {"verbose":false,"headers":true}\r\nSUB %b 1\r\nPING\r\n' % subject.encode()
        )
        seen = b""
        while b"PONG" not in seen:
            seen += await stream.receive_some()
        listens.set()
        while True:
            for line in (await stream.receive_some()).split(b"\r\n"):
                if line.startswith(b"HMSG"):
                    reply = line.split()[3]
                    await stream.send_all(b"PUB %b %d\r\n%b\r\n" % (reply, len(answer), answer))
