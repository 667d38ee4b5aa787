"""What Kafka and its client are peculiar about, on a real broker."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import requires
from operator import attrgetter
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from aiokafka.structs import TopicPartition

from tbus import TopicOptions, open_bus
from tbus._errors import (
    BusError,
    ConfigurationError,
    MessagesLost,
    PublishFailed,
    PublishRefused,
    Reject,
)
from tbus._events import DeadLettered, Event, PartitionsAssigned, PartitionsRevoked, RetentionTook
from tbus._marks import Mark, encode
from tbus._message import Position, Receipt
from tbus.testing.conformance._kit import (
    Gate,
    Seen,
    publish_pairs,
    publish_text,
    raising,
    watching,
)
from tbus.transports.kafka._clients import start_client
from tbus.transports.kafka._offsets import Offsets
from tbus.transports.kafka._partitioners import partitioner
from tbus.transports.kafka._solo import SoloReader
from tests.faults.kafka_kit import (
    add_partitions,
    commit,
    committed,
    delete_before,
    engine_of,
    make_topic,
    member_of,
    produce,
    records,
    transport_of,
    wait_committed,
    wait_empty,
    wait_fetching,
    wait_looked,
)

QUICK = {"session_timeout": 2.0, "rebalance_timeout": 4.0, "drain": 1.0}
LETTERS = "abcdefghijklmnopqrst"


@pytest.fixture
def url(shared_kafka):
    return f"kafka://{shared_kafka.bootstrap}"


@pytest.fixture
def server(shared_kafka):
    return shared_kafka.bootstrap


# --- marks -------------------------------------------------------------------------------


async def test_a_bus_that_ends_amid_its_work_leaves_only_what_was_not_done(url, topic):
    gate, first, second = Gate(), Seen(), Seen()

    async def handle(message):
        if message.key == "slow":
            await gate(message)
        first.add(message)

    with trio.fail_after(20):
        async with open_bus(url, grace=0.0) as bus:
            await publish_pairs(bus, topic, [("slow", "1"), ("slow", "2")])
            await publish_pairs(bus, topic, [(f"quick-{one}", one) for one in LETTERS])
            await bus.publish(topic, b"3", key="slow")
            await bus.subscribe(topic, handle, group=topic)
            await first.wait(len(LETTERS))
            await gate.wait(1)
        async with open_bus(url) as bus:
            await bus.publish(topic, b"4", key="slow")
            await bus.subscribe(topic, second, group=topic)
            await second.wait(4)
    assert sorted(first.text) == list(LETTERS)
    assert second.text == "1234"


async def test_marks_add_up_over_many_owners(url, topic):
    """Each owner does one key and is stopped by the first message; the last one does the rest."""
    done: dict[str, int] = defaultdict(int)

    with trio.fail_after(30):
        async with open_bus(url) as bus:
            await publish_pairs(bus, topic, [(f"key-{number % 5}", "x") for number in range(50)])
        for number in range(1, 5):
            gate, seen = Gate(), Seen()

            async def handle(message, number=number, gate=gate, seen=seen):
                if message.key != f"key-{number}":
                    await gate(message)
                done[message.key] += 1
                seen.add(message)

            async with open_bus(url, grace=0.0) as bus:
                await bus.subscribe(topic, handle, group=topic)
                await seen.wait(10)
        seen = Seen()
        async with open_bus(url) as bus:
            await bus.publish(topic, b"x", key="last")
            await bus.subscribe(topic, seen, group=topic)
            await seen.wait(11)
    assert done == {f"key-{number}": 10 for number in range(1, 5)}
    assert {message.key for message in seen.messages} == {"key-0", "last"}


@pytest.mark.parametrize(
    "metadata",
    ["", "of another program", encode(Mark(2, ((4, 5),)), 4096), "tbus1:3:00000000:b:"],
    ids=["empty", "another program's", "another offset's", "damaged"],
)
async def test_metadata_that_is_no_mark_of_this_offset_is_ignored(url, server, topic, metadata):
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await publish_text(bus, topic, "abcdefg")
            await commit(server, topic, topic, 3, metadata)
            await bus.subscribe(topic, seen, group=topic)
            await seen.wait(4)
    assert seen.text == "defg"


async def test_a_mark_that_belongs_to_the_offset_is_honoured(url, server, topic):
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await publish_text(bus, topic, "abcdefg")
            await commit(server, topic, topic, 3, encode(Mark(3, ((4, 5),), ((3, 2),)), 4096))
            await bus.subscribe(topic, seen, group=topic)
            await seen.wait(2)
    assert seen.text == "dg"


async def test_lag_counts_what_is_done_beyond_the_first_that_is_not(url, topic):
    gate, seen = Gate(), Seen()

    async def handle(message):
        if message.key == "slow":
            await gate(message)
        seen.add(message)

    with trio.fail_after(20):
        async with open_bus(url, grace=0.0) as bus:
            await publish_pairs(bus, topic, [("slow", "1"), *((one, one) for one in "abcdefgh")])
            await publish_pairs(bus, topic, [("slow", "2")])
            await bus.subscribe(topic, handle, group=topic)
            await seen.wait(8)
            assert (await bus.lag(topic, topic)).messages == 2
        async with open_bus(url) as other:
            assert (await other.lag(topic, topic)).messages == 2


# --- where a group begins ----------------------------------------------------------------


async def test_a_group_s_place_is_committed_in_every_partition_before_subscribe_returns(
    url, server, topic
):
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await bus.configure_topic(topic, TopicOptions(partitions=3))
            placed = [await bus.publish(topic, b"old", key=one) for one in LETTERS]
            ends: dict[int, int] = defaultdict(int)
            for receipt in placed:
                ends[receipt.position.partition] += 1
            await bus.subscribe(topic, Seen(), group=f"{topic}-latest", start="latest")
            found = await committed(server, f"{topic}-latest")
    assert {part: entry.offset for (_, part), entry in found.items()} == {
        number: ends[number] for number in range(3)
    }


async def test_a_group_that_begins_at_the_end_skips_nothing_when_its_first_reader_dies(
    url, server, topic
):
    """Its first reader handles nothing: what came meanwhile is the next one's."""
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(url, grace=0.0) as bus:
            await publish_text(bus, topic, "old")
            async with bus.open_messages(topic, group=topic, start="latest"):
                await publish_text(bus, topic, "new")
        async with open_bus(url) as bus:
            await bus.subscribe(topic, seen, group=topic, start="latest")
            await seen.wait(3)
    assert seen.text == "new"


