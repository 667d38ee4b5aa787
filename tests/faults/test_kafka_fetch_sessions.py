"""Sessions of fetches on real brokers: whatever becomes of them, all arrives, in order and once."""

from __future__ import annotations

import pytest
import trio
from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.fetch import FetchRequest_v11

from tbus import TopicOptions, open_bus
from tbus._errors import BusError, MessagesLost
from tbus.testing.conformance._kit import Gate, Seen, publish_pairs, raising
from tbus.transports.kafka._fetch_sessions import BEGIN, LAST, Asked, FetchSession, Topics
from tests.brokers.kafka import KafkaCluster
from tests.faults.kafka_kit import Traffic, delete_before, in_asyncio, member_of

QUICK = {"session_timeout": 3.0, "rebalance_timeout": 4.0, "drain": 1.0}
WRONG_EPOCH = 71
LETTERS = "abcdefghijklmnopqrst"


class Asking:
    """What every fetch of this process said."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    async def wait_idle(self, others: int | None = None) -> int:
        """Return a session's number when, from now on, a fetch in it has named nothing.

        Args:
            others: a session that it shall not be.
        """
        begun = len(self.asked)
        while True:
            for one in self.asked[begun:]:
                if one.epoch > BEGIN and not one.named and one.session != others:
                    return one.session
            await trio.sleep(0.01)


@pytest.fixture
def asking(monkeypatch):
    said = Asking()
    ask = FetchSession.ask

    def note(session: FetchSession, topics: Topics) -> Asked:
        asked = ask(session, topics)
        said.asked.append(asked)
        return asked

    monkeypatch.setattr(FetchSession, "ask", note)
    return said


async def knows_session(bootstrap: str, session: int) -> bool:
    """Whether a broker keeps a session, which it says by what it finds wrong with a fetch."""

    class Look:
        def prepare(self, _versions: object) -> FetchRequest_v11:
            return FetchRequest_v11(-1, 1, 0, 1, 0, session, LAST, [], [], "")

    async def ask() -> bool:
        async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
            client = consumer._client
            answers = [
                await client.send(broker.nodeId, Look()) for broker in client.cluster.brokers()
            ]
            return any(answer.error_code == WRONG_EPOCH for answer in answers)

    return await in_asyncio(ask)


async def end_session(bootstrap: str, session: int) -> None:
    """As a broker does that has no room for it any more, for which it may take two minutes."""

    class End:
        def prepare(self, _versions: object) -> FetchRequest_v11:
            return FetchRequest_v11(-1, 1, 0, 1, 0, session, -1, [], [], "")

    async def tell() -> None:
        async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
            client = consumer._client
            for broker in client.cluster.brokers():
                await client.send(broker.nodeId, End())

    await in_asyncio(tell)


async def check(bus, topics, seen):
    """What is published now arrives, of each topic once and in order."""
    before = len(seen.messages)
    for letter in LETTERS:
        for one in topics:
            await bus.publish(one, letter.encode(), key=one)
    await seen.wait(before + len(LETTERS) * len(topics))
    for one in topics:
        new = [m.body.decode() for m in seen.messages[before:] if m.topic == one]
        assert "".join(new) == LETTERS, one


def kafka(broker: KafkaCluster) -> str:
    return f"kafka://{broker.bootstrap}"


async def test_what_is_idle_is_not_named_not_even_while_something_else_is_busy(
    shared_kafka, topic, asking
):
    topics = [f"{topic}-{number}" for number in range(5)]
    seen = Seen()
    with trio.fail_after(30):
        async with open_bus(kafka(shared_kafka), topics=topics) as bus:
            for one in topics:
                await bus.subscribe(one, seen, group=topic)
            await asking.wait_idle()
            begun = len(asking.asked)
            await check(bus, topics[:1], seen)
            await asking.wait_idle()
            later = asking.asked[begun:]
            assert all(one.epoch > BEGIN for one in later)
            assert {name for one in later for name, _ in one.named} == set(topics[:1])
            await check(bus, topics, seen)


async def test_a_broker_that_has_forgotten_a_session_is_told_everything(
    shared_kafka, topic, asking
):
    topics = [f"{topic}-{number}" for number in range(3)]
    seen = Seen()
    with trio.fail_after(30):
        async with open_bus(kafka(shared_kafka), topics=topics) as bus:
            for one in topics:
                await bus.subscribe(one, seen, group=topic)
            session = None
            for _ in range(3):
                session = await asking.wait_idle(session)
                await check(bus, topics[1:], seen)
                await end_session(shared_kafka.bootstrap, session)
                await check(bus, topics, seen)


@pytest.mark.parametrize("group", ["readers", None])
@pytest.mark.parametrize("closed", ["subscription", "bus"])
async def test_a_broker_keeps_no_session_of_who_has_closed(
    shared_kafka, topic, asking, group, closed
):
    with trio.fail_after(30):
        async with open_bus(kafka(shared_kafka)) as bus:
            subscription = await bus.subscribe(topic, Seen(), group=group)
            session = await asking.wait_idle()
            assert await knows_session(shared_kafka.bootstrap, session)
            if closed == "subscription":
                await subscription.close()
                while await knows_session(shared_kafka.bootstrap, session):
                    pass  # nobody waits for the broker to hear of it
        while await knows_session(shared_kafka.bootstrap, session):
            pass


async def test_a_connection_that_is_cut_costs_nothing_but_a_session(shared_kafka, topic, asking):
    topics = [f"{topic}-{number}" for number in range(3)]
    seen = Seen()

    async def cut(bus):
        client = member_of(bus, topic)._client._client

        async def close():
            for connection in list(client._conns.values()):
                connection.close()

        await bus.transport._ask(close)

    with trio.fail_after(30):
        async with open_bus(kafka(shared_kafka), topics=topics) as bus:
            for one in topics:
                await bus.subscribe(one, seen, group=topic)
            session = None
            for _ in range(3):
                session = await asking.wait_idle(session)
                await cut(bus)
                await check(bus, topics, seen)


async def test_a_broker_that_gives_no_sessions_is_read_all_the_same(
    kafka_distribution, tmp_path, topic, asking
):
    topics = [f"{topic}-{number}" for number in range(3)]
    seen = Seen()
    none = {"max.incremental.fetch.session.cache.slots": "0"}
    with KafkaCluster(tmp_path, distribution=kafka_distribution, settings=none) as node:
        with trio.fail_after(30):
            async with open_bus(kafka(node), topics=topics) as bus:
                for one in topics:
                    await bus.subscribe(one, seen, group=topic)
                await check(bus, topics, seen)
                await trio.sleep(1)
                await check(bus, topics, seen)
                assert all(one.epoch <= BEGIN for one in asking.asked)
                assert any(one.epoch == BEGIN for one in asking.asked)


async def test_a_broker_that_was_started_anew_is_told_everything(kafka_node, topic, asking):
    traffic = Traffic()
    with trio.fail_after(90):
        async with open_bus(kafka(kafka_node), kafka=QUICK) as bus:
            await bus.subscribe(topic, traffic.handle, group=topic)
            session = await asking.wait_idle()
            kafka_node.kill()
            await kafka_node.start_meanwhile()
            async with trio.open_nursery() as nursery:
                for key in "abc":
                    nursery.start_soon(traffic.publish, bus, topic, key)
                await traffic.wait(100)
                traffic.stop()
            await traffic.wait_all()
            await asking.wait_idle(session)
    traffic.check()


async def test_partitions_that_come_and_go_in_a_session_are_read_by_whoever_has_them(
    shared_kafka, topic, asking
):
    traffic = Traffic()
    url = kafka(shared_kafka)
    with trio.fail_after(60):
        async with open_bus(url, kafka=QUICK) as bus, trio.open_nursery() as nursery:
            await bus.configure_topic(topic, TopicOptions(partitions=4))
            await bus.subscribe(topic, traffic.handle, group=topic)
            await asking.wait_idle()
            for key in "abcdefg":
                nursery.start_soon(traffic.publish, bus, topic, key)
            for _ in range(2):
                await traffic.wait(200)
                async with open_bus(url, kafka=QUICK) as other:
                    await other.subscribe(topic, traffic.handle, group=topic)
                    await traffic.wait(200)
            traffic.stop()
            await traffic.wait_all()
    traffic.check()


async def test_a_partition_without_room_is_forgotten_and_read_on_where_it_stood(
    shared_kafka, topic, asking
):
    """Its messages wait with the client; another topic keeps the session going."""
    gate, slow, quick = Gate(), Seen(), Seen()

    async def handle(message):
        await gate(message)
        slow.add(message)

    with trio.fail_after(30):
        names = [f"{topic}-slow", f"{topic}-quick"]
        async with open_bus(kafka(shared_kafka), topics=names) as bus:
            await bus.subscribe(names[0], handle, group=topic, max_in_flight=1)
            await bus.subscribe(names[1], quick, group=topic)
            await asking.wait_idle()
            for _ in range(3):
                await publish_pairs(bus, names[0], [("key", letter) for letter in LETTERS])
                await check(bus, names[1:], quick)
            assert any(names[0] in dict(one.forgotten) for one in asking.asked)
            gate.open()
            await slow.wait(3 * len(LETTERS))
    assert slow.text == 3 * LETTERS


async def test_retention_that_takes_the_place_of_a_forgotten_partition_is_told(
    shared_kafka, topic, asking
):
    quick = Seen()
    names = [f"{topic}-slow", f"{topic}-quick"]
    with trio.fail_after(30), raising(BusError) as raised:
        async with open_bus(kafka(shared_kafka), topics=names, grace=0.0) as bus:
            await bus.subscribe(names[1], quick, group=topic)
            await publish_pairs(bus, names[0], [("key", letter) for letter in "abc"])
            async with bus.open_messages(
                names[0], group=topic, max_in_flight=1, start="earliest"
            ) as messages:
                async for message in messages:
                    async with message:
                        if message.body == b"a":
                            await asking.wait_idle()
                            for _ in range(4):  # more than is fetched ahead
                                await publish_pairs(bus, names[0], [("key", "x")] * 10)
                                await check(bus, names[1:], quick)
                            await delete_before(shared_kafka.bootstrap, names[0], 43)
    [lost] = raised.error.causes
    assert isinstance(lost, MessagesLost)
    assert (lost.topic, lost.last) == (names[0], 42)
    assert any(names[0] in dict(one.forgotten) for one in asking.asked)


async def test_sessions_with_several_brokers_outlive_one_of_them(kafka_cluster, topic, asking):
    traffic = Traffic()
    with trio.fail_after(90):
        async with open_bus(kafka(kafka_cluster), kafka=QUICK) as bus:
            await bus.configure_topic(topic, TopicOptions(partitions=6))
            await bus.subscribe(topic, traffic.handle, group=topic)
            first = await asking.wait_idle()
            await asking.wait_idle(first)
            async with trio.open_nursery() as nursery:
                for key in "abcdefg":
                    nursery.start_soon(traffic.publish, bus, topic, key)
                await traffic.wait(100)
                kafka_cluster.kill(2)
                await traffic.wait(100)
                await kafka_cluster.start_meanwhile(2)
                await traffic.wait(100)
                traffic.stop()
            await traffic.wait_all()
            await asking.wait_idle()
    traffic.check()
