"""One bus's way to a memory broker."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from ..._config import BusConfig
from ..._envelope import Envelope, fields_of
from ..._errors import TransportLost
from ..._events import Connected, ConnectionLost, FeedReset, TopicMade
from ..._message import Position
from ..._runtime import OneShot, Runtime, current_runtime
from ..._timers import Timer, Timers
from ..._topic import Strategy, TopicOptions, no_topic
from ..._transport import Emit, FeedRequest, Holding, Lag, Outgoing
from ._broker import Broker, use_broker
from ._faults import Faults
from ._feed import MemoryFeed
from ._reconcile import reconcile
from ._sender import Answer, Link, Sender
from ._topic_store import TopicStore

_FRAME: Final = 128
"""Bytes of an envelope's encoding besides the texts that are counted: not many more or fewer."""


class MemoryTransport:
    """A `Transport` over a broker in this process.

    Attributes:
        faults: what is to go wrong.
        broker: where topics are kept.
        address: of the broker, as in events.
    """

    def __init__(
        self, broker: Broker, name: str, runtime: Runtime, timers: Timers, emit: Emit
    ) -> None:
        self.broker = broker
        self.address = f"memory://{name}"
        self.faults = Faults(self)
        self._topics = broker.topics
        self._clock = runtime.clock
        self._runtime = runtime
        self._timers = timers
        self._emit = emit
        self._opened = runtime.clock()
        self._link = Link.UP
        self._delay = 0.0
        self._feeds: dict[MemoryFeed, None] = {}
        self._sender = Sender(self._store, runtime, timers)
        self._link_timer: Timer | None = None
        self._restored: list[OneShot] = []

    # --- publishing ---

    def send_nowait(self, outgoing: Outgoing) -> None:
        """Store an event; unless a fault is in the way, its outcome is told before this returns."""
        if self._sender.is_plain:
            topic = self._topics.get(outgoing.topic) or self._find_or_make(outgoing.topic)
            outgoing.on_outcome(outgoing, topic.store(outgoing, self._clock()))
        else:
            self._sender.send(outgoing)

    def keep_nowait(self, topic: str, envelope: Envelope, now: float) -> Position | None:
        """Store an envelope as it is, unless a fault, a topic that does not exist, or a limit,
        for which its exact size would count, is in the way; or it is there already."""
        store = self._topics.get(topic)
        if store is None or store.is_limited or not self._sender.is_plain:
            return None
        fields = fields_of(envelope)  # a third faster than attribute by attribute
        key = fields["aggregate_id"]
        event_id = fields["event_id"]
        size = (
            _FRAME + 2 * len(key) + len(event_id) + len(fields["event_type"])
            + len(fields["payload"])
        )  # fmt: skip
        if fields["trace_id"] or fields["correlation_id"]:
            size += len(fields["trace_id"]) + len(fields["correlation_id"])
        return store.put(event_id, key, fields, (), size, now)

    async def flush(self) -> None:
        """Wait until every event taken has its outcome."""
        await self._sender.flush()

    def abandon(self) -> None:
        """Give every event that has no outcome yet the one that is true now."""
        self._sender.abandon()

    def _store(self, outgoing: Outgoing) -> Answer:
        name = outgoing.topic
        topic = self._topics.get(name) or self._find_or_make(name)
        return topic.store(outgoing, self._clock())

    # --- feeds ---

    async def open_feed(self, request: FeedRequest) -> MemoryFeed:
        """Open a feed; what is stored from now on will be handed over.

        Raises:
            ConfigurationError: the start does not fit the topic, or the group reads it in
                another order.
        """
        await self._wait_for_link()
        feed = MemoryFeed(
            request,
            self._find_or_make(request.topic),
            self._runtime,
            self._timers,
            self._emit,
            on_close=self._forget,
        )
        feed.delay = self._delay
        self._feeds[feed] = None
        return feed

    def _forget(self, feed: MemoryFeed) -> None:
        self._feeds.pop(feed, None)

    # --- topics ---

    async def configure_topic(
        self, topic: str, options: TopicOptions, strategy: Strategy
    ) -> TopicOptions:
        """Make a topic, or make it match, as the strategy says; returns what it is now.

        Raises:
            ConfigurationError: it does not match, and the strategy or its partitions forbid
                to change that. Every difference is named.
        """
        await self._wait_for_link()
        store = self.broker.topics.get(topic)
        wanted = reconcile(topic, store.options if store is not None else None, options, strategy)
        if wanted is not None:
            if store is None:
                self._find_or_make(topic, wanted)
            else:
                store.configure(wanted)
        store = self.broker.topics.get(topic)
        return options if store is None else store.options

    async def get_topic(self, topic: str) -> TopicOptions | None:
        """What the broker has, or None."""
        await self._wait_for_link()
        store = self.broker.topics.get(topic)
        return None if store is None else store.options

    async def list_topics(self) -> list[str]:
        """All topics, sorted."""
        await self._wait_for_link()
        return sorted(self.broker.topics)

    async def remove_topic(self, topic: str) -> bool:
        """Remove a topic and all that it holds; its feeds raise `ConsumerGone`."""
        await self._wait_for_link()
        return self.broker.remove(topic)

    def _find_or_make(self, topic: str, options: TopicOptions | None = None) -> TopicStore:
        store, made = self.broker.find_or_make(topic, options)
        if made:
            self._emit(TopicMade(topic))
        return store

    # --- looking ---

    async def lag(self, topic: str, group: str) -> Lag:
        """How far the group is behind; one that was never seen, as one that has read nothing.

        Raises:
            ConsumerGone: there is no such topic.
        """
        await self._wait_for_link()
        store = self.broker.topics.get(topic)
        if store is None:
            raise no_topic(topic)
        return store.lag(group, self._runtime.clock())

    async def list_groups(self, topics: Sequence[str]) -> dict[str, list[str]]:
        """The groups that have read each topic and were not removed."""
        await self._wait_for_link()
        found = {topic: self.broker.topics.get(topic) for topic in topics}
        return {topic: [] if store is None else store.groups() for topic, store in found.items()}

    async def last_positions(self, topic: str) -> dict[int, int]:
        """The offset of the last message of each partition that holds any."""
        await self._wait_for_link()
        store = self.broker.topics.get(topic)
        return {} if store is None else store.last_positions(self._clock())

    async def ping(self) -> float:
        """Wait for a sign of life; returns the seconds that it took."""
        before = self._runtime.clock()
        await self._wait_for_link()
        return self._runtime.clock() - before

    async def wait_failed(self) -> None:
        """A broker in this process does not fail by itself: waits until it is cancelled."""
        await self._runtime.one_shot().wait()

    def is_connected(self) -> bool:
        """Whether nothing was broken on request."""
        return self._link is Link.UP

    def holdings(self) -> list[Holding]:
        """The one task that waits for deadlines."""
        age = self._runtime.clock() - self._opened
        waits = f"{len(self._timers)} deadlines" if len(self._timers) else "nothing"
        return [Holding("task", "memory timers", waits_for=waits, age=age)]

    async def _wait_for_link(self) -> None:
        await self._runtime.checkpoint()
        while self._link is not Link.UP or self._delay:
            if self._link is Link.CLOSED:
                raise TransportLost(f"{self.address} is closed")
            if self._link is Link.UP:
                event = self._runtime.one_shot()
                timer = self._timers.call_later(self._delay, event.set)
                try:
                    await event.wait()
                finally:
                    timer.cancel()
                return
            event = self._runtime.one_shot()
            self._restored.append(event)
            await event.wait()

    # --- what goes wrong, as `Faults` tells it ---

    def refuse_publishes(self, seconds: float) -> None:
        self._sender.refused_until = self._runtime.clock() + seconds
        self._sender.faults_changed()

    def lose_outcomes(self, count: int, stored: bool) -> None:
        self._sender.answers_to_lose = count
        self._sender.stores_unanswered = stored
        self._sender.faults_changed()

    def set_delay(self, seconds: float) -> None:
        self._delay = self._sender.delay = seconds
        self._sender.faults_changed()
        for feed in self._feeds:
            feed.delay = seconds
            feed.look_again()

    def cut_feeds(self, seconds: float | None, topic: str | None) -> None:
        cut = [feed for feed in self._feeds if topic is None or feed.request.topic == topic]
        for feed in cut:
            feed.cut()
        if seconds is not None:
            self._timers.call_later(seconds, lambda: self._resume(cut))

    def break_link(self, link: Link, seconds: float | None) -> None:
        if self._link is Link.CLOSED:
            return
        if self._link_timer is not None:
            self._link_timer.cancel()
            self._link_timer = None
        if self._link is Link.UP:
            self._emit(ConnectionLost(self.address, f"it is {link.value}, as was asked for"))
        self._set_link(link)
        self.cut_feeds(None, None)
        if seconds is not None:
            self._link_timer = self._timers.call_later(seconds, self._relink)

    def restore(self) -> None:
        self._sender.refused_until = -math.inf
        self._sender.answers_to_lose = 0
        self.set_delay(0.0)
        self._relink()

    def _relink(self) -> None:
        if self._link is Link.CLOSED:
            return
        if self._link_timer is not None:
            self._link_timer.cancel()
            self._link_timer = None
        was_up = self._link is Link.UP
        self._set_link(Link.UP)
        if not was_up:
            self._emit(Connected(self.address))
        self._resume(list(self._feeds))

    def _resume(self, feeds: list[MemoryFeed]) -> None:
        if self._link is not Link.UP:
            return
        for feed in feeds:
            if feed.resume():
                request = feed.request
                self._emit(FeedReset(request.topic, request.group, "the connection was cut"))

    def _set_link(self, link: Link) -> None:
        self._link = link
        self._sender.set_link(link)
        if link in (Link.UP, Link.CLOSED):
            for event in self._restored:
                event.set()
            self._restored.clear()

    def close(self) -> None:
        """Give back what feeds hold, and take nothing more."""
        for feed in list(self._feeds):
            feed.close()
        self._sender.close()
        self._set_link(Link.CLOSED)


@asynccontextmanager
async def open_memory(config: BusConfig, emit: Emit) -> AsyncIterator[MemoryTransport]:
    """Open a transport over a broker in this process.

    `memory.name` names a broker that all transports of that name share while one of them
    is open; without a name it is this transport's own, and ends with it.

    Args:
        config: its section `memory` is read.
        emit: is told of connections, topics made, resets, and losses.

    Raises:
        ConfigurationError: the name is in use in another event loop.
    """
    runtime = current_runtime()
    timers = Timers(runtime)
    with use_broker(config, runtime) as broker:
        transport = MemoryTransport(broker, config.memory.name or "", runtime, timers, emit)
        failure: BaseException | None = None
        try:
            async with runtime.open_nursery() as nursery:
                nursery.start_soon(timers.run, name="tbus memory timers")
                try:
                    emit(Connected(transport.address))
                    yield transport
                except Exception as error:  # noqa: BLE001 - raised below, where no nursery wraps it
                    failure = error
                finally:
                    transport.close()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if failure is not None:
                failure.add_note(f"the memory transport failed too: {group.exceptions!r}")
            elif len(group.exceptions) == 1:
                failure = group.exceptions[0]
            else:
                raise
        if failure is not None:
            raise failure