async def test_a_group_may_begin_at_a_time_in_every_partition(url, topic):
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await bus.configure_topic(topic, TopicOptions(partitions=3))
            for one in LETTERS:
                await bus.publish(topic, b"old", key=one)
            # The broker counts in milliseconds: the next one but one has nothing old.
            moment = datetime.fromtimestamp(int(time.time() * 1000) / 1e3 + 0.002, UTC)
            await trio.sleep_until(trio.current_time() + 0.003)
            for one in LETTERS:
                await bus.publish(topic, b"new", key=one)
            await bus.subscribe(topic, seen, group=topic, start=moment)
            await seen.wait(len(LETTERS))
    assert {message.body for message in seen.messages} == {b"new"}
    assert len(seen.messages) == len(LETTERS)


async def test_a_position_beyond_the_end_is_the_end(url, topic):
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await publish_text(bus, topic, "old")
            await bus.subscribe(topic, seen, group=topic, start=Position(0, 1000))
            await publish_text(bus, topic, "new")
            await seen.wait(3)
    assert seen.text == "new"


@pytest.fixture
def quick_metadata(monkeypatch):
    """Clients look for new partitions every second, and not every thirty."""
    monkeypatch.setattr("tbus.transports.kafka._clients.METADATA_AGE", 1.0)


@pytest.mark.parametrize("start", ["earliest", "latest"])
async def test_a_partition_that_is_added_is_read_from_its_beginning(
    url, server, topic, start, quick_metadata
):
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(url, kafka=QUICK) as bus:
            await bus.subscribe(topic, seen, group=topic, start=start)
            await add_partitions(server, topic, 2)
            await produce(server, topic, b"a", b"b", b"c", partition=1)
            await seen.wait(3)
    assert seen.text == "abc"


async def test_a_partition_that_is_added_is_read_from_its_beginning_without_a_group(
    url, server, topic, quick_metadata
):
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await bus.subscribe(topic, seen)
            await publish_text(bus, topic, "ab")
            await seen.wait(2)
            await add_partitions(server, topic, 2)
            await produce(server, topic, b"1", b"2", b"3", partition=1)
            await seen.wait(5)
            await publish_text(bus, topic, "c" * 10)
            await seen.wait(15)
    assert sorted(seen.text) == sorted("ab123" + "c" * 10)


class Halt:
    """Holds a call in the clients' loop until the program lets it go on."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        self.reached = trio.Event()
        self._function = function
        self._token = trio.lowlevel.current_trio_token()
        self._release: Callable[[], object]

    async def call(self, *args: Any) -> Any:
        """In place of the function."""
        going_on = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._release = partial(loop.call_soon_threadsafe, going_on.set)
        self._token.run_sync_soon(self.reached.set)
        await going_on.wait()
        return await self._function(*args)

    def go_on(self) -> None:
        self._release()


async def test_a_topic_that_is_looked_at_while_a_reader_of_it_is_opened_is_read_whole(
    url, server, topic, quick_metadata, monkeypatch
):
    """By one without a group: before its client has started, and when the topic has grown since
    its partitions were counted."""
    starting, placing = Halt(start_client), Halt(Offsets.starts)

    async def starts(*args: Any) -> Any:
        return await placing.call(*args)

    monkeypatch.setattr("tbus.transports.kafka._solo.start_client", starting.call)
    monkeypatch.setattr(Offsets, "starts", starts)
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await make_topic(server, topic, {})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bus.subscribe, topic, seen)
                await starting.reached.wait()
                await wait_looked(bus)
                starting.go_on()
                await placing.reached.wait()
                await add_partitions(server, topic, 2)
                await wait_looked(bus)
                placing.go_on()
            await wait_looked(bus)
            await produce(server, topic, b"a", b"b", partition=0)
            await produce(server, topic, b"c", b"d", partition=1)
            await seen.wait(4)
    assert sorted(seen.text) == list("abcd")


# --- retention ---------------------------------------------------------------------------


async def test_what_retention_took_before_a_group_came_back_is_told(url, server, topic):
    seen, again = Seen(), Seen()
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await bus.subscribe(topic, seen, group=topic)
            await publish_text(bus, topic, "ab")
            await seen.wait(2)
        async with open_bus(url) as bus, watching(bus) as watch:
            await publish_text(bus, topic, "cdefg")
            await delete_before(server, topic, 5)
            await bus.subscribe(topic, again, group=topic)
            took = await watch.wait(RetentionTook)
            await again.wait(2)
    assert (took.topic, took.group, took.first, took.last) == (topic, topic, 2, 4)
    assert again.text == "fg"


@pytest.mark.parametrize("grouped", [True, False])
async def test_what_retention_takes_from_under_a_reader_is_an_error_that_says_what(
    url, server, topic, grouped
):
    group = topic if grouped else None
    read = []
    with trio.fail_after(20), raising(BusError) as raised:
        async with open_bus(url, grace=0.0) as bus:
            await publish_text(bus, topic, "abc")
            async with bus.open_messages(
                topic, group=group, max_in_flight=1, start="earliest"
            ) as messages:
                async for message in messages:
                    async with message:
                        read.append(message.position.offset)
                        if message.body == b"a":
                            # The client has fetched these three, and maybe some of what follows.
                            await publish_text(bus, topic, "x" * 20)
                            await delete_before(server, topic, 20)
    [lost] = raised.error.causes
    assert isinstance(lost, MessagesLost)
    assert (lost.topic, lost.last) == (topic, 19)
    assert read == list(range(lost.first)), "what was fetched before was not handled"
    assert lost.first <= 19


async def test_what_waits_for_room_when_retention_takes_it_and_its_topic_grows_is_handled(
    url, server, topic, quick_metadata, monkeypatch
):
    """A reader without a group takes a new partition by a new assignment of all."""
    grown, token = trio.Event(), trio.lowlevel.current_trio_token()
    expand = SoloReader.expand

    def told(self: SoloReader, partitions: int) -> None:
        expand(self, partitions)
        if partitions == 2:
            token.run_sync_soon(grown.set)

    monkeypatch.setattr(SoloReader, "expand", told)
    read = ""
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await publish_text(bus, topic, "abcdef")
            async with bus.open_messages(topic, max_in_flight=1, start="earliest") as messages:
                async for message in messages:
                    async with message:
                        read += message.body.decode()
                        if read == "a":
                            await delete_before(server, topic, 6)
                            await add_partitions(server, topic, 2)
                            await grown.wait()
                        elif read == "abcdef":
                            await produce(server, topic, b"g")
                    if read == "abcdefg":
                        break


# --- groups ------------------------------------------------------------------------------


async def test_topics_declared_up_front_join_their_group_once(url, topic):
    topics = [f"{topic}-{number}" for number in range(3)]
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(url, topics=topics, kafka=QUICK) as bus, watching(bus) as watch:
            for one in topics:
                await bus.subscribe(one, seen, group=topic)
            for one in topics:
                await bus.publish(one, b"x")
            await seen.wait(3)
            assigned = watch.of(PartitionsAssigned)
            revoked = watch.of(PartitionsRevoked)
    assert {one.topic for one in assigned} == set(topics)
    assert len({one.epoch for one in assigned}) == 1
    assert not revoked


async def test_a_declared_topic_is_subscribed_to_while_a_fetch_of_another_is_held(url, topic):
    """A broker answers one connection's requests one after another, and holds a fetch."""
    topics = [f"{topic}-{number}" for number in range(3)]
    seen = Seen()
    with trio.fail_after(10):
        async with open_bus(url, topics=topics, kafka={"fetch_wait": 12.0}) as bus:
            await bus.subscribe(topics[0], seen, group=topic)
            await bus.publish(topics[0], b"x")
            await seen.wait(1)
            await wait_fetching(bus, topic)
            for one in topics[1:]:
                await bus.subscribe(one, seen, group=topic)
                assert (await bus.lag(one, topic)).messages == 0


