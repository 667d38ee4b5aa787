"""What the tests of Kafka's faults and edges share: traffic, and questions with plain aiokafka."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition

from tbus import Bus, Message, OutcomeUnknown, PublishRefused, TransportLost
from tbus.transports.kafka._engine import Engine
from tbus.transports.kafka._group import GroupMember
from tbus.transports.kafka._transport import KafkaTransport

T = TypeVar("T")


# --- what a bus has in the clients' loop -------------------------------------------------


def transport_of(bus: Bus) -> KafkaTransport:
    """The transport of a bus over Kafka."""
    assert isinstance(bus.transport, KafkaTransport)
    return bus.transport


def engine_of(bus: Bus) -> Engine:
    """What lives in the clients' loop: to be looked at from outside."""
    return transport_of(bus)._engine


def member_of(bus: Bus, group: str) -> GroupMember:
    """The bus's member of a group."""
    return engine_of(bus)._members[group]


async def wait_fetching(bus: Bus, group: str) -> None:
    """Wait until a broker has been asked for more, and has not answered."""
    client = member_of(bus, group)._client
    while not client._fetcher._in_flight:  # noqa: ASYNC110 - the client tells nobody
        await trio.sleep(0.001)


async def wait_looked(bus: Bus) -> None:
    """Have the bus look now, as it does every few seconds, whether its topics are as they were."""
    await transport_of(bus)._ask(engine_of(bus)._look)


# --- traffic ---------------------------------------------------------------------------


class Traffic:
    """Publishes numbers for a few keys, one after another, and notes what is acknowledged.

    Args:
        timeout: seconds for a publish.
    """

    def __init__(self, timeout: float = 15.0) -> None:
        self._timeout = timeout
        self.acknowledged: dict[str, list[int]] = defaultdict(list)
        self.first: dict[str, list[int]] = defaultdict(list)
        self.repeats = 0
        self._seen: set[tuple[str, int]] = set()
        self._stop = False
        self._more = trio.Event()

    async def handle(self, message: Message) -> None:
        event = (str(message.key), int(message.body))
        if event in self._seen:
            self.repeats += 1
        else:
            self._seen.add(event)
            self.first[event[0]].append(event[1])
        self._more.set()
        self._more = trio.Event()
        await trio.lowlevel.checkpoint()

    async def publish(self, bus: Bus, topic: str, key: str) -> None:
        for number in itertools.count():
            if self._stop:
                return
            try:
                await bus.publish(topic, str(number).encode(), key=key, timeout=self._timeout)
            except (OutcomeUnknown, TransportLost, PublishRefused):
                continue  # it may be there or not: nobody was told that it is
            self.acknowledged[key].append(number)
            await trio.sleep(0.001)

    def stop(self) -> None:
        self._stop = True

    async def wait(self, more: int) -> None:
        wanted = len(self._seen) + more
        while len(self._seen) < wanted:
            await self._more.wait()

    async def wait_all(self) -> None:
        while not all(
            {(key, number) for number in numbers} <= self._seen
            for key, numbers in self.acknowledged.items()
        ):
            await self._more.wait()

    def check(self) -> None:
        for key, numbers in self.first.items():
            assert numbers == sorted(numbers), key
            assert set(self.acknowledged[key]) <= set(numbers), key


# --- what only another program can do ----------------------------------------------------


async def in_asyncio(function: Callable[[], Awaitable[T]]) -> T:
    """Run it in a loop of its own, in another thread."""

    async def call() -> T:
        return await function()

    return await trio.to_thread.run_sync(lambda: asyncio.run(call()))


