"""Kafka brokers that die, stand still, come back, or never were there."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from tbus import TopicOptions, open_bus
from tbus._errors import ConfigurationError, OutcomeUnknown, TbusError, TransportLost
from tbus._events import Connected, ConnectionLost
from tbus._retry import Backoff
from tbus.testing import take_census
from tbus.testing.conformance._kit import (
    Gate,
    Seen,
    publish_pairs,
    publish_text,
    raising,
    watching,
)
from tests import census
from tests.brokers.kafka import KafkaCluster
from tests.faults.kafka_kit import Traffic, committed, engine_of, records, wait_committed
from tests.faults.suite.grounds import kafka_wants

QUICK = {
    "session_timeout": 4.0,
    "rebalance_timeout": 4.0,
    "drain": 1.0,
    "reconnect": Backoff(maximum=0.5),
}
LETTERS = "abcdefghijklmnopqrst"

METADATA_LIMIT = 48
"""Bytes that the broker takes with a commit: far less than by default."""


@pytest.fixture(scope="module")
def _module_node(tmp_path_factory):
    """One node that is killed and started again by test after test."""
    node: KafkaCluster | None = None

    def start(distribution):
        nonlocal node
        if node is None:
            node = KafkaCluster(
                tmp_path_factory.mktemp("kafka"),
                distribution=distribution,
                settings={"offset.metadata.max.bytes": str(METADATA_LIMIT)},
                owned=census.owned_by_the_harness,
            )
        node.mend()
        return node

    yield start
    if node is not None:
        node.close()


@pytest.fixture
def node(kafka_distribution, _module_node):
    return _module_node(kafka_distribution)


@pytest.fixture
def url(node):
    return f"kafka://{node.bootstrap}"


async def through(url, topic, fault, *, times, timeout=15.0, kafka=QUICK):
    """Traffic, and a fault every hundred messages."""
    traffic = Traffic(timeout)
    async with open_bus(url, kafka=kafka) as bus:
        await bus.configure_topic(topic, TopicOptions(partitions=2))
        await bus.subscribe(topic, traffic.handle, group=topic, max_in_flight=200)
        async with trio.open_nursery() as nursery:
            for key in "abcdefg":
                nursery.start_soon(traffic.publish, bus, topic, key)
            for _ in range(times):
                await traffic.wait(100)
                await fault()
            await traffic.wait(100)
            traffic.stop()
        await traffic.wait_all()
    traffic.check()
    return traffic


# --- the only broker ---------------------------------------------------------------------


async def test_nothing_is_lost_repeated_or_out_of_order_when_the_only_broker_stands_still(
    node, url, topic
):
    async def fault():
        node.pause()
        await trio.sleep(0.5)  # the fault itself
        node.resume()

    with trio.fail_after(50):
        traffic = await through(url, topic, fault, times=3)
    assert traffic.repeats == 0


async def test_a_broker_that_stands_still_beyond_every_session_loses_nothing(node, url, topic):
    """The publishes time out, the group forgets its member, the bus goes on by itself."""

    async def fault():
        node.pause()
        await trio.sleep(2.5)  # the fault itself
        node.resume()

    brief = {"session_timeout": 1.0, "rebalance_timeout": 2.0, "drain": 0.5}
    with trio.fail_after(50):
        await through(url, topic, fault, times=1, timeout=1.0, kafka=brief)


async def test_a_publish_that_timed_out_is_stored_once_and_before_what_was_published_later(
    node, url, topic
):
    with trio.fail_after(40):
        async with open_bus(url) as bus:
            await bus.publish(topic, b"first", key="k")
            node.pause()
            with pytest.raises(OutcomeUnknown) as unknown:
                await bus.publish(topic, b"unknown", key="k", id="the-id", timeout=0.3)
            with pytest.raises(TransportLost):
                await bus.publish(topic, b"never sent", key="k", timeout=0.3)
            node.resume()
            await bus.publish(topic, b"last", key="k")
            found = await records(node.bootstrap, topic, 3)
    assert unknown.value.event_id == "the-id"
    assert [one.value for one in found] == [b"first", b"unknown", b"last"]


async def test_publishes_without_a_broker_are_unknown_or_not_sent_and_cost_bounded_memory(
    node, url, topic
):
    errors: list[Exception] = []
    with trio.fail_after(40):
        async with open_bus(url, grace=0.2) as bus:
            await bus.publish(topic, b"x", key="k")
            node.pause()
            outbox = engine_of(bus).outbox

            async def publish():
                try:
                    await bus.publish(topic, bytes(1000), key="k", timeout=0.5)
                except (OutcomeUnknown, TransportLost) as error:
                    errors.append(error)

            for _ in range(4):
                async with trio.open_nursery() as nursery:
                    for _ in range(100):
                        nursery.start_soon(publish)
            assert len(outbox) == 0
            [lane] = outbox._lanes[topic]
            assert not lane.waiting
        kinds = Counter(type(error) for error in errors)
    assert kinds[OutcomeUnknown] + kinds[TransportLost] == 400
    # One batch is the client's; whatever came later was never given to it.
    assert kinds[OutcomeUnknown] <= 100


async def test_a_bus_tells_within_seconds_that_its_broker_is_gone_and_that_it_is_back(
    node, url, topic, caplog
):
    seen = Seen()
    with trio.fail_after(50), caplog.at_level(logging.DEBUG):
        async with open_bus(url, kafka=QUICK) as bus, watching(bus) as watch:
            await bus.subscribe(topic, seen, group=topic)
            await bus.subscribe(topic, Seen())
            await publish_text(bus, topic, "abc")
            await seen.wait(3)
            died = trio.current_time()
            node.kill()
            with pytest.raises((OutcomeUnknown, TransportLost)):
                await bus.publish(topic, b"?", key="other", timeout=0.5)
            lost = await watch.wait(ConnectionLost)
            assert trio.current_time() - died < 5.0
            assert bus.health().state == "disconnected"
            with pytest.raises((OutcomeUnknown, TransportLost)):
                await bus.publish(topic, b"?", key="other", timeout=0.1)
            await node.start_meanwhile()
            back = await watch.wait(Connected)
            assert bus.health().state == "connected"
            await publish_text(bus, topic, "def")
            while [one.key for one in seen.messages].count("k") < 6:
                await seen.wait(len(seen.messages) + 1)
            lasted = trio.current_time() - died
    assert lost.address == back.address == node.bootstrap
    assert seen.by_key()["k"] == "abcdef"
    kinds = Counter(
        (record.name, str(record.msg).partition(" (and ")[0])
        for record in caplog.records
        if record.name.startswith("aiokafka") and record.levelno >= logging.INFO
    )
    assert all(count <= 1 + lasted / 5.0 for count in kinds.values()), kinds


async def test_what_was_done_while_the_broker_was_away_is_committed_when_it_is_back(
    node, url, topic
):
    gate, seen, again = Gate(), Seen(), Seen()

    async def handle(message):
        await gate(message)
        seen.add(message)

    with trio.fail_after(40):
        async with open_bus(url, kafka={**QUICK, "session_timeout": 10.0}) as bus:
            await bus.subscribe(topic, handle, group=topic)
            await publish_pairs(bus, topic, [(one, one) for one in LETTERS])
            await gate.wait(len(LETTERS))
            node.kill()
            gate.open()
            await seen.wait(len(LETTERS))
            await node.start_meanwhile()
            await wait_committed(node.bootstrap, topic, topic, len(LETTERS))
        async with open_bus(url, kafka=QUICK) as bus:
            await bus.subscribe(topic, again, group=topic)
            await publish_text(bus, topic, "!")
            await again.wait(1)
    assert again.text == "!"


async def test_a_broker_that_takes_less_metadata_gets_shorter_marks(node, url, topic):
    gate, first, second = Gate(), Seen(), Seen()

    async def handle(message):
        if message.key == "slow":
            await gate(message)
        first.add(message)

    with trio.fail_after(30):
        # No commit but the last one: it must find the way by itself.
        async with open_bus(url, grace=0.0, kafka={"commit_interval": 60.0}) as bus:
            await publish_pairs(bus, topic, [(one, "before") for one in LETTERS])
            for number in range(100):
                await publish_pairs(bus, topic, [("slow", "x"), (f"{number}", "x")])
            await bus.subscribe(topic, handle, group=topic)
            await first.wait(len(LETTERS) + 100)
        entry = (await committed(node.bootstrap, topic))[topic, 0]
        async with open_bus(url) as bus:
            await bus.publish(topic, b"last")
            await bus.subscribe(topic, second, group=topic)
            while b"last" not in second.bodies:
                await second.wait(len(second.messages) + 1)
    assert entry.offset == len(LETTERS)
    assert 0 < len(entry.metadata) <= METADATA_LIMIT
    assert b"before" not in second.bodies
    assert len([message for message in second.messages if message.key == "slow"]) == 100
    assert len(second.messages) < 201, "the mark said nothing"


# --- nobody there ------------------------------------------------------------------------


@contextmanager
def silent_peer() -> Iterator[str]:
    """Takes connections, and never says a word."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(16)
        yield f"127.0.0.1:{one.getsockname()[1]}"


