"""Kafka brokers and members that go away and come back, under traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
import trio
from aiokafka.admin import AIOKafkaAdminClient

from tbus import (
    ConfigurationError,
    Connected,
    ConnectionLost,
    KafkaOptions,
    Message,
    PublishRefused,
    TopicOptions,
    TransportLost,
    open_bus,
)
from tbus._events import PartitionsRevoked
from tbus.testing.conformance._kit import Gate, Seen, publish_text, watching
from tbus.testing.harness import unique_name
from tbus.transports.kafka import _link
from tbus.transports.kafka._topics import Topics
from tests.brokers.kafka import KafkaCluster
from tests.brokers.kafka_fixtures import KafkaBroker
from tests.faults.kafka_kit import Traffic

QUICK = {"session_timeout": 2.0, "rebalance_timeout": 5.0, "drain": 2.0}


async def run_through(cluster: KafkaCluster, *faults: str, node: int = 1) -> Traffic:
    topic, group = unique_name("topic"), unique_name("group")
    traffic = Traffic()
    nodes = cluster.bootstrap.count(",") + 1
    async with open_bus(f"kafka://{cluster.bootstrap}", kafka=QUICK) as bus:
        await bus.configure_topic(topic, TopicOptions(partitions=3, replicas=nodes))
        await bus.subscribe(topic, traffic.handle, group=group)
        async with trio.open_nursery() as nursery:
            for key in "abcde":
                nursery.start_soon(traffic.publish, bus, topic, key)
            for fault in faults:
                await traffic.wait(100)
                for deed in fault.split():
                    if deed == "start":
                        await cluster.start_meanwhile(node)
                    else:
                        await trio.to_thread.run_sync(getattr(cluster, deed), node)
            await traffic.wait(100)
            traffic.stop()
        await traffic.wait_all()
    traffic.check()
    return traffic


async def test_the_only_broker_is_killed_and_comes_back(kafka_node: KafkaCluster) -> None:
    with trio.fail_after(60):
        await run_through(kafka_node, "kill start")


@pytest.mark.slow
@pytest.mark.timeout(100)
async def test_one_of_three_brokers_is_killed_under_traffic(kafka_cluster: KafkaCluster) -> None:
    with trio.fail_after(90):
        await run_through(kafka_cluster, "kill", "start", node=2)


@pytest.mark.slow
@pytest.mark.timeout(100)
async def test_one_of_three_brokers_stands_still_under_traffic(kafka_cluster: KafkaCluster) -> None:
    with trio.fail_after(90):
        await run_through(kafka_cluster, "pause", "resume", node=3)


@pytest.mark.slow
async def test_a_group_goes_on_where_it_stood_when_a_broker_that_does_not_know_is_asked(
    kafka_cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is no coordinator any more, or not yet: to aiokafka its refusal reads as if the
    group had committed nothing."""
    topic, group = unique_name("topic"), unique_name("group")
    url = f"kafka://{kafka_cluster.bootstrap}"
    seen, again = Seen(), Seen()
    ask = AIOKafkaAdminClient.list_consumer_group_offsets
    asked = 0

    async def ask_a_wrong_one(
        admin: AIOKafkaAdminClient, group: str, node: int | None = None, partitions: Any = None
    ) -> Any:
        nonlocal asked
        asked += 1
        if asked % 3:
            node = await admin.find_coordinator(group) % 3 + 1
        return await ask(admin, group, node, partitions)

    with trio.fail_after(40):
        async with open_bus(url) as bus:
            await bus.subscribe(topic, seen, group=group)
            await publish_text(bus, topic, "abc")
            await seen.wait(3)
        monkeypatch.setattr(AIOKafkaAdminClient, "list_consumer_group_offsets", ask_a_wrong_one)
        async with open_bus(url) as bus:
            await publish_text(bus, topic, "def")
            assert (await bus.lag(topic, group)).messages == 3
            await bus.subscribe(topic, again, group=group, start="latest")
            await again.wait(3)
    assert again.text == "def"