async def ask_admin(bootstrap: str, question: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
    """Ask by an administration client of this call's own."""

    async def ask() -> T:
        async with _administration(bootstrap) as admin:
            return await question(admin)

    return await in_asyncio(ask)


@asynccontextmanager
async def _administration(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()  # noqa: ASYNC102 - in a loop of its own, where nobody cancels


async def committed(bootstrap: str, group: str) -> dict[tuple[str, int], OffsetAndMetadata]:
    """All that a group has committed, by topic and partition."""

    return await ask_admin(bootstrap, lambda admin: _committed(admin, group))


async def wait_committed(bootstrap: str, group: str, topic: str, offset: int) -> None:
    """Return when the group has come so far in partition 0."""

    async def look(admin: AIOKafkaAdminClient) -> None:
        while (await _committed(admin, group))[topic, 0].offset < offset:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    await ask_admin(bootstrap, look)


async def _committed(
    admin: AIOKafkaAdminClient, group: str
) -> dict[tuple[str, int], OffsetAndMetadata]:
    await _describe(admin, group)
    found = await admin.list_consumer_group_offsets(group)
    return {tuple(part): entry for part, entry in found.items() if entry.offset >= 0}


async def _describe(admin: AIOKafkaAdminClient, group: str) -> Any:
    """What the group's coordinator knows, once it knows anything: after a start it first reads
    what it has stored, and a question for offsets finds nothing."""
    while True:
        try:
            [answer] = await admin.describe_consumer_groups([group])
        except kafka.KafkaError as error:
            if not error.retriable:
                raise
        else:
            [described] = answer.groups
            if not described[0]:
                return described
        await asyncio.sleep(0.02)


async def commit(
    bootstrap: str, group: str, topic: str, offset: int, metadata: str, partition: int = 0
) -> None:
    """Commit as another program would."""

    async def tell() -> None:
        part = TopicPartition(topic, partition)
        async with AIOKafkaConsumer(
            bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False
        ) as consumer:
            consumer.assign([part])
            await consumer.commit({part: OffsetAndMetadata(offset, metadata)})

    await in_asyncio(tell)


async def wait_empty(bootstrap: str, group: str) -> None:
    """Return when the group has no member."""

    async def look(admin: AIOKafkaAdminClient) -> None:
        while (await _describe(admin, group))[5]:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)

    await ask_admin(bootstrap, look)


async def delete_before(bootstrap: str, topic: str, offset: int, partition: int = 0) -> None:
    """Remove everything before `offset`, as retention does."""
    part = TopicPartition(topic, partition)
    await ask_admin(bootstrap, lambda admin: admin.delete_records({part: RecordsToDelete(offset)}))


async def add_partitions(bootstrap: str, topic: str, total: int) -> None:
    """Let the topic have so many, and return when every broker that is asked knows."""

    async def add(admin: AIOKafkaAdminClient) -> None:
        await admin.create_partitions({topic: NewPartitions(total)})
        while True:
            [found] = await admin.describe_topics([topic])
            if len(found["partitions"]) == total and all(
                part["leader"] >= 0 for part in found["partitions"]
            ):
                return
            await asyncio.sleep(0.02)

    await ask_admin(bootstrap, add)


async def make_topic(bootstrap: str, topic: str, configs: dict[str, str]) -> None:
    """A topic of one partition with these settings."""
    new = NewTopic(topic, 1, 1, topic_configs=configs)
    await ask_admin(bootstrap, lambda admin: admin.create_topics([new]))


async def records(bootstrap: str, topic: str, count: int) -> list[ConsumerRecord[Any, Any]]:
    """The first records of a topic, of all its partitions."""

    async def read() -> list[ConsumerRecord[Any, Any]]:
        async with AIOKafkaConsumer(
            topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest"
        ) as consumer:
            return [await consumer.getone() for _ in range(count)]

    return await in_asyncio(read)


async def produce(
    bootstrap: str, topic: str, *bodies: bytes | None, partition: int = 0, **fields: Any
) -> None:
    """Store bodies in a partition, as another program would."""

    async def store() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            for body in bodies:
                await producer.send_and_wait(topic, body, partition=partition, **fields)

    await in_asyncio(store)
