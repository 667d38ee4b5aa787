"""On NATS, readers of a group share its partitions or, without order, its messages."""

from __future__ import annotations

import pytest
import trio

from tbus import Message, SubscriptionFailed, TopicOptions, open_bus
from tbus._errors import ConfigurationError
from tbus._events import MembersChanged, PartitionsAssigned, PartitionsRevoked
from tbus.testing.conformance._kit import Gate, Seen, publish_text, watching
from tests.brokers.nats import NatsServer


async def ignore(message: Message) -> None:
    """Handle nothing."""


async def test_a_group_is_read_with_order_or_without_but_not_both_at_once(
    shared_nats_server: NatsServer, topic: str
) -> None:
    ordered, unordered = Seen(), Seen()
    async with (
        open_bus(shared_nats_server.url) as first,
        open_bus(shared_nats_server.url) as second,
    ):
        await first.subscribe(topic, ordered, group="g")
        await first.subscribe(topic, unordered, group="h", order="none")
        await first.publish(topic, b"x")  # they are reading when they have it
        await ordered.wait(1)
        await unordered.wait(1)
        with pytest.raises(SubscriptionFailed, match=r"'g'.*with order.*order='key'"):
            await second.subscribe(topic, ignore, group="g", order="none")
        with pytest.raises(SubscriptionFailed, match=r"'h'.*without order.*order='none'"):
            await second.subscribe(topic, ignore, group="h")


async def test_a_group_that_was_read_without_order_may_be_read_with_it_and_the_reverse(
    shared_nats_server: NatsServer, topic: str
) -> None:
    for order, text in (("none", "abc"), ("key", "def"), ("none", "ghi"), ("key", "jkl")):
        seen = Seen()
        async with open_bus(shared_nats_server.url) as bus:
            await bus.subscribe(topic, seen, group="g", order=order)  # type: ignore[arg-type]
            await publish_text(bus, topic, text)
            with trio.fail_after(10):
                await seen.wait(3)
        assert sorted(seen.text) == sorted(text)


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


async def test_each_key_has_one_partition_and_every_reader_sees_which(
    shared_nats_server: NatsServer, topic: str
) -> None:
    member, alone, shared = Seen(), Seen(), Seen()
    async with open_bus(shared_nats_server.url) as bus, watching(bus) as watch:
        await bus.configure_topic(topic, TopicOptions(partitions=5))
        await bus.subscribe(topic, alone)
        await bus.subscribe(topic, member, group="g")
        await bus.subscribe(topic, shared, group="h", order="none")
        receipts = [
            await bus.publish(topic, b"x", key=f"key-{number % 20}") for number in range(40)
        ]
        with trio.fail_after(10):
            for seen in (member, alone, shared):
                await seen.wait(40)
        lag = await bus.lag(topic, "g")
        assigned = watch.of(PartitionsAssigned)
    wanted = sorted(receipt.position for receipt in receipts)
    assert {position.partition for position in wanted} == {0, 1, 2, 3, 4}
    assert [receipt.position.partition for receipt in receipts[:20]] == [
        receipt.position.partition for receipt in receipts[20:]
    ]
    for seen in (member, alone, shared):
        assert sorted(message.position for message in seen.messages) == wanted
    assert [message.position for message in alone.messages] == [r.position for r in receipts]
    assert [one.partition for one in lag.partitions] == [0, 1, 2, 3, 4]
    assert [event.partitions for event in assigned] == [(0, 1, 2, 3, 4)]
    assert {message.epoch for message in member.messages} == {assigned[0].epoch}


async def test_a_change_of_partitions_is_refused_with_a_way_to_do_it(
    shared_nats_server: NatsServer, topic: str
) -> None:
    async with open_bus(shared_nats_server.url) as bus:
        await bus.configure_topic(topic, TopicOptions(partitions=3))
        with pytest.raises(ConfigurationError, match=r"partitions.*tbus lag.*remove the topic"):
            await bus.configure_topic(topic, TopicOptions(partitions=4))
        found = await bus.get_topic(topic)
        assert found is not None
        assert found.partitions == 3


