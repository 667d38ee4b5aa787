"""What a topic holds now, read from its beginning to its end, without a group.

Nothing is taken from anybody by that: it is a feed of its own, which leaves nothing on the
broker. It ends at what was the last message when it began; what comes later is left out, and
what retention takes meanwhile is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from ._config import BusConfig
from ._errors import BusClosed, MessagesLost, TransportLost
from ._message import Delivery, Position
from ._runtime import Runtime
from ._transport import EndOfFeed, Feed, FeedRequest, Transport, Verdict

QUIET = 10.0
"""Seconds without a message, after which one that should come is not waited for any more."""

CLOSE_WAIT = 0.3
"""Seconds for closing the feed."""

AT_ONCE = 256
"""Messages that are here at once, at most."""


class StoredMessages:
    """An async iterator over what a topic held when it was opened."""

    def __init__(
        self,
        topic: str,
        feed: Feed | None,
        ends: dict[int, int],
        transport: Transport,
        runtime: Runtime,
    ) -> None:
        self._topic = topic
        self._feed = feed
        self._ends = ends
        self._transport = transport
        self._runtime = runtime
        self._batch: deque[Delivery] = deque()

    def __aiter__(self) -> StoredMessages:
        return self

    async def __anext__(self) -> Delivery:
        await self._runtime.checkpoint_if_cancelled()
        while True:
            while self._batch:
                delivery = self._batch.popleft()
                assert self._feed is not None
                self._feed.settle(delivery, Verdict.DONE)
                partition, offset = delivery.position.partition, delivery.position.offset
                end = self._ends.get(partition)
                if end is None:
                    continue  # it came later
                if offset >= end:
                    del self._ends[partition]
                if offset <= end:
                    return delivery
            if not self._ends or self._feed is None:
                raise StopAsyncIteration
            self._batch.extend(await self._receive(self._feed))

    async def _receive(self, feed: Feed) -> list[Delivery]:
        runtime = self._runtime
        with runtime.open_scope() as scope:
            scope.deadline = runtime.clock() + QUIET
            try:
                return list(await feed.receive())
            except EndOfFeed:
                raise BusClosed("the bus ended while a topic was read") from None
            except MessagesLost:
                if not await self._has_shrunk():
                    raise
                return []
        if not await self._has_shrunk():
            raise TransportLost(
                f"topic {self._topic!r} was not read to its end: nothing came for {QUIET:.0f} s"
            )
        return []

    async def _has_shrunk(self) -> bool:
        """Whether what is still to come was removed meanwhile, somewhere; then it is not waited
        for any more."""
        ends = await self._transport.last_positions(self._topic)
        gone = [partition for partition, end in self._ends.items() if ends.get(partition, 0) < end]
        for partition in gone:
            del self._ends[partition]
        return bool(gone)


@asynccontextmanager
async def open_stored(
    transport: Transport,
    runtime: Runtime,
    config: BusConfig,
    topic: str,
    start: Position | None = None,
) -> AsyncIterator[StoredMessages]:
    """Read what a topic holds. One that does not exist holds nothing, and is not made.

    Args:
        start: where to begin in that partition; None: at the beginning.

    Raises:
        TransportLost: the broker cannot be reached.
    """
    ends = await transport.last_positions(topic)
    if start is not None and ends.get(start.partition, start.offset) < start.offset:
        del ends[start.partition]
    if not ends:
        yield StoredMessages(topic, None, {}, transport, runtime)
        return
    feed = await transport.open_feed(
        FeedRequest(
            topic,
            order="partition",
            start=start or "earliest",
            max_in_flight=AT_ONCE,
            max_in_flight_bytes=config.max_in_flight_bytes,
            ack_wait=config.nats.ack_wait,
        )
    )
    try:
        yield StoredMessages(topic, feed, ends, transport, runtime)
    finally:
        with anyio.move_on_after(CLOSE_WAIT, shield=True):
            await feed.aclose()