@contextmanager
def nobody() -> Iterator[str]:
    """A port where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{one.getsockname()[1]}"


@pytest.mark.parametrize("peer", [silent_peer, nobody], ids=["silent", "nobody"])
async def test_a_broker_that_cannot_be_reached_is_named_within_the_connect_timeout(peer):
    with peer() as address:
        before = take_census()
        started = trio.current_time()
        with pytest.raises(TransportLost, match=rf"{address}.*0\.7 s"):
            async with open_bus(f"kafka://{address}", kafka={"connect_timeout": 0.7}):
                pass
        took = trio.current_time() - started
        left = take_census().beyond(before)
    assert 0.7 <= took < 1.7
    assert not left


@pytest.mark.parametrize("peer", [silent_peer, nobody], ids=["silent", "nobody"])
async def test_opening_may_be_cancelled_while_it_waits_for_a_broker(peer):
    with peer() as address:
        before = take_census()
        started = trio.current_time()
        with trio.move_on_after(0.3) as scope:
            async with open_bus(f"kafka://{address}"):
                pass
        took = trio.current_time() - started
        left = take_census().beyond(before)
    assert scope.cancelled_caught
    assert took < 1.3
    assert not left


async def test_opening_cancelled_at_any_moment_leaves_nothing(url):
    for number in range(12):
        before = take_census()
        with trio.move_on_after(0.001 * 1.6**number):
            async with open_bus(url):
                pass
        left = take_census().beyond(before)
        assert not left, number


async def test_subscribing_cancelled_at_any_moment_leaves_nothing(url, topic):
    for number in range(8):
        before = take_census()
        async with open_bus(url, kafka=QUICK) as bus:
            with trio.move_on_after(0.001 * 1.8**number):
                await bus.subscribe(topic, Seen(), group=f"{topic}-{number}")
        left = take_census().beyond(before)
        assert not left, number


# --- the end of the only broker, and of this file's: nobody starts it again -----------------


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "killed"])
async def test_leaving_without_a_broker_ends_within_grace_and_a_second_and_leaves_nothing(
    node, url, topic, silent
):
    outcomes: list[TbusError] = []
    grace = 0.5

    async def publish(number):
        try:
            await bus.publish(topic, b"%d" % number, key=f"{number % 20}", timeout=30)
        except (OutcomeUnknown, TransportLost) as error:
            outcomes.append(error)

    with trio.fail_after(30):
        before = take_census()
        # The publishes go on until the bus has told what became of them.
        async with trio.open_nursery() as nursery:
            async with open_bus(url, grace=grace, kafka=QUICK) as bus:
                await bus.configure_topic(topic, TopicOptions(partitions=2))
                gate, seen = Gate(), Seen()
                await bus.subscribe(topic, gate, group=topic)
                await bus.subscribe(topic, seen, group=f"{topic}-two")
                await bus.subscribe(topic, seen)
                await publish_pairs(bus, topic, [(one, one) for one in LETTERS])
                await gate.wait(10)
                await seen.wait(2 * len(LETTERS))
                if silent:
                    node.pause()
                else:
                    node.kill()
                for number in range(40):
                    nursery.start_soon(publish, number)
                await trio.testing.wait_all_tasks_blocked()
                left_at = trio.current_time()
            took = trio.current_time() - left_at
        left = take_census().beyond(before)
    assert took < grace + 1.0, f"it took {took} s"
    assert len(outcomes) == 40
    assert not left


# --- beginnings --------------------------------------------------------------------------


async def test_a_wrong_password_is_told_at_once_and_by_its_name(kafka_distribution, tmp_path):
    settings = kafka_wants("right")
    with KafkaCluster(
        tmp_path, distribution=kafka_distribution, settings=settings, doors=True
    ) as wants:
        url = f"kafka://{wants.bootstrap}"
        with trio.fail_after(20):
            async with open_bus(url, kafka={"user": "tbus", "password": "right"}):
                pass
        with (
            trio.fail_after(3),
            raising(ConfigurationError, "user='tbus'", "does not let us in", "check user"),
        ):
            async with open_bus(url, kafka={"user": "tbus", "password": "wrong"}):
                pass


async def test_a_password_where_none_is_taken_is_told_at_once(shared_kafka):
    url = f"kafka://me:secret@{shared_kafka.bootstrap}"
    with (
        trio.fail_after(3),
        raising(ConfigurationError, "user='me'", "takes no user and password") as raised,
    ):
        async with open_bus(url):
            pass
    assert "secret" not in str(raised.error)


async def test_a_broker_that_is_not_there_is_told_in_words_and_not_in_the_client_s_log(caplog):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        raising(TransportLost, "nothing listens there"),
    ):
        port = taken.getsockname()[1]
        taken.close()
        async with open_bus(f"kafka://127.0.0.1:{port}", kafka={"connect_timeout": 0.5}):
            pass
    assert not [one for one in caplog.records if one.name.startswith("aiokafka")]