async def test_a_publisher_with_an_old_number_of_partitions_looks_again(
    shared_nats_server: NatsServer, topic: str
) -> None:
    seen = Seen()
    async with (
        open_bus(shared_nats_server.url) as bus,
        open_bus(shared_nats_server.url) as other,
    ):
        for partitions in (1, 3, 4, 1):
            await other.configure_topic(topic, TopicOptions(partitions=partitions))
            receipts = [await bus.publish(topic, b"x", key=f"{n}") for n in range(20)]
            assert {r.position.partition for r in receipts} == set(range(partitions))
            await other.remove_topic(topic)
    assert not seen.messages


async def test_the_hash_is_fnv1a_in_32_bits_as_everybody_has_it() -> None:
    from tbus.transports.nats._partitions import fnv1a_32

    # The vectors of RFC 9923.
    assert fnv1a_32(b"") == 0x811C9DC5
    assert fnv1a_32(b"a") == 0xE40C292C
    assert fnv1a_32(b"foobar") == 0xBF9CF968


async def test_a_reader_that_ends_gives_away_at_once_what_it_is_not_handling(
    shared_nats_server: NatsServer, topic: str
) -> None:
    gate, seen = Gate(), Seen()
    with trio.fail_after(20):
        async with (
            open_bus(shared_nats_server.url) as first,
            open_bus(shared_nats_server.url) as second,
            watching(second) as watch,
            trio.open_nursery() as nursery,
        ):
            await first.configure_topic(topic, TopicOptions(partitions=4))
            subscription = await first.subscribe(topic, gate, group="g")
            held = await first.publish(topic, b"held", key="k")
            await gate.wait(1)
            await second.subscribe(topic, seen, group="g")
            nursery.start_soon(subscription.close)
            while sum(len(event.partitions) for event in watch.of(PartitionsAssigned)) < 3:
                await watch.wait(PartitionsAssigned, len(watch.of(PartitionsAssigned)) + 1)
            assert gate.inside
            given = {p for event in watch.of(PartitionsAssigned) for p in event.partitions}
            assert given == {0, 1, 2, 3} - {held.position.partition}
            await second.publish(topic, b"next", key="k")
            gate.open()
            await seen.wait(1)
    assert seen.text == "next"


async def test_events_census_and_lag_tell_members_owners_epochs_and_moves(
    shared_nats_server: NatsServer, topic: str
) -> None:
    gate, seen = Gate(), Seen()
    with trio.fail_after(30):
        async with (
            open_bus(shared_nats_server.url) as first,
            open_bus(shared_nats_server.url) as second,
            watching(first) as firsts,
            watching(second) as seconds,
        ):
            await first.configure_topic(topic, TopicOptions(partitions=2))
            await first.subscribe(topic, gate, group="g")
            for key in ("a", "b", "c", "d"):
                await first.publish(topic, b"x", key=key)
            await gate.wait(4)
            alone = await firsts.wait(MembersChanged)
            await second.subscribe(topic, seen, group="g")
            joined = await seconds.wait(MembersChanged)
            moving = await first.lag(topic, "g")
            gate.open()
            assigned = await seconds.wait(PartitionsAssigned)
            revoked = await firsts.wait(PartitionsRevoked)
            while any(one.heir for one in (await first.lag(topic, "g")).partitions):  # noqa: ASYNC110
                await trio.sleep(0.01)
            moved = await first.lag(topic, "g")
            held = [bus.census() for bus in (first, second)]
    # Either sees the other one as itself.
    assert alone.members == (alone.own,)
    assert joined.members == tuple(sorted((alone.own, joined.own)))
    assert firsts.of(MembersChanged)[1].members == joined.members
    # While it moves, and then.
    [partition] = assigned.partitions
    assert (revoked.partitions, revoked.lost) == ((partition,), False)
    assert moving.members == moved.members == joined.members
    heirs = {one.partition: one.heir for one in moving.partitions}
    assert heirs == {partition: joined.own, 1 - partition: None}
    owners = {one.partition: (one.owner, one.epoch) for one in moved.partitions}
    assert owners == {partition: (joined.own, assigned.epoch), 1 - partition: (alone.own, 1)}
    leases = [[h for h in census.holdings if h.kind == "lease"] for census in held]
    assert [(lease.topic, lease.waits_for) for [lease] in leases] == [
        (topic, f"g as {alone.own}: {1 - partition} (epoch 1)"),
        (topic, f"g as {joined.own}: {partition} (epoch {assigned.epoch})"),
    ]
