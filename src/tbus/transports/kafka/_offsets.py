"""Where a group stands, and where partitions begin and end. Lives in the clients' loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from ..._message import Position
from ..._transport import Start
from ._asking import ask

T = TypeVar("T")

ANSWER_WAIT = 2.0
"""Seconds for one answer. A broker that stands still gives none, and may lead nothing by now."""

UNKNOWN = -1
"""What the broker says of a partition in which a group has committed nothing."""


class Offsets:
    """Questions about offsets, asked until they are answered: the caller bounds the time.

    Args:
        admin: asked about groups: the consumer's own question drops the metadata.
        reader: asked about partitions; any consumer does, member of a group or not.
    """

    def __init__(self, admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer) -> None:
        self._admin = admin
        self._reader = reader

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        return await ask(partial(self._ask_once, question))

    async def _ask_once(self, question: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(ANSWER_WAIT):
                return await question()
        except TimeoutError:
            # Left to itself, the client goes on asking whoever led when it last looked.
            clients: tuple[Any, ...] = (self._reader._client, self._admin._client)
            for client in clients:
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
        wanted = list(partitions)
        if not wanted:
            return {}
        return dict(await self._ask(lambda: self._reader.beginning_offsets(wanted)))

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset that comes next in each."""
        wanted = list(partitions)
        if not wanted:
            return {}
        return dict(await self._ask(lambda: self._reader.end_offsets(wanted)))

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
        found = await self._ask(
            lambda: self._reader.offsets_for_times(dict.fromkeys(partitions, stamp))
        )
        return {
            part: ends[part] if (at := found.get(part)) is None else at.offset
            for part in partitions
        }