@pytest.mark.slow
async def test_a_broker_that_has_not_heard_of_a_topic_does_not_make_it_removed(
    kafka_cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stood still answers before it has caught up with what happened meanwhile."""
    topic = unique_name("topic")
    seen = Seen()
    ask = Topics._ask_node
    asked = 0

    async def ask_one_that_was_away(topics: Topics, node: int, names: Sequence[str]) -> Any:
        nonlocal asked
        if node != 1:
            return await ask(topics, node, names)
        asked += 1
        unheard = {f"{name}-unheard": name for name in names}
        answer = await ask(topics, node, list(unheard))
        return [{**entry, "topic": unheard[entry["topic"]]} for entry in answer]

    with trio.fail_after(40):
        async with open_bus(f"kafka://{kafka_cluster.bootstrap}") as bus:
            subscription = await bus.subscribe(topic, seen, group=topic)
            monkeypatch.setattr(_link, "LIVENESS_EVERY", 0.01)
            monkeypatch.setattr(Topics, "_ask_node", ask_one_that_was_away)
            while asked < 6:
                assert await bus.get_topic(topic) is not None
            await publish_text(bus, topic, "a")
            await seen.wait(1)
            await subscription.close()
            assert await bus.remove_topic(topic)
            assert await bus.get_topic(topic) is None


async def test_a_bus_tells_that_the_cluster_is_lost_and_back(kafka_node: KafkaCluster) -> None:
    with trio.fail_after(40):
        async with open_bus(f"kafka://{kafka_node.bootstrap}") as bus, watching(bus) as watch:
            kafka_node.kill()
            await watch.wait(ConnectionLost)
            assert bus.health().state != "connected"
            await kafka_node.start_meanwhile()
            await watch.wait(Connected)
            assert bus.health().state == "connected"


async def test_what_was_settled_out_of_order_is_not_repeated_after_a_restart(
    shared_kafka: KafkaBroker,
) -> None:
    topic, group = unique_name("topic"), unique_name("group")
    url = f"kafka://{shared_kafka.bootstrap}"
    gate, seen, again = Gate(), Seen(), Seen()

    async def first(message: Message) -> None:
        if message.key == "slow":
            await gate(message)
        await seen(message)

    with trio.fail_after(40):
        async with open_bus(url, grace=0.1) as bus:
            await bus.subscribe(topic, first, group=group)
            await publish_text(bus, topic, "x", key="slow")
            await publish_text(bus, topic, "abcdef", key="fast")
            await gate.wait(1)
            await seen.wait(6)
        async with open_bus(url) as bus:
            assert (await bus.lag(topic, group)).messages == 1
            await bus.subscribe(topic, again, group=group)
            await bus.publish(topic, b"g", key="fast")
            await again.wait(2)
    assert sorted(again.text) == ["g", "x"]


async def test_two_members_keep_the_order_of_keys_while_one_of_them_leaves(
    shared_kafka: KafkaBroker,
) -> None:
    topic, group = unique_name("topic"), unique_name("group")
    url = f"kafka://{shared_kafka.bootstrap}"
    traffic = Traffic()
    with trio.fail_after(60):
        async with open_bus(url, kafka=QUICK) as one, watching(one) as watch:
            await one.configure_topic(topic, TopicOptions(partitions=4))
            await one.subscribe(topic, traffic.handle, group=group)
            async with trio.open_nursery() as nursery:
                for key in "abcdefgh":
                    nursery.start_soon(traffic.publish, one, topic, key)
                for _ in range(2):
                    async with open_bus(url, kafka=QUICK) as two:
                        await two.subscribe(topic, traffic.handle, group=group)
                        await traffic.wait(200)
                    await traffic.wait(200)
                traffic.stop()
            await traffic.wait_all()
            assert watch.of(PartitionsRevoked)
    traffic.check()
    assert traffic.repeats == 0


async def test_an_event_that_is_too_large_costs_no_other_event(shared_kafka: KafkaBroker) -> None:
    topic = unique_name("topic")
    outcomes: list[object] = []
    with trio.fail_after(30):
        async with open_bus(f"kafka://{shared_kafka.bootstrap}") as bus:

            async def publish(size: int) -> None:
                try:
                    outcomes.append(await bus.publish(topic, b"x" * size))
                except PublishRefused as error:
                    outcomes.append(error)

            await bus.publish(topic, b"first")
            async with anyio.create_task_group() as tasks:
                for size in (10, 20, 1_500_000, 30, 40):
                    tasks.start_soon(publish, size)
            await bus.publish(topic, b"last")
            assert await bus.transport.last_positions(topic) == {0: 5}
    assert sum(isinstance(one, PublishRefused) for one in outcomes) == 1


async def test_nobody_there_is_told_within_the_connect_timeout() -> None:
    with trio.fail_after(5):
        with pytest.raises(TransportLost, match=r"127\.0\.0\.1:1 within 1\.0 s"):
            async with open_bus("kafka://127.0.0.1:1", kafka={"connect_timeout": 1.0}):
                raise AssertionError("it opened")


async def test_a_silent_peer_is_told_within_the_connect_timeout() -> None:
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener[0].socket.getsockname()[1]
    with trio.fail_after(5):
        with pytest.raises(TransportLost, match=f"127.0.0.1:{port} within 0.5 s"):
            async with open_bus(f"kafka://127.0.0.1:{port}", kafka={"connect_timeout": 0.5}):
                raise AssertionError("it opened")
    await listener[0].aclose()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"request_timeout": 5.0}, "request_timeout"),
        ({"request_timeout": 2.0, "rebalance_timeout": 1.0, "drain": 0.5}, "request_timeout"),
        ({"drain": 10.0}, "drain"),
    ],
)
def test_times_with_which_a_group_would_never_join_are_refused(
    options: dict[str, float], field: str
) -> None:
    with pytest.raises(ConfigurationError, match=field):
        KafkaOptions(**options)  # type: ignore[arg-type]
