"""A member of a consumer group: one for each group of a bus, however many topics.

Lives in the clients' loop. The laws:

1. **Eager rebalances.** At every change of the group each member gives up all its partitions and
   is given new ones. What a member gives up is drained first: nothing more is handed over, what
   runs may end within the budget, what is settled is committed. Then the shares are gone, and
   with them their epoch: a completion that comes later finds nothing to settle.
2. **Where to begin** is never left to the client, which would skip what was stored between joining
   and the first commit: what has no commit gets its first one here, before anything is read.
   A partition that was added to a topic which the group reads is read from its beginning.
3. **Commits** go out in batches, by time and count, at each revocation and at the end: the first
   offset that is not settled, and the mark of what is settled beyond it. One is under way
   at a time. One that is cancelled may still have happened, which does no harm: the next says more.
4. **A member that the group has given up** (suspended for too long, cut off) has lost its
   partitions already: nothing is drained or committed, running handlers are cancelled.

The listener is called in the client's own task, which swallows what it raises: so everything in it
has a deadline, and a failure is told to the feeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import errors as kafka
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from ..._config import KafkaOptions
from ..._errors import TbusError
from ..._events import Event, PartitionsAssigned, PartitionsRevoked, RetentionTook
from ..._marks import Mark, decode, encode
from ._clients import client_options, close_client
from ._errors import LOST, describe, translated
from ._fetching import Fetching
from ._offsets import Offsets
from ._share import Commit, Share
from ._topic_consumer import TopicConsumer

logger = logging.getLogger("tbus.kafka")

COMMIT_WAIT = 5.0
"""Seconds for one commit."""

CLOSE_WAIT = 1.0
"""Seconds that a consumer gets for leaving its group, before its connections are closed."""

METADATA_LIMIT = 4096
"""Bytes of a commit's metadata. Source: Kafka's broker configuration, offset.metadata.max.bytes."""

POLL_INTERVAL = 24 * 3600.0
"""Seconds after which the client would leave its group because nobody asked it for records. It
is asked all the time, but only for partitions that have room, which it does not count."""

NO_GENERATION = -1

ASSIGNORS: dict[str, type[AbstractPartitionAssignor]] = {
    "sticky": StickyPartitionAssignor,
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
}


def _assignor(name: str) -> type[AbstractPartitionAssignor]:
    """A class of the member's own: the client's keeps what it remembers in the class."""
    return type(ASSIGNORS[name].__name__, (ASSIGNORS[name],), {})


class GroupMember(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Reads topics for one group.

    Args:
        admin: makes `Offsets`.
        start: starts a task in the loop's nursery.
        fail: the member cannot go on: told why, for every feed that it has.
    """

    def __init__(
        self,
        group: str,
        options: KafkaOptions,
        name: str,
        *,
        make_offsets: Callable[[AIOKafkaConsumer], Offsets],
        start: Callable[..., None],
        emit: Callable[[Event], None],
    ) -> None:
        self.group = group
        self._options = options
        self._start = start
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._consumer = AIOKafkaConsumer(
            **client_options(options, name),
            group_id=group,
            group_instance_id=options.instance,
            partition_assignment_strategy=(_assignor(options.assignor),),
            session_timeout_ms=round(options.session_timeout * 1000),
            heartbeat_interval_ms=round(options.session_timeout * 1000 / 5),
            rebalance_timeout_ms=round(options.rebalance_timeout * 1000),
            max_poll_interval_ms=round(POLL_INTERVAL * 1000),
            fetch_max_wait_ms=round(options.fetch_wait * 1000),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
        )
        self._offsets = make_offsets(self._consumer)
        self.fetching = Fetching(self._consumer, self._offsets, self.fail)
        self._new: set[str] = set()
        """Topics in which the group had committed nothing when they were opened."""
        self._declared: frozenset[str] = frozenset()
        self._assigned = asyncio.Condition()
        self._generation = 0
        """Counts the assignments."""
        self._joined = False
        self._limit = METADATA_LIMIT
        self._unsaved = 0
        self._dirty = asyncio.Event()
        self._enough = asyncio.Event()
        self._committing = asyncio.Lock()
        self._drained = asyncio.Event()
        self._closing = False
        self._scope = anyio.CancelScope()
        self._listening = anyio.CancelScope()

    # Topics

    @property
    def topics(self) -> dict[str, TopicConsumer]:
        """What it reads for whom."""
        return self.fetching.topics

    async def add(self, consumer: TopicConsumer, partitions: int, declared: Iterable[str]) -> None:
        """Read one topic more; returns when the group has it.

        Args:
            consumer: for whom.
            partitions: how many the topic has.
            declared: topics that will be read as well: the group joins once for all of them.

        Raises:
            TbusError: it cannot be read.
        """
        topic = consumer.request.topic
        everyone = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.on_room = self.fetching.wake
        consumer.on_settled = self._on_settled
        try:
            if not self._joined:
                await self._consumer.start()
            if not await self._offsets.committed(self.group, everyone):
                self._new.add(topic)
            before = self._generation
            self.topics[topic] = consumer
            self._declared |= frozenset(declared)
            self._subscribe()
            if not self._joined:
                self._joined = True
                self._start(self._run)
            async with self._assigned:
                await self._assigned.wait_for(lambda: self._generation > before or self._closing)
            # Another member may have the rest, and not have said yet where it begins.
            while len(await self._offsets.committed(self.group, everyone)) < partitions:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        except (kafka.KafkaError, *LOST) as error:
            raise translated(f"read topic {topic!r} for group {self.group!r}", error) from error

    async def remove(self, consumer: TopicConsumer) -> None:
        """Read one topic less: its shares are given up, and what is settled is committed."""
        topic = consumer.request.topic
        if self.topics.get(topic) is not consumer:
            return
        await self.commit()
        self.topics.pop(topic, None)
        consumer.drop_shares()
        if self.topics:
            self._declared -= {topic}
            self._subscribe()

    async def _run(self) -> None:
        with self._scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.fetching.run)
                tasks.start_soon(self._commit_now_and_then)

    async def close(self) -> None:
        """Leave the group."""
        self._closing = True
        self.fetching.stop()
        # A call of the client's may be waiting for a rebalance that will not come. It is not
        # used again, so nothing is spoilt by cancelling it.
        self._scope.cancel()
        self._listening.cancel()  # the client waits for it before it leaves the group
        async with self._assigned:
            self._assigned.notify_all()
        await close_client(
            f"the consumer of group {self.group!r}",
            self._consumer.stop,
            self._consumer._client,
            CLOSE_WAIT,
        )

    def fail(self, error: TbusError) -> None:
        """Nothing can be read any more."""
        for topic in tuple(self.topics.values()):
            topic.fail(error)

    def _subscribe(self) -> None:
        wanted = set(self.topics) | self._declared
        if self._consumer.subscription() != wanted:
            self._consumer.subscribe(topics=sorted(wanted), listener=self)

    # Rebalances

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002
        """The client is about to join the group again."""
        with anyio.CancelScope() as self._listening:
            try:
                await self._give_up()
            except (kafka.KafkaError, *LOST) as error:
                logger.debug("giving up partitions of %s: %s", self.group, describe(error))
            except TbusError as error:
                self.fail(error)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """The group has settled who reads what."""
        wanted = sorted(part for part in assigned if part.topic in self.topics)
        with anyio.CancelScope() as self._listening:
            try:
                async with asyncio.timeout(self._options.rebalance_timeout):
                    await self._take_over(wanted)
            except (kafka.KafkaError, *LOST) as error:
                # Joined again, and looked at again, when the client finds its coordinator.
                logger.warning("group %s: taking over: %s", self.group, describe(error))
                self._rejoin()
                return
            except TbusError as error:
                self.fail(error)
                return
            async with self._assigned:
                self._generation += 1
                self._assigned.notify_all()
            self.fetching.wake()

    def _rejoin(self) -> None:
        coordinator: Any = self._consumer._coordinator
        self._loop.call_later(1.0, coordinator.request_rejoin)

    def _is_member(self) -> bool:
        """Whether the group still takes us for one of its own."""
        coordinator: Any = self._consumer._coordinator
        return coordinator is not None and bool(coordinator.generation != NO_GENERATION)

    async def _give_up(self) -> None:
        topics = [topic for topic in self.topics.values() if topic.shares]
        if not topics:
            return
        lost = not self._is_member()
        if not lost:
            await self._drain(topics)
        for topic in topics:
            topic.lose()
        try:
            if not lost:
                await self.commit()
        finally:
            for topic in topics:
                numbers = tuple(sorted(topic.shares))
                topic.drop_shares()
                self._emit(PartitionsRevoked(topic.request.topic, self.group, numbers, lost))

    async def _drain(self, topics: list[TopicConsumer]) -> None:
        """Have everything that runs end, within the budget."""
        waiting = set(topics)
        everyone = asyncio.Event()

        def drained(topic: TopicConsumer) -> None:
            waiting.discard(topic)
            if not waiting:
                everyone.set()

        for topic in topics:
            topic.drain(partial(drained, topic))
        try:
            async with asyncio.timeout(self._options.drain):
                await everyone.wait()
        except TimeoutError:
            logger.warning(
                "group %s: handlers still ran after %s s when partitions were given up",
                self.group,
                self._options.drain,
            )

    async def _take_over(self, partitions: list[TopicPartition]) -> None:
        epoch = self._epoch()
        committed = await self._offsets.committed(self.group, partitions)
        begins = await self._offsets.begins(partitions)
        fresh: dict[TopicPartition, int] = {}
        for topic, consumer in self.topics.items():
            missing = [p for p in partitions if p.topic == topic and p not in committed]
            start = consumer.request.start if topic in self._new else "earliest"
            fresh |= await self._offsets.starts(missing, start)
        for part in partitions:
            topic_consumer = self.topics.get(part.topic)
            if topic_consumer is None:
                continue  # closed meanwhile
            mark: Mark | None = None
            known: int | None = None
            if part in committed:
                known = base = committed[part].offset
                mark = decode(committed[part].metadata, base)
                if base < begins[part]:
                    self._emit(RetentionTook(part.topic, self.group, base, begins[part] - 1))
                    base, mark = begins[part], None
            else:
                base = fresh[part]
            if known != base:
                self._consumer.seek(part, base)
            topic_consumer.add(Share(part.partition, epoch, base, mark, known))
        if fresh:
            await self.commit()
        for topic, consumer in self.topics.items():
            if consumer.shares:
                numbers = tuple(sorted(consumer.shares))
                self._emit(PartitionsAssigned(topic, self.group, numbers, epoch))

    def _epoch(self) -> int:
        coordinator: Any = self._consumer._coordinator
        return int(coordinator.generation)

    # Commits

    def _on_settled(self) -> None:
        self._unsaved += 1
        self._dirty.set()
        if self._unsaved >= self._options.commit_count:
            self._enough.set()

    async def _commit_now_and_then(self) -> None:
        while True:
            await self._dirty.wait()
            try:
                async with asyncio.timeout(self._options.commit_interval):
                    await self._enough.wait()
            except TimeoutError:
                pass
            try:
                await self.commit()
            except TbusError as error:
                self.fail(error)
                return

    async def commit(self) -> None:
        """Tell the broker what is settled. What it has not heard of is told again later.

        Raises:
            TbusError: this process may not commit.
        """
        async with self._committing:
            self._unsaved = 0
            self._dirty.clear()
            self._enough.clear()
            due: dict[TopicPartition, tuple[Share, Commit]] = {}
            for topic, consumer in self.topics.items():
                for number, share in consumer.shares.items():
                    commit = share.due()
                    if commit is not None:
                        due[TopicPartition(topic, number)] = (share, commit)
            if not due:
                return
            offsets = {
                part: OffsetAndMetadata(
                    commit.offset,
                    encode(Mark(commit.offset, commit.runs, commit.attempts), self._limit)
                    if commit.runs or commit.attempts
                    else "",
                )
                for part, (_, commit) in due.items()
            }
            try:
                async with asyncio.timeout(COMMIT_WAIT):
                    await self._send_commit(offsets)
            except kafka.OffsetMetadataTooLargeError:
                self._limit //= 2  # this broker's limit is a smaller one
                self._dirty.set()
                return
            except (
                kafka.UnknownMemberIdError,
                kafka.IllegalGenerationError,
                kafka.RebalanceInProgressError,
            ) as error:
                # The partitions are somebody else's, or nobody's: a rebalance is under way.
                logger.debug("group %s: committing: %s", self.group, describe(error))
                return
            except (
                kafka.GroupAuthorizationFailedError,
                kafka.TopicAuthorizationFailedError,
            ) as error:
                raise translated(f"commit for group {self.group!r}", error) from error
            except (kafka.KafkaError, *LOST) as error:
                logger.debug("group %s: committing: %s", self.group, describe(error))
                self._dirty.set()
                return
            for share, commit in due.values():
                share.committed(commit)

    async def _send_commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit once. The consumer's own `commit` refuses as soon as the list of topics has
        changed, which is before the partitions are given up, and repeats for ever, for a topic
        that was removed, too."""
        coordinator: Any = self._consumer._coordinator
        await coordinator.ensure_coordinator_known()
        async with coordinator._commit_lock:
            await coordinator._do_commit_offsets(None, offsets)
