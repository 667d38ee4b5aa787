"""Where a group stands, and where partitions begin and end. Lives in the clients' loop.

Everything is asked by the administration client's connections. A consumer's own are no good for it:
a broker answers a connection's requests one after another, and a question of a consumer would
wait for as long as the fetch before it is held (`fetch_wait`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from ..._message import Position
from ..._transport import Start
from ._asking import ask
from ._topics import Topics

T = TypeVar("T")

ANSWER_WAIT = 2.0
"""Seconds for one answer. A broker that stands still gives none, and may lead nothing by now."""

UNKNOWN = -1
"""What the broker says of a partition in which a group has committed nothing, or which has
nothing at or after a time."""

EARLIEST, LATEST = -2, -1
"""In the place of a time: the first offset, and the one that comes next."""

NO_REPLICA = -1
READ_COMMITTED = 1
"""Of a request: who asks is no broker, and takes what belongs to an open transaction for not there
yet, as all readers here do. Source of these four: Kafka protocol, ListOffsets."""


class Offsets:
    """Questions about offsets, asked until they are answered: the caller bounds the time.

    Args:
        admin: asked.
        topics: knows who leads a partition.
    """

    def __init__(self, admin: AIOKafkaAdminClient, topics: Topics) -> None:
        self._admin = admin
        self._topics = topics
        self._leaders: dict[TopicPartition, int] = {}
        """Who has answered for a partition when it was last asked about."""

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        return await ask(partial(self._ask_once, question))

    async def _ask_once(self, question: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(ANSWER_WAIT):
                return await question()
        except TimeoutError:
            # Left to itself, the client goes on asking whoever led when it last looked.
            client: Any = self._admin._client
            client.force_metadata_update()
            raise

    async def committed(
        self, group: str, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the group has committed; partitions without anything are left out."""
        wanted = list(partitions)
        if not wanted:
            return {}
        found = await self._ask(partial(self._look_up, group, wanted))
        return {part: entry for part, entry in found.items() if entry.offset != UNKNOWN}

    async def _look_up(
        self, group: str, wanted: list[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """Ask once. An error that stands for the whole answer (the coordinator has moved, or
        still reads what it has stored) is none to the client: it just finds nothing, where a
        broker that knows has a word for every partition."""
        found: dict[TopicPartition, OffsetAndMetadata]
        found = await self._admin.list_consumer_group_offsets(group, partitions=wanted)
        if found.keys() >= set(wanted):
            return found
        [answer] = await self._admin.describe_consumer_groups([group])
        [[code, *_]] = answer.groups
        raise kafka.for_code(code)() if code else kafka.GroupCoordinatorNotAvailableError()

    async def begins(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset that each partition still has."""
        return await self._at(EARLIEST, partitions)

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset that comes next in each."""
        return await self._at(LATEST, partitions)

    async def _at(
        self, when: int, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        wanted = list(partitions)
        return await self._ask(partial(self._list, when, wanted)) if wanted else {}

    async def _list(self, when: int, wanted: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Ask each partition's leader once."""
        # Not remembered while it is asked: it may lead no more, or give no answer.
        leaders = {part: self._leaders.pop(part) for part in wanted if part in self._leaders}
        if len(leaders) < len(wanted):
            leaders = await self._topics.leaders(wanted)
        questions: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(dict)
        for part in wanted:
            of_topic = questions[leaders[part]].setdefault(part.topic, [])
            of_topic.append((part.partition, when))
        found: dict[TopicPartition, int] = {}
        for node, topics in questions.items():
            request = OffsetRequest(NO_REPLICA, READ_COMMITTED, list(topics.items()))
            answer = await self._admin._client.send(node, request)
            for topic, entries in answer.topics:
                for number, code, _, offset in entries:
                    if code:
                        raise kafka.for_code(code)(f"{topic}:{number}")
                    found[TopicPartition(topic, number)] = offset
        self._leaders |= leaders
        return found

    async def starts(
        self, partitions: Sequence[TopicPartition], start: Start
    ) -> dict[TopicPartition, int]:
        """Where a group that the broker has not seen begins to read."""
        if start == "latest":
            return await self.ends(partitions)
        begins = await self.begins(partitions)
        if start == "earliest":
            return begins
        ends = await self.ends(partitions)
        if isinstance(start, Position):
            # Of one partition; the others have no such place, and are read from the beginning.
            return {
                part: min(max(start.offset, begins[part]), ends[part])
                if part.partition == start.partition
                else begins[part]
                for part in partitions
            }
        assert isinstance(start, datetime)
        when = start if start.tzinfo is not None else start.replace(tzinfo=UTC)
        stamp = round(when.timestamp() * 1000)
        found = await self._at(stamp, partitions)
        return {part: ends[part] if at == UNKNOWN else at for part, at in found.items()}