async def test_groups_of_one_process_share_their_partitions_evenly_each_by_itself(url, topic):
    """The client's assignor keeps what it remembers in its class, for all groups of a process."""
    groups = [f"{topic}-{one}" for one in "abc"]
    with trio.fail_after(30):
        async with (
            open_bus(url, kafka=QUICK) as one,
            open_bus(url, kafka=QUICK) as two,
            watching(one) as first,
            watching(two) as second,
        ):
            await one.configure_topic(topic, TopicOptions(partitions=4))
            for bus in (one, two):
                for group in groups:
                    await bus.subscribe(topic, Seen(), group=group)
            for group in groups:
                await _wait_shares(first, group, {2})
                await _wait_shares(second, group, {2})
                here, there = _partitions(first, group), _partitions(second, group)
                assert here | there == {0, 1, 2, 3}


def _partitions(watch, group, topic=None):
    """What a bus has of a group's topic, by its own events."""
    held: set[int] = set()
    for event in watch.events:
        if (
            isinstance(event, PartitionsAssigned | PartitionsRevoked)
            and event.group == group
            and topic in (None, event.topic)
        ):
            held = set(event.partitions) if isinstance(event, PartitionsAssigned) else set()
    return held


async def _wait_shares(watch, group, sizes, topic=None):
    """Wait until a bus has so many partitions, by its own events."""
    while len(_partitions(watch, group, topic)) not in sizes:
        await watch.wait(Event, len(watch.events) + 1)


async def test_a_member_that_comes_moves_no_more_partitions_than_it_gets(url, topic):
    with trio.fail_after(30):
        async with open_bus(url, kafka=QUICK) as one, open_bus(url, kafka=QUICK) as two:
            await one.configure_topic(topic, TopicOptions(partitions=6))
            async with watching(one) as first, watching(two) as second:
                await one.subscribe(topic, Seen(), group=topic)
                await two.subscribe(topic, Seen(), group=topic)
                await _wait_shares(second, topic, {3})
                await _wait_shares(first, topic, {3})
                before = _partitions(first, topic), _partitions(second, topic)
                async with open_bus(url, kafka=QUICK) as three, watching(three) as third:
                    await three.subscribe(topic, Seen(), group=topic)
                    await _wait_shares(third, topic, {2})
                    await _wait_shares(first, topic, {2})
                    await _wait_shares(second, topic, {2})
                    assert _partitions(first, topic) < before[0]
                    assert _partitions(second, topic) < before[1]


