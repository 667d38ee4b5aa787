"""A reader without a group: it sees every message of a topic, and commits nothing.

Lives in the clients' loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from ..._config import KafkaOptions
from ..._errors import TbusError
from ._clients import client_options, close_client, start_client
from ._errors import LOST, translated
from ._fetch_requests import end_sessions, shape_fetches
from ._fetching import LOOK_AGAIN, Fetching
from ._offsets import Offsets
from ._reading import read_answers
from ._share import Share
from ._topic_consumer import TopicConsumer

CLOSE_WAIT = 0.5
"""Seconds that a consumer gets for closing, before its connections are closed under it."""


class SoloReader:
    """Reads every partition of one topic.

    Args:
        admin: tells brokers that it is closed.
        offsets: asked where partitions begin and end.
        start: starts a task in the loop's nursery.
    """

    def __init__(
        self,
        consumer: TopicConsumer,
        options: KafkaOptions,
        name: str,
        *,
        admin: AIOKafkaAdminClient,
        offsets: Offsets,
        start: Callable[..., None],
    ) -> None:
        self.consumer = consumer
        self._start = start
        self._client = AIOKafkaConsumer(
            **client_options(options, name),
            group_id=None,
            fetch_max_wait_ms=round(options.fetch_wait * 1000),
            consumer_timeout_ms=round(LOOK_AGAIN * 1000),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
        )
        read_answers(self._client._client)
        self._sessions = shape_fetches(self._client)
        self._admin = admin
        self._offsets = offsets
        self._topics: dict[str, TopicConsumer] = {}
        self._fetching = Fetching(self._client, self._offsets, self._topics)
        self._scope = anyio.CancelScope()

    async def open(self, partitions: int) -> None:
        """Begin to read.

        Raises:
            TbusError: it cannot be read.
        """
        request = self.consumer.request
        try:
            await start_client(self._client.start)
            everyone = [TopicPartition(request.topic, number) for number in range(partitions)]
            starts = await self._offsets.starts(everyone, request.start)
            self._client.assign(everyone)
            self._begin(starts)
        except (kafka.KafkaError, *LOST) as error:
            raise translated(f"read topic {request.topic!r}", error) from error
        self.consumer.on_room = self._fetching.read_on
        self._topics[request.topic] = self.consumer
        self._start(self._run)

    def expand(self, partitions: int) -> None:
        """The topic has more partitions now: the new ones are read from their beginning."""
        if not self._topics:
            return  # it is being opened; whoever looks again tells of them again
        topic = self.consumer.request.topic
        shares = self.consumer.shares
        new = [TopicPartition(topic, number) for number in range(len(shares), partitions)]
        if not new:
            return
        # A new assignment forgets where every partition stood.
        stood = dict(self._next_fetched(share) for share in shares.values())
        self._client.assign([*stood, *new])
        for part, offset in stood.items():
            self._client.seek(part, offset)
        self._begin(dict.fromkeys(new, 0))
        self._fetching.wake()

    def _next_fetched(self, share: Share) -> tuple[TopicPartition, int]:
        """A partition, and what comes after everything that was fetched of it: some of that may
        wait here for room, and be gone from the broker by now."""
        part = TopicPartition(self.consumer.request.topic, share.partition)
        subscription: Any = self._client._subscription.subscription
        state = subscription.assignment.state_value(part)
        return part, int(state.position) if state.has_valid_position else share.next_offset

    def _begin(self, starts: dict[TopicPartition, int]) -> None:
        for part, offset in starts.items():
            self._client.seek(part, offset)
            self.consumer.add(Share(part.partition, 0, offset))

    async def _run(self) -> None:
        topic = self.consumer.request.topic
        with self._scope:
            try:
                await self._fetching.run()
            except (kafka.KafkaError, *LOST, TbusError) as error:
                self.consumer.fail(translated(f"read topic {topic!r}", error))

    async def close(self) -> None:
        """Stop reading."""
        self._fetching.stop()
        self._scope.cancel()
        end_sessions(self._sessions, self._admin)
        await close_client(
            f"a consumer of topic {self.consumer.request.topic!r}",
            self._client.stop,
            self._client._client,
            CLOSE_WAIT,
        )
