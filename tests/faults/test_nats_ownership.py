"""Who reads a partition on NATS when its owner dies, stands still, or is cut off."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tbus import Message, TopicOptions, open_bus
from tbus._events import ConnectionLost, PartitionsAssigned, PartitionsRevoked
from tbus.testing.conformance._kit import Gate, Seen, publish_text, watching
from tests.brokers.harness import ask
from tests.brokers.nats import NatsServer

ROOT = Path(__file__).parents[2]


async def run_zombie(  # noqa: ASYNC114, ASYNC128
    url: str, topic: str, task_status: trio.TaskStatus[trio.Process]
) -> None:
    """Run it, and kill it at the end."""
    await trio.run_process(
        [sys.executable, "-m", "tests.faults.zombie", url, topic],
        cwd=ROOT, stdout=subprocess.PIPE, capture_stdout=False, check=False,
        deliver_cancel=kill, task_status=task_status,
    )  # fmt: skip


async def kill(process: trio.Process) -> None:
    process.kill()


class LineReader:
    """What a process says."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._text = b""

    async def wait(self, *lines: str) -> None:
        """Wait until all of these were said, in any order."""
        while not set(lines) <= set(self._text.decode().splitlines()):
            more = await self._stream.receive_some()
            assert more, f"it ended: {self._text.decode()}"
            self._text += more


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


async def test_an_idle_member_of_twelve_partitions_sends_less_than_two_messages_a_second(
    nats_server: NatsServer, topic: str
) -> None:
    """As the server counts what comes from its connection."""

    def count() -> int:
        connections = ask(nats_server, "$SYS.REQ.ACCOUNT.PING.CONNZ", {})["data"]["connections"]
        [found] = [one["in_msgs"] for one in connections if one.get("name") == "tbus"]
        assert isinstance(found, int)
        return found

    with trio.fail_after(30):
        async with open_bus(nats_server.url) as bus:
            await bus.configure_topic(topic, TopicOptions(partitions=12))
            await bus.subscribe(topic, Seen(), group="g")
            await trio.sleep(1.0)
            before, begun = count(), trio.current_time()
            await trio.sleep(4.0)
            sent, seconds = count() - before, trio.current_time() - begun
    assert 2 <= sent < 2 * seconds


async def test_nothing_of_a_group_is_left_when_its_topic_is_removed(
    nats_server: NatsServer, topic: str
) -> None:
    async with open_bus(nats_server.url) as bus:
        await bus.subscribe(topic, seen := Seen(), group="g")
        await bus.publish(topic, b"")
        await seen.wait(1)
    async with open_bus(nats_server.url) as bus:
        state = ask(nats_server, "$JS.API.STREAM.INFO.KV_tbus")["state"]
        # The lease document, and how the owner has ended; the member has gone.
        assert state["messages"] == 2, json.dumps(state)
        await bus.remove_topic(topic)
    assert ask(nats_server, "$JS.API.STREAM.INFO.KV_tbus")["state"]["messages"] == 0


async def test_who_was_suspended_is_cancelled_when_it_wakes_and_settles_nothing(
    nats_server: NatsServer, topic: str
) -> None:
    gate = Gate()
    async with trio.open_nursery() as nursery, open_bus(nats_server.url) as bus:
        process: trio.Process = await nursery.start(partial(run_zombie, nats_server.url, topic))
        assert process.stdout is not None
        said = LineReader(process.stdout)
        with trio.fail_after(40):
            await said.wait("ready")
            await bus.publish(topic, b"wait", key="a")
            await bus.publish(topic, b"stop", key="b")
            await said.wait("suspended in epoch 1")
            await bus.subscribe(topic, gate, group="g")
            await gate.wait(2)  # its partition was taken over, with what it had not settled
            process.send_signal(signal.SIGCONT)
            await said.wait("cancelled", "returned", "revoked lost")
            info = ask(nats_server, f"$JS.API.CONSUMER.INFO.{topic}.g")
            assert info["num_ack_pending"] == 2, info
            assert sorted(message.body for message in gate.inside) == [b"stop", b"wait"]
            assert {message.epoch for message in gate.inside} == {2}
            gate.open()
            process.kill()
            await process.wait()
            await process.stdout.aclose()
            nursery.cancel_scope.cancel()