async def test_two_members_keep_each_key_s_order_and_repeat_nothing_that_was_done(url, topic):
    """One of them leaves, gracefully, amid running handlers, and another one comes."""
    completed: dict[str, list[int]] = defaultdict(list)
    count = 0
    more = trio.Event()

    async def handle(message):
        nonlocal count, more
        await trio.sleep(0.001 * (int(message.body) % 3))
        completed[message.key].append(int(message.body))
        count += 1
        more.set()
        more = trio.Event()

    async def until(number):
        while count < number:
            await more.wait()

    keys, total, enough = 20, 0, False
    with trio.fail_after(50):
        async with open_bus(url, kafka=QUICK) as publisher:
            await publisher.configure_topic(topic, TopicOptions(partitions=4))
            async with open_bus(url, kafka=QUICK) as stays:
                await stays.subscribe(topic, handle, group=topic, concurrency=8)

                async def publish():
                    nonlocal total
                    async with publisher.open_publisher(max_in_flight=50) as sender:
                        while not enough:
                            key, body = f"key-{total % keys}", b"%d" % (total // keys)
                            await sender.send(topic, body, key=key)
                            total += 1
                            await trio.sleep(0.001)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(publish)
                    for _ in range(2):
                        async with open_bus(url, kafka=QUICK) as goes:
                            await goes.subscribe(topic, handle, group=topic, concurrency=8)
                            await until(count + 100)
                    enough = True
                await until(total)
    for number in range(keys):
        key = f"key-{number}"
        assert completed[key] == list(range(len(range(number, total, keys)))), key


async def test_partitions_change_hands_only_when_running_handlers_have_ended(url, topic):
    inside: dict[str, int] = defaultdict(int)
    overlaps = []
    seen = Seen()

    async def handle(message):
        inside[message.key] += 1
        if inside[message.key] > 1:
            overlaps.append(message.key)
        await trio.sleep(0.3)
        inside[message.key] -= 1
        seen.add(message)

    with trio.fail_after(30):
        async with open_bus(url, kafka=QUICK) as one, open_bus(url, kafka=QUICK) as two:
            await one.configure_topic(topic, TopicOptions(partitions=4))
            await publish_pairs(one, topic, [(key, "x") for key in LETTERS for _ in range(3)])
            await one.subscribe(topic, handle, group=topic)
            await two.subscribe(topic, handle, group=topic)
            await seen.wait(3 * len(LETTERS))
    assert not overlaps
    assert len(seen.messages) == 3 * len(LETTERS)


async def test_a_handler_that_outlasts_the_drain_is_cancelled_and_its_message_comes_again(
    url, topic
):
    gate, again = Gate(), Seen()
    cancelled = trio.Event()

    async def handle(message):
        if cancelled.is_set():
            again.add(message)
            return
        try:
            await gate(message)
        finally:
            cancelled.set()

    with trio.fail_after(30):
        async with open_bus(url, kafka={**QUICK, "drain": 0.2}) as one:
            await publish_text(one, topic, "a")
            await one.subscribe(topic, handle, group=topic)
            await gate.wait(1)
            [first] = gate.inside
            async with open_bus(url, kafka=QUICK) as two:
                await two.subscribe(topic, handle, group=topic)
                await again.wait(1)
    [message] = again.messages
    assert message.position == first.position
    assert message.attempt == first.attempt == 1


async def test_a_member_with_a_name_may_restart_without_anybody_else_s_partitions_moving(
    url, topic
):
    settings = {**QUICK, "session_timeout": 10.0, "rebalance_timeout": 4.0}
    seen = Seen()
    with trio.fail_after(30):
        async with open_bus(url, kafka=settings) as stays, watching(stays) as watch:
            await stays.configure_topic(topic, TopicOptions(partitions=2))
            await stays.subscribe(topic, seen, group=topic)
            named = {**settings, "instance": f"{topic}-one"}
            for number in range(2):
                async with open_bus(url, kafka=named) as restarts, watching(restarts) as its:
                    await restarts.subscribe(topic, seen, group=topic)
                    await its.wait(PartitionsAssigned)
                    await publish_pairs(restarts, topic, [(one, one) for one in LETTERS])
                    await seen.wait((number + 1) * len(LETTERS))
            assert len(watch.of(PartitionsRevoked)) == 1, "not only when the named one came first"


async def test_a_member_that_leaves_amid_a_rebalance_is_not_waited_for(url, topic):
    """The broker reads nothing from a member that has asked to join and waits for the others."""
    settings = {"session_timeout": 10.0, "rebalance_timeout": 12.0, "drain": 10.0}
    gate = Gate()
    with trio.fail_after(20):
        async with (
            open_bus(url, kafka=settings) as stays,
            open_bus(url, kafka=settings) as comes,
            watching(stays) as first,
            watching(comes) as third,
            trio.open_nursery() as nursery,
        ):
            await stays.configure_topic(topic, TopicOptions(partitions=4))
            await stays.subscribe(topic, gate, group=topic)
            async with open_bus(url, kafka=settings) as goes, watching(goes) as second:
                await goes.subscribe(topic, Seen(), group=topic)
                await _wait_shares(first, topic, {2})
                await publish_pairs(stays, topic, [(letter, letter) for letter in LETTERS])
                await gate.wait(1)
                nursery.start_soon(partial(comes.subscribe, topic, Seen(), group=topic))
                await second.wait(PartitionsRevoked)
            gate.open()
            with trio.fail_after(6):  # well before its session would have ended
                await first.wait(PartitionsRevoked, 2)
                while _partitions(first, topic) | _partitions(third, topic) != {0, 1, 2, 3}:
                    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_member_whose_credit_is_used_up_stays_in_its_group(url, topic, monkeypatch):
    """What is in flight counts as no reading: the client would take it for idle, and leave."""
    gate, seen = Gate(), Seen()

    async def handle(message):
        await gate(message)
        seen.add(message)

    with trio.fail_after(20):
        brief = {**QUICK, "session_timeout": 1.0}
        async with open_bus(url, kafka=brief) as bus, watching(bus) as watch:
            await bus.subscribe(topic, handle, group=topic, max_in_flight=2)
            await publish_text(bus, topic, "abcd", key=None)
            await gate.wait(2)
            client = member_of(bus, topic)._client
            # As if this had lasted for an hour; five minutes is the client's own limit.
            client._subscription._last_fetch_ended -= 3600.0
            coordinator = client._coordinator
            beat = coordinator._do_heartbeat
            beats = trio.Semaphore(0)

            async def counted():
                answer = await beat()
                transport_of(bus)._bridge.post(beats.release)
                return answer

            monkeypatch.setattr(coordinator, "_do_heartbeat", counted)
            for _ in range(3):
                await beats.acquire()
            assert coordinator.generation > 0
            gate.open()
            await seen.wait(4)
            assert not watch.of(PartitionsRevoked)


async def test_a_topic_may_be_closed_and_opened_again_at_once_beside_another_one(url, topic):
    """The client's own tasks die of a subscription that changes while it joins."""
    stays, comes = Seen(), Seen()
    other = f"{topic}-other"
    with trio.fail_after(30):
        async with open_bus(url, kafka=QUICK) as bus:
            await bus.subscribe(topic, stays, group=topic)
            again = await bus.subscribe(other, comes, group=topic)
            client = member_of(bus, topic)._client
            for number in range(1, 5):
                await again.close()
                again = await bus.subscribe(other, comes, group=topic)
                await bus.publish(topic, b"x", key="k")
                await bus.publish(other, b"x", key="k")
                await stays.wait(number)
                await comes.wait(number)
            assert member_of(bus, topic)._client is client, "it had to be replaced"
    assert stays.text == comes.text == "xxxx"


async def test_a_topic_may_be_closed_while_another_one_s_partitions_are_taken_over(
    url, topic, monkeypatch
):
    """aiokafka's coordination dies, cancelled, where it cancels a heartbeat that has not begun."""
    everyone = Seen()
    here, there = Seen(everyone), Seen(everyone)
    entered, released = trio.Event(), asyncio.Event()
    with trio.fail_after(30):
        async with open_bus(url, kafka=QUICK) as one, watching(one) as watch:
            await one.configure_topic(topic, TopicOptions(partitions=2))
            await one.subscribe(topic, here, group=topic)
            closed = await one.subscribe(f"{topic}-other", Seen(), group=topic)
            member, bridge = member_of(one, topic), transport_of(one)._bridge
            client, take_over = member._client, member._take_over

            async def take_over_later(*args):
                bridge.post(entered.set)
                await released.wait()
                return await take_over(*args)

            monkeypatch.setattr(member, "_take_over", take_over_later)
            async with open_bus(url, kafka=QUICK) as two, trio.open_nursery() as nursery:
                nursery.start_soon(partial(two.subscribe, topic, there, group=topic))
                await entered.wait()
                await closed.close()
                bridge.submit(released.set)
                await _wait_shares(watch, topic, {1}, topic)
                await publish_pairs(two, topic, [(letter, letter) for letter in LETTERS])
                await everyone.wait(len(LETTERS))
            assert member._client is client, "it had to be replaced"
    assert here.messages
    assert there.messages


async def test_a_topic_may_be_closed_in_the_moment_that_partitions_are_given(
    url, topic, monkeypatch
):
    """aiokafka's fetcher dies where what it was given is gone before it has looked."""
    seen = Seen()
    with trio.fail_after(30):
        async with open_bus(url, kafka=QUICK) as bus:
            await bus.subscribe(topic, seen, group=topic)
            first = await bus.subscribe(f"{topic}-1", Seen(), group=topic)
            await bus.subscribe(f"{topic}-2", Seen(), group=topic)
            member = member_of(bus, topic)
            client, last = member._client, member.topics[f"{topic}-2"]
            state = client._subscription
            give = state.assign_from_subscribed
            given = trio.Event()

            def close_and_give(assignment):
                monkeypatch.undo()
                member._start(engine_of(bus).close_feed, last)  # in the next pass, before all else
                transport_of(bus)._bridge.post(given.set)
                give(assignment)

            monkeypatch.setattr(state, "assign_from_subscribed", close_and_give)
            await first.close()
            await given.wait()
            await publish_text(bus, topic, "abc")
            await seen.wait(3)
            assert member._client is client, "it had to be replaced"
    assert seen.text == "abc"


async def test_a_topic_whose_closing_is_cut_off_is_left_to_the_other_members(
    url, topic, monkeypatch
):
    """Its partitions would go on being this member's, and nobody would read them."""
    entered = trio.Event()
    with trio.fail_after(20):
        async with open_bus(url, kafka=QUICK) as bus:
            await bus.subscribe(topic, Seen(), group=topic)
            await bus.subscribe(f"{topic}-other", Seen(), group=topic)
            member, bridge = member_of(bus, topic), transport_of(bus)._bridge

            async def commit():
                bridge.post(entered.set)
                await asyncio.sleep(3600)

            with monkeypatch.context() as patched:
                patched.setattr(member._committer, "commit", commit)
                close = partial(engine_of(bus).close_feed, member.topics[f"{topic}-other"])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(bridge.call, close)
                    await entered.wait()
                    nursery.cancel_scope.cancel()
            await bridge.call(close)  # which waits for the one before
            assert member._client.subscription() == {topic}


async def test_a_topic_whose_closing_is_cut_off_while_another_is_opened_is_closed_all_the_same(
    url, topic
):
    with trio.fail_after(20):
        async with open_bus(url, kafka=QUICK) as bus:
            await bus.subscribe(topic, Seen(), group=topic)
            await bus.subscribe(f"{topic}-other", Seen(), group=topic)
            member, bridge, engine = (
                member_of(bus, topic),
                transport_of(bus)._bridge,
                engine_of(bus),
            )
            lock, other = engine._lock(topic), member.topics[f"{topic}-other"]
            await bridge.call(lock.acquire)  # as somebody does who is being opened
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bridge.call, engine.close_feed, other)
                while other not in engine._leaving:  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.001)
                nursery.cancel_scope.cancel()
            bridge.submit(lock.release)
            while member._client.subscription() != {topic}:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            assert not engine._leaving


