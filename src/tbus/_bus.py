"""The bus: what its users call, and the steps of its end.

Nothing is started anywhere but in the nursery of `open_bus`, or inside the transport's
own context manager, which is entered and left there. The end has seven steps, each with a
deadline, so that a dead broker can hold none of them:

1. new subscriptions, and publishes from outside handlers, are refused; feeds stop;
2. running handlers finish, until the grace period ends;
3. those that still run are cancelled: that is no failure, their messages are given back;
4. settlements are flushed and feeds closed;
5. publishes in flight get their outcome: the rest is unknown;
6. the transport ends: clients, loop, thread, server process;
7. the nursery ends, and the statement after the block finds nothing.

Steps 1 to 5 are here (2 to 4 in `_readers`), the others in `_open`. (A long file: most of it is
the promises of the public calls.)
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

import anyio
import attrs

from ._batch_source import BatchSource
from ._careful import Turns
from ._census import Census
from ._config import BusConfig
from ._dead_letters import DeadLetter, Redriven
from ._envelope import Envelope
from ._errors import BusClosed, ConfigurationError, TransportLost
from ._event_stream import EventHub, EventReader
from ._events import Draining
from ._gathering import Batch
from ._graveyard import DeadLetters, Graveyard
from ._intake import Intake
from ._message import Position, Receipt
from ._messages import Messages
from ._pace import Rate
from ._publisher import PipelinedPublisher, Publisher
from ._quarantine import Action, Quarantine
from ._readers import Readers
from ._requests import (
    check_count,
    check_dead_letters,
    check_handler,
    check_options,
    check_seconds,
    check_subscription,
    intake_type,
)
from ._retry import Retry
from ._runtime import Nursery, Runtime
from ._subscription import Handler, HandlerSource, Subscription
from ._timers import Timers
from ._topic import Strategy, TopicOptions, check_group, check_strategy, check_topic
from ._transport import Guarantee, Holding, Lag, Order, Start, Transport
from ._workers import WorkerPool

logger = logging.getLogger("tbus")

FLUSH_WAIT = 0.1
"""Seconds for the outcomes of publishes when the grace period is spent."""


@attrs.frozen
class Health:
    """How the bus is, for probes.

    Attributes:
        state: "connected", or "disconnected" from its broker, which it tries to reach again;
            "draining" from when the block of the bus is left until everything has ended;
            "closed" from then on.
        in_flight: messages here that are not settled.
        running: handlers running.
        last_progress: seconds since a message was last settled or an event stored; None if
            nothing was yet.
    """

    state: Literal["connected", "disconnected", "draining", "closed"]
    in_flight: int
    running: int
    last_progress: float | None


class Bus:
    """An open bus; made by `open_bus`.

    It belongs to the event loop that it was opened in. A call from another loop, or from a thread
    without one, raises RuntimeError before anything is sent; a worker thread of this loop goes
    by `anyio.from_thread.run`. `health` and `census` only look, and may be called anywhere.
    """

    def __init__(
        self,
        config: BusConfig,
        runtime: Runtime,
        transport: Transport,
        nursery: Nursery,
        hub: EventHub,
        held: Callable[[], list[Holding]],
    ) -> None:
        self.config = config
        self.transport = transport
        self._runtime = runtime
        self._check_here = runtime.check_here
        self._nursery = nursery
        self._hub = hub
        self._held = held
        self._timers = Timers(runtime)
        self._pool = WorkerPool(runtime, nursery, config.concurrency, self._timers, config.grace)
        self._publisher = Publisher(transport, runtime, config.publish_timeout, config.publish_rate)
        self._turns = Turns()
        self._graveyard = Graveyard(transport, self._publisher, runtime, config)
        self._readers = Readers(transport, runtime, self._pool, config.grace, self._start)
        self._tasks: dict[object, tuple[str, str | None, float]] = {}
        self._causes: list[BaseException] = []
        self._on_failure: Callable[[], None] = lambda: None
        self._ending = False
        self._closed = False
        self._left = False
        """Nothing of it is there any more; set at the door."""
        self.draining = anyio.Event()
        """Set once the bus begins to end."""

    def __repr__(self) -> str:
        return f"<Bus {self.config.address}>"

    # Publishing

    async def publish(
        self,
        topic: str,
        body: Envelope | bytes,
        *,
        key: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        id: str | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Publish one event; returns once the broker has stored it.

        Concurrent calls have no order among themselves; for that, use one publisher's
        `send`. Cancelled before the event left, nothing was sent; after that it may be
        stored, and is not repeated.

        Args:
            topic: where to.
            body: an `Envelope`, or `bytes`.
            key: what plain bytes are ordered by. An envelope is ordered by its aggregate id.
            headers: pairs of strings, in order; a name may come more than once.
            id: what makes a repeat recognisable; by default the envelope's event id, else a
                new UUIDv7. NATS discards a repeat within the duplicate window, Kafka never.
            timeout: seconds until the outcome must be known (default: `publish_timeout`).

        Raises:
            InvalidTopic, InvalidEnvelope, ConfigurationError: nothing was sent.
            PublishRefused: the broker did not store it.
            TransportLost: it could not be sent in time; it is not stored.
            OutcomeUnknown: it was sent, and no answer came in time: repeat it with the
                `event_id` of the error, if it must be stored.
            BusClosed: the bus has ended, or is ending and this is no handler.
        """
        self._may_send()
        self._check_here()
        return await self._publisher.publish(topic, body, key, headers, id, timeout)

    @asynccontextmanager
    async def open_publisher(self, max_in_flight: int = 1000) -> AsyncIterator[PipelinedPublisher]:
        """Publish without waiting for each event: see `PipelinedPublisher`.

        Leaving the block waits for every outcome, unless it is cancelled.

        Args:
            max_in_flight: events without an outcome, at most.

        Raises:
            PublishFailed: on leaving, if there are failures that nobody has read.
        """
        check_count("max_in_flight", max_in_flight)
        self._may_send()
        self._check_here()  # and not for every `send`
        async with PipelinedPublisher(self._publisher, max_in_flight, self._may_send) as publisher:
            yield publisher

    # Subscribing

    async def subscribe(
        self,
        topic: str,
        handler: Handler,
        *,
        group: str | None = None,
        concurrency: int | None = None,
        max_in_flight: int | None = None,
        order: Order = "key",
        timeout: float = 30.0,
        retry: Retry | None = None,
        dead_letter: str | None = "<topic>.dead",
        start: Start | None = None,
        decode: Any = None,
        rate: Rate | float | None = None,
        quarantine: Quarantine | Action | None = None,
        delivery: Guarantee = "at_least_once",
        max_deliveries: int | None = 20,
        batch: Batch | None = None,
    ) -> Subscription:
        """Have a handler called for every message of a topic.

        Returns when the broker has the subscription: what is published from then on
        arrives. It runs until `Subscription.close` or the end of the bus.

        A handler that returns has handled its message. One that raises is run again for it
        after the policy's delay, while later messages of the same key wait and those of other
        keys go on; when the attempts are used up, the message goes to the dead-letter topic. It
        may raise `RetryAfter`, `Reject` or `Discard`. Being cancelled is no failure.

        Args:
            topic: what to read.
            handler: `async def handler(message)`; with `decode`, `handler(event, message)`; with
                `batch`, a list of either.
            group: who shares the messages. Without one, this subscription sees every
                message, at least once while the bus is open.
            concurrency: handlers running at once, for this subscription (default: the bus's).
            max_in_flight: messages here and not settled (default: the bus's).
            order: "key", "partition" or "none".
            timeout: seconds for one run of the handler, up to a hundredth less, and 0.1 s less at
                most; one that is cut off has failed.
            retry: when to try again.
            dead_letter: the topic for what cannot be handled; None: try at the policy's
                `maximum` for ever, and report `Stalled`.
            start: where a group begins that the broker has not seen: "earliest" (default
                with a group), "latest" (default without), a time, or a `Position`.
            decode: a type to decode the envelope's payload into.
            rate: how fast handlers are begun, retries included: runs per second, a `Rate` or
                an `AdaptiveRate` (default: as fast as they come). What waits keeps its key
                and no worker; other subscriptions go on.
            quarantine: what becomes of a key whose message has used up its attempts: "park"
                (that message and all later ones of the key wait until
                `Subscription.release`), "dead_letter" (they all go there, in order), or
                `Quarantine` with more to say. By default that message alone is
                dead-lettered, and the key goes on.
            delivery: "at_least_once", or "at_most_once": a message is settled immediately before
                its handler runs. An error, a `timeout` or a cancellation is then told as
                `NotHandled`, and not repeated: no retry, no dead letter. The handler does not
                wait for the broker's confirmation. So a process that dies, or a connection
                that breaks, at the very moment may still bring a message twice: on NATS until
                the server has the acknowledgement that is on its way; on Kafka until the next
                commit, `kafka.commit_interval` later; in memory never.
            max_deliveries: how often a message may be delivered to processes that die with it. One
                that was goes to the dead-letter topic without another run; what may be such a
                message is handled alone before, so that nobody goes with it. No attempts:
                those are counted by themselves. Where the broker shares messages without
                order (NATS, and memory) it is the broker's count, which every redelivery
                raises. Without a dead-letter topic such a message is `Stalled` for the policy's
                `maximum` before the handler runs again. None: any number.
            batch: `Batch(size, within)`: the handler takes lists, `async def handler(messages)`,
                and with `decode`, lists of pairs `(event, message)`. A list holds several keys,
                each in order; nothing else of them is handled meanwhile. When the handler
                raises, the whole list is handled again; with `BatchFailed({message: error})`, these
                messages and what stands behind them in their keys. The last attempt, or the next
                after an error that is not retried, runs message by message. `timeout`, `rate`
                and `concurrency` count runs, whatever their lists hold.

        Raises:
            ConfigurationError, InvalidTopic: nothing was asked of the broker.
            SubscriptionFailed: the broker would not have it.
            TransportLost: the broker could not be reached in time.
            BusClosed: the bus is ending.
        """
        check_handler(handler, decode, takes_lists=batch is not None)
        kind = HandlerSource if batch is None else BatchSource
        source = kind(topic, group, handler, decode, timeout, self._pool)
        intake = await self._open_intake(
            source, topic, group, concurrency, max_in_flight, order, timeout, retry,
            dead_letter, start, rate, source.on_ready, quarantine, delivery, max_deliveries, batch,
        )  # fmt: skip
        source.attach(intake)
        self._start("pull loop", topic, intake.run)
        return Subscription(source, partial(self._readers.close_source, source), self._check_here)

    @asynccontextmanager
    async def open_messages(
        self,
        topic: str,
        *,
        group: str | None = None,
        concurrency: int | None = None,
        max_in_flight: int | None = None,
        order: Order = "key",
        retry: Retry | None = None,
        dead_letter: str | None = "<topic>.dead",
        start: Start | None = None,
        rate: Rate | float | None = None,
        max_deliveries: int | None = 20,
    ) -> AsyncIterator[Messages]:
        """The same, pulled: `async for message in messages:`, then `async with message:`.

        Entering the outer block returns when the broker has the subscription, as `subscribe`
        does. Leaving the inner block settles the message; an exception there counts as a failed
        attempt and goes on, so catch it outside to continue: the message is yielded again after
        the policy's delay, with its next attempt. Several tasks may read, each its own
        messages. The loop ends when the bus begins to end.

        Cancelled inside the inner block, the message has used no attempt and is yielded again.
        Leaving the outer block, however it is left, gives back what is not settled, without an
        attempt, and closes the subscription, which takes 0.3 s at most; a message that is
        entered afterwards raises RuntimeError.

        Args:
            concurrency: messages out at once, one of each key (default: the bus's).
            rate: how fast messages are yielded, those that come again included: as for `subscribe`.
            topic, group, max_in_flight, order, retry, dead_letter, start, max_deliveries: as for
                `subscribe`.

        Raises:
            ConfigurationError, InvalidTopic, SubscriptionFailed, TransportLost, BusClosed: on
                entering, as for `subscribe`.
        """
        messages = Messages(self._runtime)
        intake = await self._open_intake(
            messages, topic, group, concurrency, max_in_flight, order, 30.0, retry,
            dead_letter, start, rate, messages.on_ready, max_deliveries=max_deliveries,
        )  # fmt: skip
        messages.intake = intake
        self._start("pull loop", topic, intake.run)
        try:
            yield messages
        finally:
            await self._readers.close_messages(messages)  # noqa: ASYNC102 - it shields itself

    async def _open_intake(
        self,
        reader: HandlerSource | Messages,
        topic: str,
        group: str | None,
        concurrency: int | None,
        max_in_flight: int | None,
        order: Order,
        timeout: float,
        retry: Retry | None,
        dead_letter: str | None,
        start: Start | None,
        rate: Rate | float | None,
        on_ready: Callable[[], None],
        quarantine: Quarantine | Action | None = None,
        delivery: Guarantee = "at_least_once",
        max_deliveries: int | None = 20,
        batch: Batch | None = None,
    ) -> Intake:
        options, wanted = check_subscription(
            self.config, topic, group, concurrency, max_in_flight, order, timeout, retry,
            dead_letter, start, rate, quarantine, max_deliveries, delivery, batch,
        )  # fmt: skip
        self._may_subscribe()
        feed = await self._readers.open_feed(reader, wanted)
        return intake_type(options)(
            topic,
            group,
            feed,
            options,
            runtime=self._runtime,
            timers=self._timers,
            emit=self._hub.emit,
            bury=self._graveyard.bury,
            on_ready=on_ready,
            turns=self._turns,
        )

    # Dead letters

    @asynccontextmanager
    async def open_dead_letters(
        self,
        topic: str,
        *,
        group: str | None = None,
        dead_letter: str = "<topic>.dead",
        start: Position | None = None,
    ) -> AsyncIterator[DeadLetters]:
        """The dead letters of a topic, oldest first, as an async iterator of `DeadLetter`s
        that ends at the last one that is stored now.

        Reading takes nothing: there is no group, and every letter stays where it is. A
        letter that was stored twice, around a crash, comes once; what is no letter of this
        topic is left out.

        Args:
            topic: where the originals were published.
            group: only the letters of this group (default: of all).
            dead_letter: the topic that holds them, as given to `subscribe`.
            start: a position in the dead-letter topic to begin at (default: its beginning).

        Raises:
            ConfigurationError, InvalidTopic: nothing was asked of the broker.
            TransportLost: the broker could not be reached, or fell silent.
            MessagesLost: retention took letters that were still to come, of one of several
                partitions: read again.
            BusClosed: the bus has ended, or is ending.
        """
        target = check_dead_letters(topic, group, dead_letter, start)
        self._may_subscribe()
        async with self._graveyard.open(topic, group, target, start) as letters:
            yield letters

    async def redrive(self, letter: DeadLetter, *, to: str | None = None) -> Redriven:
        """Publish the original of a dead letter again, and put that on record: whoever reads
        the letter from then on sees it in `redriven` and `last_redriven`.

        Body, key and headers are the original's; behind them come `Tbus-Redriven-From`,
        `-Letter`, `-Group` and `-Count`. It is a new message of its topic: behind whatever
        its key has had meanwhile, and for every group that reads there. The id is not the
        original's, for the broker may still discard that one; it is the same for every try,
        so after an error, or cancelled, call again.

        Args:
            letter: as read from `open_dead_letters`.
            to: another topic (default: where the original was published).

        Raises:
            InvalidTopic, ConfigurationError: nothing was sent.
            PublishRefused, TransportLost, OutcomeUnknown: as for `publish`; either of the
                original or of the record.
            BusClosed: as for `publish`.
        """
        self._may_send()
        self._check_here()
        if not isinstance(letter, DeadLetter):
            raise ConfigurationError(
                "it is a DeadLetter, from open_dead_letters", field="letter", value=letter
            )
        if to is not None:
            check_topic(to)
        return await self._graveyard.redrive(letter, to)

    # Topics

    async def configure_topic(
        self,
        topic: str,
        options: TopicOptions | None = None,
        strategy: Strategy = "create_or_update",
    ) -> TopicOptions:
        """Make a topic, or make it match; returns what it is now.

        Raises:
            ConfigurationError: it does not match, and the strategy, or the field, does not
                allow to change it; every difference is named.
        """
        check_topic(topic)
        check_strategy(strategy)
        self._may_subscribe()
        return await self.transport.configure_topic(topic, check_options(options), strategy)

    async def get_topic(self, topic: str) -> TopicOptions | None:
        """What the broker has of a topic now, whoever made it; None if there is none.

        Only asks, and makes nothing. Cancelled, nothing is left behind.

        Args:
            topic: which.

        Raises:
            InvalidTopic: nothing was asked of the broker.
            TransportLost: the broker could not be reached within 10 s.
            BusClosed: the bus has ended, or is ending.
        """
        self._may_subscribe()
        return await self.transport.get_topic(check_topic(topic))

    async def list_topics(self) -> list[str]:
        """The topics, sorted, dead-letter topics among them. On NATS those whose streams tbus
        made; on Kafka those of the whole cluster, without its internal ones; in memory all.

        Cancelled, nothing is left behind.

        Raises:
            TransportLost: the broker could not be reached within 10 s.
            BusClosed: the bus has ended, or is ending.
        """
        self._may_subscribe()
        return await self.transport.list_topics()

    async def remove_topic(self, topic: str) -> bool:
        """Remove a topic, all that it holds, and where its groups stand in it. There is no way
        back, and nobody is asked: a bus that reads it, this one too, ends with a `BusError` whose
        cause is `ConsumerGone`. Its dead-letter topic stays. It may be made again, by
        `configure_topic` or by who publishes to it.

        Cancelled, or after `TransportLost`, it may be removed or not: call again.

        Args:
            topic: which.

        Returns:
            False if there was none.

        Raises:
            InvalidTopic: nothing was asked of the broker.
            TransportLost: the broker could not be reached, or did not answer, within 10 s.
            BusClosed: the bus has ended, or is ending.
        """
        self._may_subscribe()
        return await self.transport.remove_topic(check_topic(topic))

    async def lag(self, topic: str, group: str) -> Lag:
        """How far a group is behind: what is stored and not settled, of each partition. What a
        handler is at counts as behind; what is settled does not, also where
        the broker's own count is behind.

        The partitions are asked one after the other while others publish and read, so it is a
        look, not a snapshot. Cancelled, nothing is left behind.

        Args:
            topic: of which topic.
            group: which group; any, not only those of this bus.

        Returns:
            Messages, and seconds since the oldest was stored where the broker tells that.

        Raises:
            InvalidTopic: nothing was asked of the broker.
            ConsumerGone: there is no such topic, or the group has never read it. (In memory such a
                group is behind by all that is stored.)
            ConfigurationError: the embedded broker cannot tell (Tansu).
            TransportLost: the broker could not be reached within 10 s.
            BusClosed: the bus has ended, or is ending.
        """
        self._may_subscribe()
        return await self.transport.lag(check_topic(topic), check_group(group))

    async def list_groups(self, topic: str) -> list[str]:
        """The groups that read a topic, or have read it and were not removed, sorted; none of a
        topic that does not exist. On Kafka those that have committed where they stand.

        Cancelled, nothing is left behind.

        Args:
            topic: which.

        Raises:
            InvalidTopic: nothing was asked of the broker.
            TransportLost: the broker could not be reached within 10 s.
            BusClosed: the bus has ended, or is ending.
        """
        self._may_subscribe()
        return (await self.transport.list_groups([check_topic(topic)]))[topic]

    # Looking

    async def ping(self, timeout: float = 5.0) -> float:
        """Ask the broker for a sign of life; returns the round trip in seconds.

        It goes the way that everything else goes, so it tells of the bus, too, not of the broker
        alone. Cancelled, nothing is left behind.

        Args:
            timeout: seconds to wait for it, more than 0.

        Raises:
            ConfigurationError: `timeout` is no such number.
            TransportLost: none came within `timeout` seconds; over NATS and Kafka, within 10 s.
            BusClosed: the bus has ended. While it ends, it can be asked.
        """
        check_seconds("timeout", timeout)
        if self._closed:
            raise BusClosed("this bus has ended; open another one")
        self._check_here()
        with self._runtime.open_scope() as scope:
            scope.deadline = self._runtime.clock() + timeout
            return await self.transport.ping()
        raise TransportLost(f"{self.config.address} did not answer within {timeout} s")

    def health(self) -> Health:
        """How the bus is now; asks nobody, and can be asked after its end, too."""
        intakes = [intake for _, intake in self._readers.open_ones()]
        seen = [self._pool.progressed, self._publisher.progressed]
        seen += [intake.progressed for intake in intakes]
        progressed = max([at for at in seen if at is not None], default=None)
        if self._left:
            intakes = []  # what they gave back is the broker's
        return Health(
            self._state(),
            sum(len(intake.dispatcher) for intake in intakes),
            sum(intake.running for intake in intakes),
            None if progressed is None else self._runtime.clock() - progressed,
        )

    def _state(self) -> Literal["connected", "disconnected", "draining", "closed"]:
        if self._left:
            return "closed"
        if self.draining.is_set():
            return "draining"
        return "connected" if self.transport.is_connected() else "disconnected"

    def census(self) -> Census:
        """Every task, thread, connection and process of the bus: none after its end."""
        if self._left:
            return Census(())
        now = self._runtime.clock()
        tasks = [
            Holding("task", role, topic, age=now - since)
            for role, topic, since in self._tasks.values()
        ]
        running = self._pool.running()
        workers = [
            Holding("task", "worker", topic, waits_for="handler", age=now - since)
            for topic, since in running
        ]
        idle = [Holding("task", "worker") for _ in range(len(self._pool) - len(running))]
        return Census((*tasks, *workers, *idle, *self._held()))

    @asynccontextmanager
    async def open_events(self, buffer: int = 1000) -> AsyncIterator[EventReader]:
        """What happens in the life of the bus from now on, as an async iterator of `Event`s.

        While nobody reads them, those that tell of trouble (`Event.is_trouble`: a handler that
        failed, a dead letter, a lost connection) are warnings in the log `tbus.events`, of each
        kind one a second; whoever reads them decides what becomes of them.

        Args:
            buffer: events that wait for a slow reader; then it sees `EventsMissed`.

        Raises:
            ConfigurationError: `buffer` is no whole number of at least 1.
            BusClosed: the bus has ended. While it ends, there are events to read.
        """
        check_count("buffer", buffer)
        if self._left:
            raise BusClosed("this bus has ended; open another one")
        self._check_here()
        with self._hub.open(buffer) as reader:
            yield reader

    # Inside

    def _may_send(self) -> None:
        if self._ending:
            if self._closed:
                raise BusClosed("this bus has ended; open another one")
            if not self._pool.is_inside():
                raise BusClosed("this bus is ending: only its handlers may still publish")

    def _may_subscribe(self) -> None:
        if self._ending:
            raise BusClosed("this bus has ended, or is ending; open another one")
        self._check_here()

    def _start(
        self, role: str, topic: str | None, function: Callable[..., Awaitable[None]], *args: Any
    ) -> None:
        this = object()
        self._tasks[this] = (role, topic, self._runtime.clock())
        self._nursery.start_soon(
            self._supervise, this, partial(function, *args), name=f"tbus {role}"
        )

    async def _supervise(self, this: object, function: Callable[[], Awaitable[None]]) -> None:
        """Run a task of the bus; what it raises ends the bus."""
        try:
            await function()
        except Exception as error:  # noqa: BLE001 - ends the bus
            self._fail(error)
        finally:
            del self._tasks[this]

    def _fail(self, error: BaseException) -> None:
        self._causes.append(error)
        self._on_failure()

    async def _end(self, *, graceful: bool) -> None:
        """Steps 1 to 5 of the end. Shielded by the caller; bounded."""
        clock = self._runtime.clock
        grace = self.config.grace if graceful else 0.0
        begun = clock()
        deadline = begun + grace
        self._hub.emit(Draining(grace))
        self._ending = True
        self.draining.set()
        self._readers.stop()
        await self._readers.end(deadline, begun + self.config.grace)
        self._closed = True
        self._publisher.close()
        with self._runtime.open_scope() as scope:
            scope.deadline = max(clock() + FLUSH_WAIT, deadline)
            await self.transport.flush()
        self.transport.abandon()
