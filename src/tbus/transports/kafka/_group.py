"""A member of a consumer group: one for each group of a bus, however many topics.

Lives in the clients' loop. The laws:

1. **Eager rebalances.** At every change of the group each member gives up all its partitions and
   is given new ones. What a member gives up is drained first: nothing more is handed over, what
   runs may end within the budget, what is settled is committed. Then the shares are gone, and
   with them their epoch: a completion that comes later finds nothing to settle.
2. **Where to begin** is never left to the client, which would skip what was stored between joining
   and the first commit: what has no commit gets its first one here, before anything is read.
   A partition that was added to a topic which the group reads is read from its beginning.
3. **Commits**: see `_committer`.
4. **A member that the group has given up** (suspended for too long, cut off) has lost its
   partitions already: nothing is drained or committed, running handlers are cancelled.
5. A client whose own tasks have died is thrown away, and another one joins in its place.

The listener is called in the client's own task, which swallows what it raises: so everything in it
has a deadline, a failure is told to the feeds, and what nobody thought of is raised elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.structs import TopicPartition

from ..._config import KafkaOptions
from ..._errors import TbusError
from ..._events import Event, PartitionsAssigned, PartitionsRevoked, RetentionTook
from ..._marks import Mark, decode
from ..._suspects import Suspects
from ._clients import client_options, close_client, leave_group, start_client
from ._committer import Committer
from ._errors import LOST, describe, translated
from ._fetch_requests import end_sessions, shape_fetches
from ._fetching import LOOK_AGAIN, Fetching
from ._offsets import Offsets
from ._reading import read_answers
from ._share import Share
from ._topic_consumer import TopicConsumer

logger = logging.getLogger("tbus.kafka")

CLOSE_WAIT = 0.5
"""Seconds that a consumer gets for leaving its group, before its connections are closed."""

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
        offsets: asked where the group stands, and where partitions begin.
        admin: tells the group, and its brokers, that a consumer has left.
        start: starts a task in the loop's nursery.
    """

    def __init__(
        self,
        group: str,
        options: KafkaOptions,
        name: str,
        *,
        offsets: Offsets,
        admin: AIOKafkaAdminClient,
        start: Callable[..., None],
        emit: Callable[[Event], None],
    ) -> None:
        self.group = group
        self._admin = admin
        self._options = options
        self._start = start
        self._emit = emit
        self._name = name
        self._offsets = offsets
        self.topics: dict[str, TopicConsumer] = {}
        """What it reads for whom."""
        self._committer = Committer(group, options, self.topics)
        self._make_client()
        self._new: set[str] = set()
        """Topics that are being opened, and in which the group has committed nothing yet."""
        self._declared: frozenset[str] = frozenset()
        self._assigned = asyncio.Condition()
        self._assignments = 0
        """Counts them."""
        self._revocations = 0
        """Counts them."""
        self._joined = False
        self._closing = False
        self._scope = anyio.CancelScope()
        self._listening = anyio.CancelScope()

    def _make_client(self) -> None:
        options = self._options
        self._client = AIOKafkaConsumer(
            **client_options(options, self._name),
            group_id=self.group,
            group_instance_id=options.instance,
            partition_assignment_strategy=(_assignor(options.assignor),),
            session_timeout_ms=round(options.session_timeout * 1000),
            heartbeat_interval_ms=round(options.session_timeout * 1000 / 5),
            rebalance_timeout_ms=round(options.rebalance_timeout * 1000),
            max_poll_interval_ms=round(POLL_INTERVAL * 1000),
            fetch_max_wait_ms=round(options.fetch_wait * 1000),
            consumer_timeout_ms=round(LOOK_AGAIN * 1000),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
        )
        read_answers(self._client._client)
        self._sessions = shape_fetches(self._client)
        self._fetching = Fetching(self._client, self._offsets, self.topics)

    async def _start_client(self) -> None:
        await start_client(self._client.start)
        self._committer.coordinator = self._client._coordinator

    # Topics

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
        consumer.on_room = self._read_on
        consumer.on_settled = self._committer.settled
        consumer.store = self._store
        try:
            if not self._joined:
                await self._start_client()
            self._new.discard(topic)
            if not await self._offsets.committed(self.group, everyone):
                self._new.add(topic)
            before = self._assignments
            self.topics[topic] = consumer
            self._declared |= frozenset(declared)
            changed = await self._subscribe()
            if not self._joined:
                self._joined = True
                self._start(self._run)
            # Declared before, and joined for: then its partitions are here, and held.
            if changed or not await self._take_up(topic):
                async with self._assigned:
                    await self._assigned.wait_for(
                        lambda: self._assignments > before or self._closing
                    )
            # Another member may have the rest, and not have said yet where it begins.
            while (  # noqa: ASYNC110 - nobody tells
                consumer.request.start != "earliest"
                and len(await self._offsets.committed(self.group, everyone)) < partitions
            ):
                await asyncio.sleep(0.05)
            self._new.discard(topic)  # a partition that is added from here on is read whole
        except (kafka.KafkaError, *LOST) as error:
            raise translated(f"read topic {topic!r} for group {self.group!r}", error) from error

    async def _take_up(self, topic: str) -> bool:
        """Begin with the partitions of a topic that were held; False if a rebalance is under
        way, which will do so."""
        before = self._revocations
        if not self._assignments or before >= self._assignments:
            return False
        held = sorted(part for part in self._client.assignment() if part.topic == topic)
        return await self._take_over(held, lambda: self._revocations == before)

    async def remove(self, consumer: TopicConsumer, *, quietly: bool) -> None:
        """Read one topic less: its shares are given up, and what is settled is committed.

        Args:
            consumer: whose.
            quietly: leave the group as it is: everything else goes as well.
        """
        topic = consumer.request.topic
        if self.topics.get(topic) is not consumer:
            return
        try:
            consumer.end()
            await self._committer.commit()
        finally:
            self.topics.pop(topic, None)
            consumer.drop_shares()
            if self.topics and not quietly:
                self._declared -= {topic}
                with anyio.CancelScope(shield=True):
                    await self._subscribe()

    async def commit(self) -> None:
        """Tell the broker what is settled, now."""
        await self._committer.commit()

    def _store(self, stored: Callable[[], None]) -> None:
        self._start(self._commit_and_tell, stored)

    async def _commit_and_tell(self, stored: Callable[[], None]) -> None:
        try:
            await self._committer.commit()
        except TbusError as error:
            self.fail(error)
        else:
            stored()

    def _wake(self) -> None:
        self._fetching.wake()

    def _read_on(self) -> None:
        self._fetching.read_on()

    async def _run(self) -> None:
        with self._scope:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._committer.run)
                    await self._read()
            except* TbusError as group:
                errors = [error for error in group.exceptions if isinstance(error, TbusError)]
                self.fail(errors[0])

    async def _read(self) -> None:
        """Take and hand over; with another client when this one's own tasks have died."""
        attempt = 0
        while True:
            try:
                await self._fetching.run()
            except (kafka.KafkaError, *LOST) as error:
                logger.warning("group %s: joining anew: %s", self.group, describe(error))
            else:
                return
            await self._give_up(lost=True)
            await self._close_client()
            while True:
                attempt += 1
                await asyncio.sleep(self._options.reconnect.delay(attempt, random.random))
                self._make_client()
                try:
                    await self._start_client()
                except (kafka.KafkaError, *LOST) as error:
                    logger.debug("group %s: joining anew: %s", self.group, describe(error))
                    await self._close_client()
                else:
                    break
            await self._subscribe()

    async def close(self) -> None:
        """Leave the group."""
        self._closing = True
        self._fetching.stop()
        # A call of the client's may be waiting for a rebalance that will not come. It is not
        # used again, so nothing is spoilt by cancelling it.
        self._scope.cancel()
        self._listening.cancel()  # the client waits for it before it leaves the group
        async with self._assigned:
            self._assigned.notify_all()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave_group, self._admin, self._client, self.group)
            await self._close_client()

    async def _close_client(self) -> None:
        end_sessions(self._sessions, self._admin)
        client = self._client
        what = f"the consumer of group {self.group!r}"
        await close_client(what, client.stop, client._client, CLOSE_WAIT)

    def fail(self, error: TbusError) -> None:
        """Nothing can be read any more."""
        for topic in tuple(self.topics.values()):
            topic.fail(error)

    async def _subscribe(self) -> bool:
        """Have the group know what is read; whether that is a change."""
        # The client's fetcher dies where it has been given partitions and they are gone before it
        # has looked: it gets the two passes of the loop that it needs for that.
        seen = self._given()
        while True:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if (given := self._given()) is seen:
                break
            seen = given
        wanted = set(self.topics) | self._declared
        if self._client.subscription() == wanted:
            return False
        self._client.subscribe(topics=sorted(wanted), listener=self)
        return True

    def _given(self) -> object:
        """What the client has been given by the group, itself: another one each time."""
        subscription: Any = self._client._subscription.subscription
        return None if subscription is None else subscription.assignment

    # Rebalances

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - the listener's signature
        """The client is about to join the group again."""
        # It then cancels its heartbeat, and would be cancelled with it had that not begun yet: so
        # it would when the list of topics changes while it joins.
        await asyncio.sleep(0)
        self._revocations = self._assignments
        with anyio.CancelScope() as self._listening:
            try:
                # A member that the group has given up has nothing to commit any more.
                await self._give_up(lost=not self._is_member())
            except (kafka.KafkaError, *LOST) as error:
                logger.debug("giving up partitions of %s: %s", self.group, describe(error))
            except TbusError as error:
                self.fail(error)
            except Exception as error:  # noqa: BLE001 - raised where it is not swallowed
                asyncio.get_running_loop().call_soon(_raise, error)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """The group has settled who reads what."""
        here = sorted(assigned)
        with anyio.CancelScope() as self._listening:
            try:
                async with asyncio.timeout(self._options.rebalance_timeout):
                    if not await self._take_over([p for p in here if p.topic in self.topics]):
                        return
                # What nobody reads yet is held, and not fetched.
                held = (p for p in self._client.assignment() if p.topic not in self.topics)
                self._client.pause(*held)
            except (kafka.KafkaError, *LOST) as error:
                # Joined again, and looked at again, when the client finds its coordinator.
                logger.warning("group %s: taking over: %s", self.group, describe(error))
                self._rejoin()
                return
            except TbusError as error:
                self.fail(error)
                return
            except Exception as error:  # noqa: BLE001 - raised where it is not swallowed
                asyncio.get_running_loop().call_soon(_raise, error)
                return
            async with self._assigned:
                self._assignments += 1
                self._assigned.notify_all()
            self._wake()

    def _rejoin(self) -> None:
        coordinator: Any = self._client._coordinator
        asyncio.get_running_loop().call_later(1.0, coordinator.request_rejoin)

    def _is_member(self) -> bool:
        """Whether the group still takes us for one of its own."""
        coordinator: Any = self._client._coordinator
        return coordinator is not None and bool(coordinator.generation != NO_GENERATION)

    async def _give_up(self, *, lost: bool) -> None:
        topics = [topic for topic in self.topics.values() if topic.shares]
        if not topics:
            return
        if not lost:
            await self._drain(topics)
        for topic in topics:
            topic.lose()
        try:
            if not lost:
                for topic in topics:
                    topic.end()
                await self._committer.commit()
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

    async def _take_over(
        self, partitions: list[TopicPartition], is_current: Callable[[], bool] = lambda: True
    ) -> bool:
        """Begin to read partitions; False if they are not ours any more by then."""
        epoch = self._epoch()
        committed = await self._offsets.committed(self.group, partitions)
        begins = await self._offsets.begins(partitions)
        fresh: dict[TopicPartition, int] = {}
        for topic, consumer in tuple(self.topics.items()):
            missing = [p for p in partitions if p.topic == topic and p not in committed]
            start = consumer.request.start if topic in self._new else "earliest"
            fresh |= await self._offsets.starts(missing, start)
        new: list[Share] = []
        # The list of topics may have changed meanwhile: then the group is joined once more.
        if not is_current() or not self._client.assignment().issuperset(partitions):
            return False
        for part in partitions:
            topic_consumer = self.topics.get(part.topic)
            if topic_consumer is None:
                continue  # closed meanwhile
            mark: Mark | None = None
            known: int | None = None
            record = ""
            if part in committed:
                known = base = committed[part].offset
                mark_text, _, record = committed[part].metadata.partition(" ")
                mark = decode(mark_text, base)
                if base < begins[part]:
                    self._emit(RetentionTook(part.topic, self.group, base, begins[part] - 1))
                    base, mark = begins[part], None
            else:
                base = fresh[part]
            # Also where that is what is committed: the client may have read on for a topic that
            # was closed meanwhile, and has what it had fetched.
            self._client.seek(part, base)
            self._client.resume(part)
            before = topic_consumer.former.get(part.partition)
            request = topic_consumer.request
            suspects = Suspects(request.max_deliveries, request.max_in_flight, record, base)
            share = Share(part.partition, epoch, base, mark, known, before, suspects, record)
            share.held = True  # until it is stored that there is an owner
            new.append(share)
            topic_consumer.add(share)
        await self._committer.commit()
        for share in new:
            share.held = False
        self._wake()
        for topic, consumer in self.topics.items():
            if consumer.shares:
                numbers = tuple(sorted(consumer.shares))
                self._emit(PartitionsAssigned(topic, self.group, numbers, epoch))
        return True

    def _epoch(self) -> int:
        coordinator: Any = self._client._coordinator
        return int(coordinator.generation)


def _raise(error: Exception) -> None:
    raise error