async def test_a_topic_is_read_from_what_is_committed_wherever_the_client_has_got_to(url, topic):
    """It may have read on for a subscription that was closed, and is open again."""
    other, seen = f"{topic}-other", Seen()
    with trio.fail_after(20):
        async with open_bus(url, topics=[topic, other], kafka=QUICK) as bus:
            await publish_text(bus, other, "abcde")
            await bus.subscribe(topic, Seen(), group=topic, start="earliest")
            member, bridge = member_of(bus, topic), transport_of(bus)._bridge
            bridge.submit(member._client.seek, TopicPartition(other, 0), 3)
            await bus.subscribe(other, seen, group=topic, start="earliest")
            await seen.wait(5)
    assert seen.text == "abcde"


@pytest.mark.parametrize("moment", ["_take_over", "_give_up"])
async def test_a_bug_in_the_middle_of_a_rebalance_ends_the_bus(url, topic, monkeypatch, moment):
    """aiokafka logs what a listener raises, and goes on: the group would just stand still."""

    async def stumble(*args, **kwargs):
        raise ZeroDivisionError("a bug")

    with trio.fail_after(20), raising(BusError, "a bug") as raised:
        async with open_bus(url, kafka=QUICK) as bus:
            await bus.subscribe(topic, Seen(), group=topic)
            monkeypatch.setattr(member_of(bus, topic), moment, stumble)
            async with open_bus(url, kafka=QUICK) as two:
                await two.subscribe(topic, Seen(), group=topic)
                await trio.sleep_forever()
    [cause] = raised.error.causes
    assert isinstance(cause, ZeroDivisionError)


