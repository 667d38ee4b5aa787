"""Everything that lives in the clients' loop, wired together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import anyio
from aiokafka.structs import TopicPartition

from ..._config import BusConfig
from ..._errors import ConsumerGone, TbusError
from ..._events import Event
from ..._marks import decode
from ..._message import Receipt
from ..._topic import no_topic
from ..._transport import Outgoing, PartitionLag
from ._asking import ask
from ._group import GroupMember
from ._group_list import GroupList
from ._link import Link
from ._offsets import Offsets
from ._outbox import Outbox
from ._partitioners import partitioner
from ._producers import Producers
from ._solo import SoloReader
from ._topic_consumer import TopicConsumer
from ._topics import Topics

GIVE_UP_WAIT = 2.0
"""Seconds for cleaning up after a feed that could not be opened."""


class Engine:
    """Link, outbox, topics, groups and readers of one transport.

    Args:
        start: starts a task in the loop's nursery.
        emit: tells the program of an event.
        tell: tells the program an outcome.
        tell_stored: the same for a batch that is stored.
        idempotent: whether the broker can tell a producer's repeat.
    """

    def __init__(
        self,
        config: BusConfig,
        *,
        start: Callable[..., None],
        emit: Callable[[Event], None],
        tell: Callable[[Outgoing, Receipt | TbusError], None],
        tell_stored: Callable[[list[tuple[Outgoing, Receipt]]], None],
        idempotent: bool,
    ) -> None:
        self._config = config
        self._options = config.kafka
        self._start = start
        self._emit = emit
        self.link = Link(config.kafka, config.source, emit)
        self.topics = Topics(self.link.admin, config.kafka, emit)
        self._offsets = Offsets(self.link.admin, self.topics)
        self.groups = GroupList(self.link.admin)
        self._producers = Producers(config.kafka, config.source, start, idempotent=idempotent)
        self.outbox = Outbox(
            self._producers,
            self.topics,
            partitioner(config.kafka.partitioner),
            start,
            tell,
            tell_stored,
        )
        self._members: dict[str, GroupMember] = {}
        self._solos: dict[TopicConsumer, SoloReader] = {}
        self._leaving: set[TopicConsumer] = set()
        """Feeds that wait for being closed."""
        self._changing: dict[str, asyncio.Lock] = {}

    async def open(self) -> None:
        """Connect, and keep an eye on the connection."""
        try:
            await self.link.connect()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.link.close()
            raise
        self._start(self.link.watch, self._look)

    async def close(self) -> None:
        """Close every connection."""
        async with anyio.create_task_group() as tasks:
            for member in self._members.values():
                tasks.start_soon(member.close)
            for solo in self._solos.values():
                tasks.start_soon(solo.close)
            tasks.start_soon(self._producers.close)
            tasks.start_soon(self.link.close)

    # Feeds

    async def open_feed(self, consumer: TopicConsumer) -> None:
        """Read a topic; cancelled, or failed, it leaves nothing."""
        topic = consumer.request.topic
        partitions = await ask(lambda: self.topics.ensure(topic))
        try:
            if consumer.request.group is None:
                await self._open_solo(consumer, partitions)
            else:
                await self._join(consumer, consumer.request.group, partitions)
        except BaseException:
            with anyio.move_on_after(GIVE_UP_WAIT, shield=True):
                await self.close_feed(consumer)
            raise

    async def close_feed(self, consumer: TopicConsumer) -> None:
        """Give a feed up: what is settled is committed, what is not is somebody else's."""
        consumer.stop()
        solo = self._solos.pop(consumer, None)
        if solo is not None:
            await solo.close()
        group = consumer.request.group
        if group is None or group not in self._members:
            return
        self._leaving.add(consumer)
        lock = self._lock(group)
        try:
            await lock.acquire()
        except BaseException:
            # Another one is being opened. Until this is done nobody reads its partitions.
            self._start(self._leave_later, consumer, group)
            raise
        try:
            await self._leave(consumer, group)
        finally:
            lock.release()

    async def _leave_later(self, consumer: TopicConsumer, group: str) -> None:
        async with self._lock(group):
            await self._leave(consumer, group)

    async def _leave(self, consumer: TopicConsumer, group: str) -> None:
        self._leaving.discard(consumer)
        member = self._members.get(group)
        if member is None:
            return
        others = [topic for topic in member.topics.values() if topic is not consumer]
        try:
            # When a bus ends all its feeds go: the group need not hear of each.
            await member.remove(consumer, quietly=self._leaving.issuperset(others))
        finally:
            if not member.topics:
                self._members.pop(group, None)
                with anyio.CancelScope(shield=True):  # it has deadlines of its own
                    await member.close()

    def drop(self, consumers: Sequence[TopicConsumer]) -> None:
        """Close feeds that nobody waits for any more."""
        for consumer in consumers:
            self._start(self.close_feed, consumer)

    async def _open_solo(self, consumer: TopicConsumer, partitions: int) -> None:
        solo = self._solos[consumer] = SoloReader(
            consumer,
            self._options,
            self._config.source,
            admin=self.link.admin,
            offsets=self._offsets,
            start=self._start,
        )
        await solo.open(partitions)

    async def _join(self, consumer: TopicConsumer, group: str, partitions: int) -> None:
        async with self._lock(group):
            member = self._members.get(group)
            if member is None:
                member = self._members[group] = GroupMember(
                    group,
                    self._options,
                    self._config.source,
                    offsets=self._offsets,
                    admin=self.link.admin,
                    start=self._start,
                    emit=self._emit,
                )
            for topic in self._config.topics:
                await ask(partial(self.topics.ensure, topic))
            await member.add(consumer, partitions, self._config.topics)

    def _lock(self, group: str) -> asyncio.Lock:
        return self._changing.setdefault(group, asyncio.Lock())

    # Questions

    async def ping(self) -> None:
        """Ask some broker for a sign of life."""
        await ask(lambda: self.topics.look(()))

    async def remove_topic(self, topic: str) -> bool:
        """Remove a topic, and forget what was known of it."""
        self.outbox.forget(topic)
        return await ask(lambda: self.topics.remove(topic))

    async def lag(self, topic: str, group: str) -> list[PartitionLag] | None:
        """How far a group is behind; None if it has never read the topic.

        What is settled beyond the committed offset counts as read.

        Raises:
            ConsumerGone: there is no such topic.
        """
        found = await ask(lambda: self.topics.look([topic]))
        count = found[topic]
        if count is None:
            raise no_topic(topic)
        everyone = [TopicPartition(topic, number) for number in range(count)]
        member = self._members.get(group)
        if member is not None:
            await member.commit()
        committed = await self._offsets.committed(group, everyone)
        if not committed:
            return None
        begins = await self._offsets.begins(everyone)
        ends = await self._offsets.ends(everyone)
        owners = await ask(lambda: self.groups.owners(topic, group))
        result = []
        for part in everyone:
            entry = committed.get(part)
            first = begins[part] if entry is None else max(entry.offset, begins[part])
            mark = None if entry is None else decode(entry.metadata.partition(" ")[0], entry.offset)
            beyond = 0 if mark is None else sum(last - start + 1 for start, last in mark.runs)
            behind = max(0, ends[part] - first - beyond)
            owner = owners.get(part.partition)
            result.append(PartitionLag(part.partition, behind, owner=owner))
        return result

    async def last_positions(self, topic: str) -> dict[int, int]:
        """The offset of the last message of each partition that has one."""
        count = (await ask(lambda: self.topics.look([topic])))[topic]
        if count is None:
            return {}
        everyone = [TopicPartition(topic, number) for number in range(count)]
        begins = await self._offsets.begins(everyone)
        ends = await self._offsets.ends(everyone)
        return {p.partition: ends[p] - 1 for p in everyone if ends[p] > begins[p]}

    # The link

    async def _look(self) -> None:
        """Are the topics in use still there? And is anybody?"""
        feeds = [
            consumer for member in self._members.values() for consumer in member.topics.values()
        ]
        feeds += self._solos
        in_use = {consumer.request.topic for consumer in feeds} | self.outbox.topics()
        found = await self.topics.look(in_use)
        for topic, count in found.items():
            if count is None:
                self.outbox.forget(topic)
            else:
                self.outbox.resize(topic, count)
        for consumer in feeds:
            count = found[consumer.request.topic]
            if count is None:
                consumer.fail(_gone(consumer.request.topic))
            elif consumer in self._solos:
                self._solos[consumer].expand(count)


def _gone(topic: str) -> ConsumerGone:
    return ConsumerGone(
        f"topic {topic!r} was removed: what it held is gone. Open the subscription again to start"
        " with a new one"
    )


async def open_engine(
    config: BusConfig,
    *,
    start: Callable[..., None],
    emit: Callable[[Event], None],
    tell: Callable[[Outgoing, Receipt | TbusError], None],
    tell_stored: Callable[[list[tuple[Outgoing, Receipt]]], None],
    idempotent: bool,
) -> Engine:
    """Make the engine in the clients' loop, and connect.

    Raises:
        TransportLost: no broker could be reached.
    """
    engine = Engine(
        config, start=start, emit=emit, tell=tell, tell_stored=tell_stored, idempotent=idempotent
    )
    await engine.open()
    return engine
