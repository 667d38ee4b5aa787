"""What a topic holds now, read from its beginning to its end, without a group.

Nothing is taken from anybody by that: it is a feed of its own, which leaves nothing on the
broker. It ends at what was the last message when it began; what comes later is left out, and
what is removed meanwhile, or was before, is not waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import attrs

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
        self, transport: Transport, runtime: Runtime, wanted: FeedRequest, ends: dict[int, int]
    ) -> None:
        self._transport = transport
        self._runtime = runtime
        self._wanted = wanted
        self._ends = ends
        """Where each partition ends that is not read to its end."""
        self._only = next(iter(ends)) if len(ends) == 1 else None
        self._feed: Feed | None = None
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
            if not self._ends:
                raise StopAsyncIteration
            self._batch.extend(await self._receive())

    async def _receive(self) -> Sequence[Delivery]:
        runtime = self._runtime
        lost: MessagesLost | None = None
        with runtime.open_scope() as scope:
            scope.deadline = runtime.clock() + QUIET
            try:
                if self._feed is None:
                    self._feed = await self._transport.open_feed(self._wanted)
                return await self._feed.receive()
            except EndOfFeed:
                raise BusClosed("the bus ended while a topic was read") from None
            except MessagesLost as error:
                lost = error
        shrunk = await self._has_shrunk()
        if lost is not None and self._only is not None:
            # Behind the gap, with a feed of its own: this one may not go on.
            await self.aclose()
            self._wanted = attrs.evolve(self._wanted, start=Position(self._only, lost.last + 1))
        elif lost is not None and not shrunk:
            raise lost
        elif not shrunk:
            raise TransportLost(
                f"topic {self._wanted.topic!r} was not read to its end: nothing came for"
                f" {QUIET:.0f} s"
            )
        return ()

    async def _has_shrunk(self) -> bool:
        """Whether the end of a partition was removed meanwhile; then it is not waited for."""
        with self._runtime.open_scope() as scope:
            scope.deadline = self._runtime.clock() + QUIET
            ends = await self._transport.last_positions(self._wanted.topic)
        if scope.cancelled_caught:
            return False
        gone = [partition for partition, end in self._ends.items() if ends.get(partition, 0) < end]
        for partition in gone:
            del self._ends[partition]
        return bool(gone)

    async def aclose(self) -> None:
        """Close the feed, if there is one."""
        feed, self._feed = self._feed, None
        if feed is not None:
            with anyio.move_on_after(CLOSE_WAIT, shield=True):
                await feed.aclose()


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
        TransportLost: the broker cannot be reached, or falls silent.
        MessagesLost: retention took what was still to come, of one of several partitions.
    """
    ends = await transport.last_positions(topic)
    if start is not None and ends.get(start.partition, start.offset) < start.offset:
        del ends[start.partition]
    wanted = FeedRequest(
        topic,
        order="partition",
        start=start or "earliest",
        max_in_flight=AT_ONCE,
        max_in_flight_bytes=config.max_in_flight_bytes,
        ack_wait=config.nats.ack_wait,
    )
    stored = StoredMessages(transport, runtime, wanted, ends)
    try:
        yield stored
    finally:
        await stored.aclose()  # noqa: ASYNC102 - shields itself