@pytest.mark.parametrize("task", ["_coordinator._coordination_task", "_fetcher._fetch_task"])
async def test_a_client_whose_own_task_has_died_is_replaced_even_where_nothing_is_asked_of_it(
    url, topic, task
):
    gate, seen = Gate(), Seen()

    async def handle(message):
        await gate(message)
        seen.add(message)

    with trio.fail_after(20):
        async with open_bus(url, kafka=QUICK) as bus, watching(bus) as watch:
            await bus.subscribe(topic, handle, group=topic, max_in_flight=1)
            # The rest is fetched, and finds no room.
            await publish_text(bus, topic, "abcd")
            await gate.wait(1)
            client = member_of(bus, topic)._client
            transport_of(bus)._bridge.submit(attrgetter(task)(client).cancel)
            await watch.wait(PartitionsAssigned, 2)
            gate.open()
            await seen.wait(4)
            lost = [one for one in watch.of(PartitionsRevoked) if one.lost]
    assert seen.text == "abcd"
    assert len(lost) == 1


async def test_partitions_that_were_lost_with_no_room_left_are_read_on_when_they_come_back(
    url, topic
):
    """The handler outlasts the drain, so that nothing of what filled the room is settled."""
    entered: list[int] = []
    free, seen = trio.Event(), Seen()
    began = trio.Event()

    async def handle(message):
        entered.append(message.epoch)
        began.set()
        await free.wait()
        seen.add(message)

    with trio.fail_after(20):
        async with open_bus(url, kafka={**QUICK, "drain": 0.1}) as one:
            await publish_text(one, topic, "abcdefgh")
            await one.subscribe(topic, handle, group=topic, max_in_flight=2)
            await began.wait()
            async with open_bus(url, kafka=QUICK) as two:
                await two.subscribe(f"{topic}-other", Seen(), group=topic)
                free.set()
                await seen.wait(8)
    assert seen.text == "abcdefgh"


# --- what the client holds ---------------------------------------------------------------


async def test_nothing_is_left_to_the_client_s_defaults_that_would_lose_something(url, topic):
    """They store with one copy, number nothing, and commit what nobody has handled yet."""
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await bus.subscribe(topic, seen, group=topic)
            await bus.subscribe(topic, seen, start="earliest")
            await bus.publish(topic, b"x")
            await seen.wait(2)
            engine = engine_of(bus)
            producer = engine._producers.current
            assert producer is not None
            sender = producer.client._sender
            readers = [member_of(bus, topic)._client, *(s._client for s in engine._solos.values())]
    assert sender._acks == -1, "not by every copy"
    assert sender._txn_manager is not None, "not idempotent"
    assert len(readers) == 2
    assert not any(reader._enable_auto_commit for reader in readers)
    assert {reader._auto_offset_reset for reader in readers} == {"none"}


def test_no_client_older_than_the_one_whose_batches_wait_as_told_is_asked_for():
    wanted = [one for one in requires("tbus") or () if one.startswith("aiokafka")]
    assert wanted
    assert all(">=0.14" in one for one in wanted)


async def test_nobody_asks_again_and_again_about_topics_that_are_not_in_use(url, topic):
    async with open_bus(url) as bus:
        await bus.publish(topic, b"x", key="k")
        await bus.subscribe(topic, Seen(), group=topic)
        client = engine_of(bus).link.admin._client
        await transport_of(bus)._bridge.call(client.force_metadata_update)
        assert client.cluster.brokers()
        assert client.cluster.controller is not None
        assert client.cluster.topics() == set()


async def test_a_reader_that_goes_away_is_not_counted_as_one_that_waits(url, topic):
    """Of a call that is cancelled the client thinks for ever that it still reads."""
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await bus.publish(topic, b"x")
            async with bus.open_messages(topic, group=topic, start="earliest") as messages:
                state = member_of(bus, topic)._client._subscription

                async def count():
                    return state._fetch_count

                for number in range(12):
                    with trio.move_on_after(0.0005 * 1.5**number):
                        async for message in messages:
                            async with message:
                                await bus.publish(topic, b"x")
                    assert await transport_of(bus)._bridge.call(count) == 0


