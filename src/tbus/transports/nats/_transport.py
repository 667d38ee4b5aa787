"""NATS JetStream, as the bus sees it. The program's side; the rest lives in the clients' loop."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

import anyio

from ..._bridge import Bridge, open_bridge
from ..._config import BusConfig
from ..._crossing import Published, WayBack
from ..._errors import BusClosed, ConsumerGone, TransportLost
from ..._topic import Strategy, TopicOptions
from ..._transport import Emit, FeedRequest, Holding, Lag, Outgoing
from ._consumer import Consumer
from ._engine import AnyConsumer, Engine, open_engine
from ._errors import NoAnswer, NoResponders, SessionLost
from ._feed import NatsFeed
from ._group_consumer import GroupConsumer
from ._names import consumer_name
from ._outbox import Outcome
from ._served import ServedConsumer
from ._session import Session

T = TypeVar("T")

REQUEST_WAIT = 10.0
"""Seconds for which a question waits for a connection and its answer."""


class NatsTransport:
    """A `Transport` over one NATS server or cluster."""

    def __init__(self, bridge: Bridge, engine: Engine, config: BusConfig) -> None:
        self._bridge = bridge
        self._engine = engine
        self._config = config
        self._opened = bridge.runtime.clock()
        self._feeds: set[NatsFeed] = set()
        published = Published(bridge, engine.outbox)
        # Its own methods, which is one call less for each event.
        self.send_nowait: Callable[[Outgoing], None] = published.send
        self.flush = published.flush
        self.abandon = published.abandon

    async def open_feed(self, request: FeedRequest) -> NatsFeed:
        """Make or find the group's consumer, and begin to pull."""
        feed = NatsFeed(request, self._bridge, self._forget)
        engine = self._engine
        made: list[AnyConsumer] = []

        def make() -> AnyConsumer:
            consumer: AnyConsumer
            if request.group is not None and request.order != "none":
                consumer = GroupConsumer(
                    request,
                    engine.streams,
                    engine.alarms,
                    start=engine.start,
                    emit=engine.emit,
                    tell=feed.tell,
                    fail=feed.fail,
                    drain=feed.drain,
                    lose=feed.lose,
                    own=feed.own,
                )
            else:
                group = request.group
                name = f"tbus-{uuid.uuid4().hex}" if group is None else consumer_name(group)
                consumer = Consumer(
                    request,
                    ServedConsumer(request, name, engine.streams, engine.emit),
                    engine.streams,
                    engine.alarms,
                    start=engine.start,
                    emit=engine.emit,
                    tell=feed.tell,
                    fail=feed.fail,
                )
            made.append(consumer)
            return consumer

        try:
            feed.read_from(await self._ask(lambda: engine.open_consumer(make)))
        except BaseException:
            feed.discard()
            # Cancelled when it was just open: nobody else would ever close it.
            with suppress(BusClosed):
                self._bridge.submit_if_open(self._engine.drop, made)
            raise
        self._feeds.add(feed)
        return feed

    def _forget(self, feed: NatsFeed) -> None:
        self._feeds.discard(feed)
        self._bridge.submit_if_open(self._engine.forget, feed.consumer)

    async def configure_topic(
        self, topic: str, options: TopicOptions, strategy: Strategy
    ) -> TopicOptions:
        """Make a topic, or make it match, as the strategy says."""
        return await self._ask(
            lambda: self._engine.with_session(
                lambda session: self._engine.streams.configure(session, topic, options, strategy)
            )
        )

    async def get_topic(self, topic: str) -> TopicOptions | None:
        """What the server has, or None."""
        return await self._ask(lambda: self._engine.get_topic(topic))

    async def list_topics(self) -> list[str]:
        """The topics whose streams tbus made."""
        return await self._ask(lambda: self._engine.with_session(self._engine.streams.list))

    async def remove_topic(self, topic: str) -> bool:
        """Remove a topic and all that it holds."""
        return await self._ask(lambda: self._engine.remove_topic(topic))

    async def lag(self, topic: str, group: str) -> Lag:
        """How far the group is behind."""
        found = await self._ask(lambda: self._engine.lag(topic, group))
        if not found.partitions:
            raise ConsumerGone(f"group {group!r} has never read topic {topic!r}")
        return found

    async def list_groups(self, topics: Sequence[str]) -> dict[str, list[str]]:
        """The groups that have a consumer of each topic."""
        streams = self._engine.streams

        async def look(session: Session) -> dict[str, list[str]]:
            return {topic: await streams.groups(session, topic) for topic in topics}

        return await self._ask(lambda: self._engine.with_session(look))

    async def last_positions(self, topic: str) -> dict[int, int]:
        """The sequence of each partition's last message, where there is one."""
        return await self._ask(
            lambda: self._engine.with_session(
                lambda session: self._engine.streams.last_sequences(session, topic)
            )
        )

    async def ping(self) -> float:
        """A round trip to the server, in seconds."""
        before = self._bridge.runtime.clock()
        await self._ask(
            lambda: self._engine.with_session(lambda session: session.ping(REQUEST_WAIT))
        )
        return self._bridge.runtime.clock() - before

    async def wait_failed(self) -> None:
        """Wait until the clients' loop, or the link, has failed."""
        await self._bridge.wait_failed()

    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._engine.link.session is not None

    def holdings(self) -> list[Holding]:
        """Loop, thread, tasks, connection and leases."""
        age = self._bridge.runtime.clock() - self._opened
        tasks = [Holding("task", role, age=age) for role in self._bridge.tasks()]
        threads = [Holding("thread", name, age=age) for name in self._bridge.threads()]
        session = self._engine.link.session
        connection = [] if session is None else [Holding("connection", session.address, age=age)]
        leases = [lease for feed in self._feeds if (lease := feed.lease(age)) is not None]
        return [*tasks, *threads, *connection, *leases]

    async def _ask(self, function: Callable[[], Awaitable[T]]) -> T:
        """Ask the server, within `REQUEST_WAIT`."""
        with anyio.move_on_after(REQUEST_WAIT):
            try:
                return await self._bridge.call(function)
            except (SessionLost, NoAnswer, NoResponders) as error:
                raise TransportLost(f"the broker did not answer: {error}") from error
        raise TransportLost(
            f"the broker at {', '.join(self._config.nats.servers)} could not be reached within"
            f" {REQUEST_WAIT} s"
        )


def _take_outcomes(crossed: deque[Outcome]) -> None:
    while crossed:
        outgoing, result = crossed.popleft()
        outgoing.on_outcome(outgoing, result)


@asynccontextmanager
async def open_nats(config: BusConfig, emit: Emit) -> AsyncIterator[NatsTransport]:
    """Connect; leaving the block closes the connection and ends the loop.

    Raises:
        TransportLost: no server could be reached within `connect_timeout`.
    """
    async with open_bridge() as bridge:
        outcomes = WayBack(bridge, _take_outcomes)

        engine = await bridge.call(
            partial(
                open_engine,
                config,
                start=bridge.start,
                emit=lambda event: bridge.post(emit, event),
                tell=outcomes.send,
            )
        )
        try:
            yield NatsTransport(bridge, engine, config)
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(0.3):
                try:
                    await bridge.call(engine.close)
                except BusClosed:
                    pass
