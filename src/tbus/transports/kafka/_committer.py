"""Commits of a group's member: what is settled, told to the broker in batches.

Lives in the clients' loop. A commit goes out when the interval has passed, or enough was settled,
at each revocation and at the end: the first offset that is not settled, and beside it the mark of
what is settled beyond. One is under way at a time. One that is cancelled, or not answered, may
still have happened, which does no harm: the next says more.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiokafka import errors as kafka
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from ..._config import KafkaOptions
from ..._marks import Mark, encode
from ._errors import LOST, describe, translated
from ._share import Commit, Share
from ._topic_consumer import TopicConsumer

logger = logging.getLogger("tbus.kafka")

COMMIT_WAIT = 5.0
"""Seconds for one commit."""

METADATA_LIMIT = 4096
"""Bytes of a commit's metadata. Source: Kafka's broker configuration, offset.metadata.max.bytes."""


class Committer:
    """Commits for one group.

    Args:
        topics: what the member reads; changes as it does.

    Attributes:
        coordinator: the client's, by which commits go; another one after a restart.
    """

    def __init__(self, group: str, options: KafkaOptions, topics: dict[str, TopicConsumer]) -> None:
        self.coordinator: Any = None
        self._group = group
        self._options = options
        self._topics = topics
        self._limit = METADATA_LIMIT
        self._unsaved = 0
        self._dirty = asyncio.Event()
        self._enough = asyncio.Event()
        self._one = asyncio.Lock()

    def settled(self, count: int) -> None:
        """So many messages more are settled."""
        self._unsaved += count
        self._dirty.set()
        if self._unsaved >= self._options.commit_count:
            self._enough.set()

    async def run(self) -> None:
        """Commit now and then, until cancelled.

        Raises:
            TbusError: this process may not commit.
        """
        while True:
            await self._dirty.wait()
            try:
                async with asyncio.timeout(self._options.commit_interval):
                    await self._enough.wait()
            except TimeoutError:
                pass
            await self.commit()

    async def commit(self) -> None:
        """Tell the broker what is settled. What it has not heard of is told again later.

        Raises:
            TbusError: this process may not commit.
        """
        async with self._one:
            self._unsaved = 0
            self._dirty.clear()
            self._enough.clear()
            due = self._due()
            if not due or self.coordinator is None:
                return
            try:
                async with asyncio.timeout(COMMIT_WAIT):
                    await self._tell(due)
            except (
                kafka.UnknownMemberIdError,
                kafka.IllegalGenerationError,
                kafka.RebalanceInProgressError,
            ) as error:
                # The partitions are somebody else's, or nobody's: a rebalance is under way.
                logger.debug("group %s: committing: %s", self._group, describe(error))
            except (
                kafka.GroupAuthorizationFailedError,
                kafka.TopicAuthorizationFailedError,
            ) as error:
                raise translated(f"commit for group {self._group!r}", error) from error
            except (kafka.KafkaError, *LOST) as error:
                logger.debug("group %s: committing: %s", self._group, describe(error))
                self._dirty.set()
            else:
                for share, commit in due.values():
                    share.committed(commit)

    def _due(self) -> dict[TopicPartition, tuple[Share, Commit]]:
        return {
            TopicPartition(topic, number): (share, commit)
            for topic, consumer in self._topics.items()
            for number, share in consumer.shares.items()
            if (commit := share.due()) is not None
        }

    def _told(self, commit: Commit) -> OffsetAndMetadata:
        record = f" {commit.record}" if commit.record else ""
        if len(record) > self._limit:
            record = ""
        mark = ""
        if commit.runs or commit.attempts:
            limit = self._limit - len(record)
            mark = encode(Mark(commit.offset, commit.runs, commit.attempts), limit)
        return OffsetAndMetadata(commit.offset, mark + record)

    async def _tell(self, due: dict[TopicPartition, tuple[Share, Commit]]) -> None:
        """Commit, with marks as long as this broker takes them. At once, and not with the next
        commit: this may be the last one."""
        while True:
            try:
                await self._send(due)
            except kafka.OffsetMetadataTooLargeError:
                if not self._limit:
                    raise
                self._limit //= 2
            else:
                return

    async def _send(self, due: dict[TopicPartition, tuple[Share, Commit]]) -> None:
        """Commit once. The consumer's own `commit` refuses as soon as the list of topics has
        changed, which is before the partitions are given up, and repeats for ever, for a topic
        that was removed, too."""
        coordinator = self.coordinator
        await coordinator.ensure_coordinator_known()
        async with coordinator._commit_lock:
            # It goes out in the name of the generation that the client is of by now: what was
            # lost while this waited may be somebody else's in that one.
            offsets = {
                part: self._told(commit)
                for part, (share, commit) in due.items()
                if self._holds(part, share)
            }
            if offsets:
                await coordinator._do_commit_offsets(None, offsets)

    def _holds(self, part: TopicPartition, share: Share) -> bool:
        topic = self._topics.get(part.topic)
        return topic is not None and topic.shares.get(part.partition) is share