async def test_what_was_fetched_for_a_partition_without_room_is_kept_while_others_are_read(
    url, topic
):
    """Asked for everything, the client would throw it away, and fetch it again and again."""
    gate, full, free = Gate(), Seen(), Seen()

    async def handle(message):
        await gate(message)
        full.add(message)

    count, other, long = 40, f"{topic}-other", "x" * 100_000  # three answers of the broker, or more
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await publish_pairs(bus, topic, [("k", f"{number} {long}") for number in range(count)])
            await bus.subscribe(other, free, group=topic)
            await bus.subscribe(topic, handle, group=topic, max_in_flight=5, order="none")
            await gate.wait(5)
            member = member_of(bus, topic)
            kept, read = member._client._fetcher._records, member._fetching._fetched
            while not ((topic, 0) in kept and (topic, 0) in read):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.001)
            before = kept[topic, 0]
            await publish_text(bus, other, LETTERS)
            await free.wait(len(LETTERS))
            assert kept[topic, 0] is before
            gate.open()
            await full.wait(count)
    assert sorted(int(body.split()[0]) for body in full.bodies) == list(range(count))


async def test_a_commit_that_was_cut_off_and_happened_does_no_harm(url, server, topic, monkeypatch):
    """Cancelling one does not take it back."""
    seen, again = Seen(), Seen()
    cut = trio.Semaphore(0)
    monkeypatch.setattr("tbus.transports.kafka._committer.COMMIT_WAIT", 0.05)
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await bus.subscribe(topic, seen, group=topic)
            coordinator = member_of(bus, topic)._client._coordinator
            commit_offsets = coordinator._do_commit_offsets

            async def commit_and_hang(*args):
                await commit_offsets(*args)
                transport_of(bus)._bridge.post(cut.release)
                await asyncio.sleep(3600)

            with monkeypatch.context() as patched:
                patched.setattr(coordinator, "_do_commit_offsets", commit_and_hang)
                for number, letter in enumerate("abc"):
                    await publish_text(bus, topic, letter)
                    await seen.wait(number + 1)
                    await cut.acquire()
            await publish_text(bus, topic, "def")
            await seen.wait(6)
            await wait_committed(server, topic, topic, 6)
        async with open_bus(url) as bus:
            await publish_text(bus, topic, "g")
            await bus.subscribe(topic, again, group=topic)
            await again.wait(1)
    assert seen.text == "abcdef"
    assert again.text == "g"


# --- publishing --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gzip", "snappy", "lz4", "zstd"])
async def test_what_is_published_compressed_takes_less_and_comes_back_as_it_was(
    url, server, topic, kind
):
    seen = Seen()
    body = b"0123456789" * 10_000
    with trio.fail_after(20):
        await make_topic(server, topic, {"max.message.bytes": "20000"})
        async with open_bus(url) as plain:
            with pytest.raises(PublishRefused):
                await plain.publish(topic, body)
        async with open_bus(url, kafka={"compression": kind}) as bus:
            await bus.subscribe(topic, seen, group=topic)
            await bus.publish(topic, body, key="k", headers=(("a", "b"),))
            async with bus.open_publisher() as publisher:
                for one in LETTERS:
                    await publisher.send(topic, one.encode(), key="k")
            await seen.wait(1 + len(LETTERS))
    assert seen.bodies[0] == body
    assert seen.messages[0].headers == (("a", "b"),)
    assert b"".join(seen.bodies[1:]).decode() == LETTERS


async def test_a_message_the_topic_is_too_small_for_is_refused_and_no_other(url, server, topic):
    outcomes: dict[int, Receipt | PublishRefused] = {}
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await make_topic(server, topic, {"max.message.bytes": "20000"})
            await bus.subscribe(topic, seen, group=topic)
            with pytest.raises(PublishRefused, match=r"30000 bytes.*max\.message\.bytes"):
                await bus.publish(topic, bytes(30_000))
            async with trio.open_nursery() as nursery:

                async def publish(number):
                    body = bytes(30_000) if number in (7, 31) else str(number).encode()
                    try:
                        outcomes[number] = await bus.publish(topic, body, key="k")
                    except PublishRefused as error:
                        outcomes[number] = error

                for number in range(60):
                    nursery.start_soon(publish, number)
            refused = {
                number for number, one in outcomes.items() if isinstance(one, PublishRefused)
            }
            await bus.publish(topic, b"after", key="k")
            await seen.wait(59)
    assert refused == {7, 31}
    assert sorted(seen.bodies[:-1]) == sorted(
        str(number).encode() for number in range(60) if number not in refused
    )
    assert seen.bodies[-1] == b"after"
    offsets = [one.position.offset for one in outcomes.values() if isinstance(one, Receipt)]
    assert sorted(offsets) == list(range(58))


async def test_a_pipelined_publisher_keeps_its_order_around_a_refused_message(url, server, topic):
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await make_topic(server, topic, {"max.message.bytes": "20000"})
            with raising(PublishFailed) as raised:
                async with bus.open_publisher() as publisher:
                    for number in range(200):
                        body = bytes(30_000) if number == 100 else str(number).encode()
                        await publisher.send(topic, body, key="k")
            found = await records(server, topic, 199)
    assert len(raised.error.outcomes) == 1
    assert [int(one.value) for one in found] == [one for one in range(200) if one != 100]


@pytest.mark.parametrize("rule", ["murmur2", "fnv1a"])
async def test_a_key_goes_where_the_chosen_rule_says(url, server, topic, rule):
    pick = partitioner(rule)
    keys = [f"order-{number}" for number in range(40)] + ["ü", "订单"]
    with trio.fail_after(20):
        async with open_bus(url, kafka={"partitioner": rule}) as bus:
            await bus.configure_topic(topic, TopicOptions(partitions=7))
            for key in keys:
                await bus.publish(topic, b"x", key=key)
            found = await records(server, topic, len(keys))
    numbers = range(7)
    assert {one.key for one in found} == {key.encode("utf-8", "surrogateescape") for key in keys}
    for one in found:
        assert one.partition == pick(one.key, numbers, numbers), one.key


