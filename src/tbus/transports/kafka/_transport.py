"""Kafka, as the bus sees it. The program's side; the rest lives in the clients' loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

import anyio

from ..._bridge import Bridge, open_bridge
from ..._config import BusConfig
from ..._crossing import Published
from ..._errors import BusClosed, ConfigurationError, ConsumerGone, TbusError, TransportLost
from ..._message import Receipt
from ..._topic import Strategy, TopicOptions
from ..._transport import Emit, FeedRequest, Holding, Lag, Outgoing
from ._asking import ask
from ._engine import Engine, open_engine
from ._feed import KafkaFeed
from ._log_limit import limit_logs
from ._topic_consumer import TopicConsumer

T = TypeVar("T")

REQUEST_WAIT = 10.0
"""Seconds for which a question waits for a broker and its answer."""

JOIN_WAIT = 30.0
"""Seconds for which a feed waits for its group: other members may be draining."""

CLOSE_WAIT = 1.5
"""Seconds for closing every client at once."""


class KafkaTransport:
    """A `Transport` over one Kafka cluster.

    Args:
        knows_ends: the broker says truly where partitions end (Tansu does not).
    """

    def __init__(
        self, bridge: Bridge, engine: Engine, config: BusConfig, *, knows_ends: bool
    ) -> None:
        self._bridge = bridge
        self._engine = engine
        self._config = config
        self._knows_ends = knows_ends
        self._opened = bridge.runtime.clock()
        self._feeds: set[KafkaFeed] = set()
        published = Published(bridge, engine.outbox)
        # Its own methods, which is one call less for each event.
        self.send_nowait: Callable[[Outgoing], None] = published.send
        self.flush = published.flush
        self.abandon = published.abandon

    async def open_feed(self, request: FeedRequest) -> KafkaFeed:
        """Join the group, or read all partitions."""
        if not self._knows_ends and request.start != "earliest":
            what = "start anywhere but at the beginning of a topic"
            raise self._unknown_ends(what, "start", request.start)
        engine = self._engine
        feed = KafkaFeed(
            request, self._bridge, close=engine.close_feed, on_close=self._feeds.discard
        )
        made: list[TopicConsumer] = []

        async def open_it() -> TopicConsumer:
            consumer = TopicConsumer(
                request,
                tell=feed.tell,
                fail=feed.fail,
                drain=feed.drain,
                lose=feed.lose,
            )
            made.append(consumer)
            feed.read_from(consumer)
            await engine.open_feed(consumer)
            return consumer

        try:
            await self._ask(open_it, JOIN_WAIT)
        except BaseException:
            feed.discard()
            # Cancelled when it was just open: nobody else would ever close it.
            with suppress(BusClosed):
                self._bridge.submit_if_open(engine.drop, made)
            raise
        self._feeds.add(feed)
        return feed

    async def configure_topic(
        self, topic: str, options: TopicOptions, strategy: Strategy
    ) -> TopicOptions:
        """Make a topic, or make it match, as the strategy says."""
        topics = self._engine.topics
        return await self._ask(lambda: ask(lambda: topics.configure(topic, options, strategy)))

    async def get_topic(self, topic: str) -> TopicOptions | None:
        """What the cluster has, or None."""
        return await self._ask(lambda: ask(lambda: self._engine.topics.get(topic)))

    async def list_topics(self) -> list[str]:
        """The topics of the cluster, without Kafka's own."""
        return await self._ask(lambda: ask(self._engine.topics.list))

    async def remove_topic(self, topic: str) -> bool:
        """Remove a topic and all that it holds."""
        return await self._ask(lambda: self._engine.remove_topic(topic))

    async def lag(self, topic: str, group: str) -> Lag:
        """How far the group is behind."""
        if not self._knows_ends:
            raise self._unknown_ends("count what a group is behind", "topic", topic)
        found = await self._ask(lambda: self._engine.lag(topic, group))
        if found is None:
            raise ConsumerGone(f"group {group!r} has never read topic {topic!r}")
        return Lag(topic, group, tuple(found))

    async def list_groups(self, topics: Sequence[str]) -> dict[str, list[str]]:
        """The groups that have committed where they stand in each topic."""
        return await self._ask(lambda: ask(lambda: self._engine.groups.list(topics)))

    async def last_positions(self, topic: str) -> dict[int, int]:
        """The offset of the last message of each partition."""
        if not self._knows_ends:
            raise self._unknown_ends("see where a topic ends", "topic", topic)
        return await self._ask(lambda: self._engine.last_positions(topic))

    def _unknown_ends(self, what: str, field: str, value: object) -> ConfigurationError:
        return ConfigurationError(
            f"the embedded broker is Tansu, which cannot {what}: it does not tell truly where"
            " partitions end. Install Java 17 and Maven, and kafka+embedded:// is Apache Kafka",
            field=field,
            value=value,
        )

    async def ping(self) -> float:
        """A round trip to some broker, in seconds."""
        before = self._bridge.runtime.clock()
        await self._ask(self._engine.ping)
        return self._bridge.runtime.clock() - before

    async def wait_failed(self) -> None:
        """Wait until the clients' loop, or the link, has failed."""
        await self._bridge.wait_failed()

    def is_connected(self) -> bool:
        """Whether the cluster answered when it was last asked."""
        return self._engine.link.is_up

    def holdings(self) -> list[Holding]:
        """Loop, thread and tasks."""
        age = self._bridge.runtime.clock() - self._opened
        tasks = [Holding("task", role, age=age) for role in self._bridge.tasks()]
        threads = [Holding("thread", name, age=age) for name in self._bridge.threads()]
        return [*tasks, *threads]

    async def _ask(self, function: Callable[[], Awaitable[T]], wait: float = REQUEST_WAIT) -> T:
        """Ask the cluster, within `wait` seconds."""
        with anyio.move_on_after(wait):
            return await self._bridge.call(function)
        raise TransportLost(
            f"Kafka at {', '.join(self._config.kafka.servers)} did not answer within {wait} s"
        )


@asynccontextmanager
async def open_kafka(
    config: BusConfig, emit: Emit, *, idempotent: bool = True, knows_ends: bool = True
) -> AsyncIterator[KafkaTransport]:
    """Connect; leaving the block closes every connection and ends the loop.

    Args:
        config: whose `kafka` section says where to.
        emit: told of events.
        idempotent: whether the broker can tell a producer's repeat.
        knows_ends: whether it says truly where partitions end.

    Raises:
        TransportLost: no broker could be reached within `connect_timeout`.
        ConfigurationError: it does not let us in.
    """
    async with open_bridge() as bridge:

        def tell(outgoing: Outgoing, result: Receipt | TbusError) -> None:
            bridge.post(outgoing.on_outcome, outgoing, result)

        def take_outcomes(stored: list[tuple[Outgoing, Receipt]]) -> None:
            for outgoing, receipt in stored:
                outgoing.on_outcome(outgoing, receipt)

        def tell_stored(stored: list[tuple[Outgoing, Receipt]]) -> None:
            bridge.post(take_outcomes, stored)

        with limit_logs():
            engine = await bridge.call(
                partial(
                    open_engine,
                    config,
                    start=bridge.start,
                    emit=lambda event: bridge.post(emit, event),
                    tell=tell,
                    tell_stored=tell_stored,
                    idempotent=idempotent,
                )
            )
            try:
                yield KafkaTransport(bridge, engine, config, knows_ends=knows_ends)
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_WAIT):
                    try:
                        await bridge.call(engine.close)
                    except BusClosed:
                        pass
