"""Everything that lives in the clients' loop, wired together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ..._config import BusConfig
from ..._events import Event
from ..._ownership import Document
from ..._topic import TopicOptions, no_topic
from ..._transport import Lag, PartitionLag
from ._alarms import Alarms
from ._bucket import forget_topic, read_document
from ._consumer import Consumer
from ._errors import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, ApiError, SessionLost, not_possible
from ._group_consumer import GroupConsumer
from ._link import Link
from ._names import consumer_name
from ._outbox import Outbox, Outcome
from ._session import Session
from ._streams import Streams, to_options

T = TypeVar("T")

AnyConsumer = Consumer | GroupConsumer
"""What a feed reads from; the same calls for both."""


class Engine:
    """Link, outbox, streams and consumers of one transport.

    Args:
        start: starts a task in the loop's nursery.
        emit: tells the program of an event.
        tell: tells the program an outcome.
    """

    def __init__(
        self,
        config: BusConfig,
        *,
        start: Callable[..., None],
        emit: Callable[[Event], None],
        tell: Callable[[Outcome], None],
    ) -> None:
        self.start = start
        self.emit = emit
        self.streams = Streams(config.nats, emit)
        self.alarms = Alarms()
        self.outbox = Outbox(self.streams, start, tell)
        self.link = Link(config.nats, config.source, emit)
        self.link.on_up.append(self._on_up)
        self.link.on_down.append(self._on_down)
        self._consumers: set[AnyConsumer] = set()

    async def open(self) -> None:
        """Connect, and keep connected."""
        await self.link.connect()
        session = self.link.session
        assert session is not None
        self.start(self.link.run)  # from here on it is the link that closes the session
        await self.outbox.attach(session)

    async def close(self) -> None:
        """Close the connection."""
        for consumer in self._consumers:
            consumer.abandon()
        self.link.closing = True
        session = self.link.session
        if session is not None:
            session.flush()
            await session.close()

    def _on_up(self, session: Session) -> None:
        self.start(self._attach_all, session)

    async def _attach_all(self, session: Session) -> None:
        # The outbox first: its streams may have to be made again before they can be read.
        try:
            await self.outbox.attach(session)
        except SessionLost:
            return
        for consumer in tuple(self._consumers):
            consumer.attach_again(session, "the connection was lost")

    def _on_down(self, _: str) -> None:
        self.outbox.detach()
        for consumer in self._consumers:
            consumer.detach()

    async def open_consumer(self, make: Callable[[], AnyConsumer]) -> AnyConsumer:
        """Open a consumer; cancelled, it leaves nothing."""
        consumer = make()
        session = await self.link.wait_session()
        try:
            await consumer.open(session)
        except BaseException:
            consumer.abandon()
            raise
        self._consumers.add(consumer)
        return consumer

    def drop(self, consumers: Sequence[AnyConsumer]) -> None:
        """Close consumers that nobody waits for any more."""
        for consumer in consumers:
            if consumer in self._consumers:
                self._consumers.discard(consumer)
                self.start(consumer.close)

    def forget(self, consumer: AnyConsumer) -> None:
        """A consumer was closed."""
        self._consumers.discard(consumer)

    async def with_session(self, function: Callable[[Session], Awaitable[T]]) -> T:
        """Run a function with the connection, as soon as there is one."""
        return await function(await self.link.wait_session())

    async def get_topic(self, topic: str) -> TopicOptions | None:
        """What the server has."""
        info = await self.streams.info(await self.link.wait_session(), topic)
        return None if info is None else to_options(info["config"])

    async def remove_topic(self, topic: str) -> bool:
        """Remove a topic, all that it holds, and what is known of its groups."""
        session = await self.link.wait_session()
        removed = await self.streams.remove(session, topic)
        await forget_topic(session, topic)
        return removed

    async def lag(self, topic: str, group: str) -> Lag:
        """Messages that are stored and not settled, of each partition that the group reads; no
        partition if it never did.

        Raises:
            ConsumerGone: there is no such topic.
        """
        session = await self.link.wait_session()
        info = await self.streams.info(session, topic)
        if info is None:
            raise no_topic(topic)
        partitions = to_options(info["config"]).partitions
        try:
            document = await read_document(session, topic, group)
        except ApiError as error:
            raise not_possible(f"cannot look up a group of topic {topic!r}", error) from error
        found: list[PartitionLag] = []
        for number in range(partitions):
            name = consumer_name(group, None if partitions == 1 else number)
            count = await self._behind(session, topic, name)
            if count is not None:
                found.append(_partition_lag(number, count, document))
        if not found and partitions > 1:  # it may share all of them, in no order
            count = await self._behind(session, topic, consumer_name(group))
            if count is not None:
                found.append(PartitionLag(0, count))
        return Lag(topic, group, tuple(found), document.members)

    async def _behind(self, session: Session, topic: str, consumer: str) -> int | None:
        try:
            info = await session.api(f"CONSUMER.INFO.{self.streams.stream(topic)}.{consumer}")
        except ApiError as error:
            if error.err_code in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                return None
            raise not_possible(f"cannot look up a group of topic {topic!r}", error) from error
        return int(info["num_pending"]) + int(info["num_ack_pending"])


def _partition_lag(number: int, count: int, document: Document) -> PartitionLag:
    """How far behind, and who reads."""
    if number >= len(document.partitions) or not document.partitions[number].owner:
        return PartitionLag(number, count)
    one = document.partitions[number]
    heir = one.target if one.target not in ("", one.owner) else None
    return PartitionLag(number, count, None, one.owner, one.epoch, heir)


async def open_engine(
    config: BusConfig,
    *,
    start: Callable[..., None],
    emit: Callable[[Event], None],
    tell: Callable[[Outcome], None],
) -> Engine:
    """Make the engine in the clients' loop, and connect.

    Raises:
        TransportLost: no server could be reached.
    """
    engine = Engine(config, start=start, emit=emit, tell=tell)
    await engine.open()
    return engine