@pytest.mark.parametrize("remover", ["the same bus", "another program"])
@pytest.mark.parametrize("partitions", [9, 2])
async def test_a_publisher_follows_a_topic_that_was_made_again_with_other_partitions(
    url, server, topic, partitions, remover
):
    pick = partitioner("murmur2")
    keys = [f"order-{number}" for number in range(40)]
    with trio.fail_after(30):
        async with open_bus(url) as bus:
            await bus.configure_topic(topic, TopicOptions(partitions=5))
            for key in keys:
                await bus.publish(topic, b"x", key=key)
            async with AsyncExitStack() as others:
                by = (
                    bus
                    if remover == "the same bus"
                    else await others.enter_async_context(open_bus(url))
                )
                await by.remove_topic(topic)
                await by.configure_topic(topic, TopicOptions(partitions=partitions))
            if by is not bus:
                await wait_looked(bus)
            receipts = [await bus.publish(topic, b"x", key=key) for key in keys]
    numbers = range(partitions)
    for key, receipt in zip(keys, receipts, strict=True):
        assert receipt.position.partition == pick(key.encode(), numbers, numbers)


async def test_a_topic_that_was_there_before_is_still_known_when_another_one_is_published_to(
    url, server, topic
):
    """The client would ask about that one alone, and forget the first, and its leaders."""
    await make_topic(server, topic, {})
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await bus.publish(topic, b"a")
            await bus.publish(f"{topic}-other", b"b")
            producer = engine_of(bus)._producers.current
            assert producer is not None
            client = producer.client.client
            await transport_of(bus)._bridge.call(client.force_metadata_update)
            assert client.cluster.topics() >= {topic, f"{topic}-other"}
            await bus.publish(topic, b"c", timeout=5)


async def test_a_publisher_follows_partitions_that_are_added(url, server, topic):
    pick = partitioner("murmur2")
    keys = [f"order-{number}" for number in range(40)]
    with trio.fail_after(30):
        async with open_bus(url) as bus:
            await bus.configure_topic(topic, TopicOptions(partitions=2))
            for key in keys:
                await bus.publish(topic, b"x", key=key)
            await add_partitions(server, topic, 6)
            await wait_looked(bus)
            receipts = [await bus.publish(topic, b"x", key=key) for key in keys]
    for key, receipt in zip(keys, receipts, strict=True):
        assert receipt.position.partition == pick(key.encode(), range(6), range(6))


async def test_whatever_another_program_has_stored_goes_to_the_dead_letters_as_it_is(
    url, server, topic
):
    stored: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
        (b"k", None, []),
        (b"\xff\xfe", b"x", []),
        (b"", b"", [("", b"")]),
        (b"k" * 1000, b"x", []),
        (b"a\nb", b"x", [("a b:c\n", b"1\n2")]),
        (b"k", b"x", [("a", None)]),
        (b"k", b"x", [("a", b"\xff\xfe")]),
        (b"k", b"x", [("Tbus-Mirror", b"99"), ("a", b"b")]),
        (b"k", b"x", [("Tbus-Mirror", b"\xb2")]),
        (b"k", b"x", [("Tbus-Mirror", None)]),
        (b"k", b"x", [(f"name-{number}", b"v") for number in range(1000)]),
        (b"k", bytes(900_000), []),
    ]

    async def refuse(message):
        raise Reject("no")

    with trio.fail_after(20):
        await make_topic(server, topic, {})
        for key, value, headers in stored:
            await produce(server, topic, value, key=key, headers=headers)
        async with open_bus(url) as bus, watching(bus) as watch:
            dead = f"{topic}.dead"
            await bus.subscribe(topic, refuse, group=topic, order="partition", dead_letter=dead)
            await watch.wait(DeadLettered, len(stored))
        found = await records(server, dead, len(stored))
    assert [one.key for one in found] == [key for key, _, _ in stored]
    assert [one.value for one in found] == [value or b"" for _, value, _ in stored]


# --- topics ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "change"),
    [
        ("partitions", 3, None),
        ("replicas", 2, None),
        ("retention_time", 60.0, 60.0),
        ("compression", "zstd", "zstd"),
    ],
)
async def test_a_topic_that_differs_is_changed_where_that_loses_nothing(
    url, topic, field, value, change
):
    wanted = TopicOptions(partitions=2, retention_time=3600.0)
    other = attrs.evolve(wanted, **{field: value})
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            made = await bus.configure_topic(topic, wanted)
            with pytest.raises(ConfigurationError, match=field):
                await bus.configure_topic(topic, other, strategy="validate_only")
            for strategy in ("create_only", "skip"):
                assert await bus.configure_topic(topic, other, strategy=strategy) == made
            assert await bus.get_topic(topic) == made
            if change is None:
                with pytest.raises(ConfigurationError, match=field):
                    await bus.configure_topic(topic, other)
                assert await bus.get_topic(topic) == made
            else:
                changed = await bus.configure_topic(topic, other)
                assert getattr(changed, field) == change
                assert await bus.get_topic(topic) == changed


async def test_what_was_set_by_others_survives_a_change(url, server, topic):
    with trio.fail_after(20):
        async with open_bus(url) as bus:
            await make_topic(server, topic, {"max.message.bytes": "20000"})
            await bus.configure_topic(topic, TopicOptions(retention_time=60.0))
            with pytest.raises(PublishRefused, match=r"max\.message\.bytes"):
                await bus.publish(topic, bytes(30_000))


# --- cancelling --------------------------------------------------------------------------


async def test_a_subscribe_cancelled_at_any_moment_leaves_no_member_in_the_group(
    url, server, topic
):
    with trio.fail_after(40):
        async with open_bus(url, kafka=QUICK) as bus:
            await bus.publish(topic, b"x")
            for number in range(8):
                subscription = None
                with trio.move_on_after(0.001 * 2**number):
                    subscription = await bus.subscribe(topic, Seen(), group=topic)
                if subscription is not None:
                    await subscription.close()
            seen = Seen()
            await bus.subscribe(topic, seen, group=f"{topic}-after")
            await seen.wait(1)
            await wait_empty(server, topic)
