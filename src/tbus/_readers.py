"""What reads for a bus: opened, closed one by one, and all of them at its end.

A reader is known by its topic and group from before the broker is asked until its feed is closed;
so no two read the same. Closing, of one or of all, has the same steps, each with a deadline:

1. it takes nothing more, and begins nothing more;
2. its running handlers finish, until the deadline;
3. those that still run are cancelled, and their messages given back; blocks that they shield
   go on until `cut`;
4. the feed settles, gives back what is left, and closes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from ._errors import BusClosed, ConfigurationError
from ._intake import Intake
from ._messages import Messages
from ._runtime import Runtime
from ._subscription import HandlerSource
from ._transport import Feed, FeedRequest, Transport
from ._workers import WorkerPool

logger = logging.getLogger("tbus")

Open = tuple[HandlerSource | Messages, Intake]

EVICT_WAIT = 0.25
"""Seconds that cancelled handlers have, before those that do not end are named in the log."""

SETTLE_WAIT = 0.3
"""Seconds for flushing settlements when the grace period is spent."""


class Readers:
    """The table of a bus's readers.

    Args:
        grace: seconds that the handlers of one that is closed have to finish.
        start: starts a task of the bus: `start(role, topic, function, *args)`.
    """

    def __init__(
        self,
        transport: Transport,
        runtime: Runtime,
        pool: WorkerPool,
        grace: float,
        start: Callable[..., None],
    ) -> None:
        self._transport = transport
        self._runtime = runtime
        self._pool = pool
        self._grace = grace
        self._start = start
        self._table: dict[tuple[str, str | None, int], HandlerSource | Messages | None] = {}
        self._ending = False
        self._ended = False

    def open_ones(self) -> list[Open]:
        """Those that the broker has, each with its intake."""
        return [
            (reader, reader.intake)
            for reader in self._table.values()
            if reader is not None and hasattr(reader, "intake")
        ]

    async def open_feed(self, reader: HandlerSource | Messages, wanted: FeedRequest) -> Feed:
        """Ask the broker for what a reader wants; it is in the table when this returns.

        Raises:
            ConfigurationError: another one reads the topic for that group.
            BusClosed: the bus began to end meanwhile.
            TbusError: the broker would not have it, or could not be reached.
        """
        topic, group = wanted.topic, wanted.group
        name = (topic, group, 0 if group is not None else id(reader))
        if name in self._table:
            raise ConfigurationError(
                f"this bus reads topic {topic!r} for group {group!r} already",
                field="group",
                value=group,
            )
        self._table[name] = None  # held while the broker is asked
        try:
            feed = await self._transport.open_feed(wanted)
        except BaseException:
            del self._table[name]
            raise
        if self._ending:
            del self._table[name]
            with anyio.CancelScope(shield=True):
                await self._close_feeds([feed], SETTLE_WAIT)
            raise BusClosed("the bus began to end while this subscription was made")
        self._table[name] = reader
        return feed

    async def close_messages(self, messages: Messages) -> None:
        """The block that pulls has ended: what it has not settled is given back."""
        messages.end()
        messages.give_back()
        messages.intake.stop()
        with anyio.CancelScope(shield=True):
            await self._close_feeds([messages.intake.feed], SETTLE_WAIT)
        self._forget(messages)

    async def close_source(self, source: HandlerSource) -> None:
        """Close a subscription; its own handlers, which would wait for themselves, go on at once.
        May be called again, by others meanwhile, too."""
        if self._ended:
            return  # it has ended with the bus
        if source.closed is None:
            source.closed = anyio.Event()
            source.stop()  # now, so that not even one more is begun
            self._start("closing", source.topic, self._finish, source, source.closed)
        if not self._pool.is_inside():
            await source.closed.wait()

    async def _finish(self, source: HandlerSource, closed: anyio.Event) -> None:
        try:
            deadline = self._runtime.clock() + self._grace
            await self._wait_idle([(source, source.intake)], deadline, deadline)
            left = max(SETTLE_WAIT, deadline - self._runtime.clock())
            await self._close_feeds([source.intake.feed], left)
        finally:
            self._forget(source)
            closed.set()

    def stop(self) -> None:
        """The bus ends: nobody takes, or begins, anything more."""
        self._ending = True
        for reader, intake in self.open_ones():
            if isinstance(reader, HandlerSource):
                reader.stop()
            else:
                reader.end()
                intake.stop()

    async def end(self, deadline: float, cut: float) -> None:
        """After `stop`: let handlers finish, then close every feed.

        Args:
            deadline: when handlers that still run are cancelled, on the loop's clock.
            cut: when blocks that they shield are.
        """
        open_ones = self.open_ones()
        await self._wait_idle(open_ones, deadline, cut)
        left = max(SETTLE_WAIT, deadline - self._runtime.clock())
        await self._close_feeds([intake.feed for _, intake in open_ones], left)
        self._ended = True

    def _forget(self, reader: HandlerSource | Messages) -> None:
        for name in [name for name, found in self._table.items() if found is reader]:
            del self._table[name]

    async def _wait_idle(
        self,
        open_ones: list[Open],
        deadline: float,
        cut: float,
    ) -> None:
        """Let handlers finish until the deadline, then cancel them; what they shielded may go
        on until `cut`."""
        with self._runtime.open_scope() as scope:
            scope.deadline = deadline
            for _, intake in open_ones:
                await intake.wait_idle()
        sources = [reader for reader, _ in open_ones if isinstance(reader, HandlerSource)]
        shielded = False
        for reader, _ in open_ones:
            if isinstance(reader, HandlerSource):
                shielded |= reader.evict(cut)
            else:
                reader.give_back()
        if shielded:
            with self._runtime.open_scope() as scope:
                scope.deadline = cut
                for _, intake in open_ones:
                    await intake.wait_idle()
            for source in sources:
                source.evict(self._runtime.clock())
        with self._runtime.open_scope() as scope:
            scope.deadline = self._runtime.clock() + EVICT_WAIT
            for _, intake in open_ones:
                await intake.wait_idle()
        for topic, since in self._pool.running():
            if scope.cancelled_caught:
                logger.warning(
                    "a handler of topic %r, running for %.1f s, does not end when it is"
                    " cancelled: it blocks, or shields itself",
                    topic,
                    self._runtime.clock() - since,
                )

    async def _close_feeds(self, feeds: list[Feed], timeout: float) -> None:
        """Settle and close, all at once; at the deadline they are closed all the same."""

        async def close(feed: Feed) -> None:
            with self._runtime.open_scope() as scope:
                scope.deadline = self._runtime.clock() + timeout
                await feed.aclose()

        async with self._runtime.open_nursery() as nursery:
            for feed in feeds:
                nursery.start_soon(close, feed)
