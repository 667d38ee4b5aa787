"""The contract between the bus and a broker: publish, feed, topics.

A transport knows no handler, no retry and no dispatcher. It takes what is to be stored
and says what became of it; it opens feeds, and a feed hands over deliveries in the
broker's order and takes back how each was settled. Everything here is called in the
program's event loop (Trio, or anyio's asyncio), and everything that a transport starts
lives inside the context manager that opened it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Literal, Protocol, runtime_checkable

import attrs
import msgspec

from ._envelope import Envelope
from ._errors import TbusError
from ._events import Event
from ._message import Delivery, Headers, Position, Receipt
from ._topic import Strategy, TopicOptions

Order = Literal["key", "partition", "none"]
Guarantee = Literal["at_least_once", "at_most_once"]
Start = Literal["earliest", "latest"] | datetime | Position
Emit = Callable[[Event], None]
"""How a transport tells the bus what happened. Called in the program's event loop."""


# A struct, for one is made for every publish; see `Delivery`.
class Outgoing(msgspec.Struct, eq=False):
    """One event on its way to the broker.

    Attributes:
        topic: where to.
        body: the bytes to store.
        key: what it is ordered by, or None.
        headers: ordered pairs.
        id: what makes a repeat of it recognisable.
        timeout: seconds until its outcome must be known, counted from `send_nowait`.
        on_outcome: called once in the program's event loop, with a `Receipt`, or with a
            `PublishRefused`, `TransportLost` (was never sent) or `OutcomeUnknown`.
            It must not raise and must not block.
        envelope: what the body is the encoding of, or None: bytes that the caller gave. An
            envelope carries the key itself.
        withdrawn: set by the sender when nobody waits for the outcome any more: a
            transport that has not sent it drops it, one that has does not repeat it.
    """

    topic: str
    body: bytes
    key: str | None
    headers: Headers
    id: str
    timeout: float
    on_outcome: Callable[[Outgoing, Receipt | TbusError], None]
    envelope: Envelope | None = None
    withdrawn: bool = False


class Verdict(Enum):
    """How a delivery was settled."""

    DONE = "done"
    """Handled, dead-lettered or discarded: it never comes again."""

    GIVE_BACK = "give back"
    """Not handled: whoever reads for the group next gets it, in its place in the order."""


@attrs.frozen
class FeedRequest:
    """What a subscription wants of a broker.

    Attributes:
        topic: the topic.
        group: who shares the messages, or None: this feed sees every one.
        order: "key" and "partition" need the broker's order through reconnects; "none"
            lets several processes share the messages freely.
        start: where a group that the broker has not seen begins.
        max_in_flight: messages handed over and not settled, at most.
        max_in_flight_bytes: the same in bytes of `Delivery.size`; one message may exceed it.
        ack_wait: seconds after which a broker that hears nothing delivers again; the
            transport itself keeps what is in flight alive.
        max_deliveries: how often a message may be delivered, or None; for transports that count
            themselves whose processes have died (see `_suspects`).
    """

    topic: str
    group: str | None = None
    order: Order = "key"
    start: Start = "earliest"
    max_in_flight: int = 1000
    max_in_flight_bytes: int = 64 * 1024 * 1024
    ack_wait: float = 30.0
    max_deliveries: int | None = None


class Feed(Protocol):
    """Deliveries of one topic for one group, in order, within the credit of its request.

    Credit is what the request allows less what is handed over and not settled; a feed asks
    its broker for no more than that. What is handed over stays this feed's, the broker is
    told so as often as it needs, until it is settled or the feed is closed.
    """

    async def receive(self) -> Sequence[Delivery]:
        """Wait for the next deliveries: at least one, in the broker's order.

        A delivery that is in flight already, or was settled as done in this feed, is never
        handed over again.

        Raises:
            EndOfFeed: `stop` was called and nothing is left.
            TbusError: the feed cannot go on (`ConsumerGone`, `MessagesLost`, ...).
        """

    def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Say how a delivery ended; each exactly once. Never blocks; repeats are ignored."""

    def note_attempts(self, delivery: Delivery, attempts: int) -> None:
        """Remember, as durably as settlements that wait to be confirmed, how often handling a
        delivery in flight has failed: whoever reads for the group next finds it in
        `Delivery.attempts`. 0 begins anew. Never blocks; lost is safe."""

    def begin(self, delivery: Delivery, begun: Callable[[], None]) -> None:
        """A suspect delivery is about to be handled, alone: store that, so that it is known if this
        process dies of it, and call `begun` in the program's event loop. Never blocks. What
        cannot be stored is not begun: such a feed has lost the partition, or loses it soon."""

    def read_by(self, reader: Reader) -> Callable[[], bool] | None:
        """Say who is to be told when partitions of this feed come and go.

        Returns:
            what to ask immediately before a message is begun, where a process that was suspended
            may have lost partitions without having heard so: if it says no, the reader has been
            told by then. It is cheap, and called in the program's event loop.
        """

    def stop(self) -> None:
        """Ask the broker for nothing more. What is on its way may still be received, or is
        given back; then `receive` raises `EndOfFeed`. May be called again."""

    async def aclose(self) -> None:
        """Stop, give back what is not settled, and wait until the broker has heard every
        settlement. The caller bounds the time by cancelling: then the feed is closed all
        the same, and the broker delivers again what it has not heard of."""


class Reader(Protocol):
    """Who takes deliveries from a feed whose partitions come and go, as the feed sees it.

    Both are called in the program's event loop, and must neither block nor raise.
    """

    def drain(self, partitions: Mapping[int, int], drained: Callable[[], None]) -> None:
        """Partitions are about to go to another owner: begin nothing more of them, forget what
        waits, let what runs end and be settled, then call `drained`.

        Args:
            partitions: each with the epoch that ends; messages of later ones are not meant.
            drained: called in the program's loop, once.
        """

    def lose(self, partitions: Mapping[int, int]) -> None:
        """They are gone: forget what waits, and cancel what still runs. It cannot be settled
        any more, and no attempt is used up."""


class EndOfFeed(Exception):
    """A stopped feed has handed over everything it had."""


@attrs.frozen
class PartitionLag:
    """How far a group is behind in one partition.

    Attributes:
        partition: which.
        messages: stored and not settled by the group.
        age: seconds since the oldest of those was stored, or None where unknown.
        owner: the member of the group that reads it now, where that is known.
        epoch: of that member's ownership, or 0.
        heir: the member that it is being handed over to, if it is.
    """

    partition: int
    messages: int
    age: float | None = None
    owner: str | None = None
    epoch: int = 0
    heir: str | None = None


@attrs.frozen
class Lag:
    """How far a group is behind.

    Attributes:
        topic: of which topic.
        group: which group.
        partitions: one entry for each.
        members: of the group now, sorted, those without a partition too, where that is known.
    """

    topic: str
    group: str
    partitions: tuple[PartitionLag, ...]
    members: tuple[str, ...] = ()

    @property
    def messages(self) -> int:
        """Over all partitions."""
        return sum(partition.messages for partition in self.partitions)

    @property
    def age(self) -> float | None:
        """Of the oldest message, in seconds."""
        ages = [partition.age for partition in self.partitions if partition.age is not None]
        return max(ages, default=None)


@attrs.frozen
class Holding:
    """One thing that a bus holds: a task, thread, connection or process, or a lease of partitions.

    Attributes:
        kind: "task", "thread", "connection", "process" or "lease".
        role: what it does, e.g. "pull loop", "publisher", "nats reader".
        topic: of which topic, where it belongs to one.
        waits_for: what it is waiting for, where that is known.
        age: seconds since it began.
    """

    kind: Literal["task", "thread", "connection", "process", "lease"]
    role: str
    topic: str | None = None
    waits_for: str | None = None
    age: float = 0.0


class Transport(Protocol):
    """One broker, open."""

    def send_nowait(self, outgoing: Outgoing) -> None:
        """Take an event to be stored; its outcome is told through `on_outcome`. Events are
        stored in the order of these calls, reconnects included."""

    async def flush(self) -> None:
        """Wait until every event taken has its outcome. The caller bounds the time."""

    def abandon(self) -> None:
        """Give every event that has no outcome yet its `OutcomeUnknown`, or `TransportLost`
        if it was never sent, now."""

    async def open_feed(self, request: FeedRequest) -> Feed:
        """Open a feed. The topic is made if it does not exist. When this returns, whatever
        is stored from now on will be handed over. Cancelled, it leaves nothing open."""

    async def configure_topic(
        self, topic: str, options: TopicOptions, strategy: Strategy
    ) -> TopicOptions:
        """Make a topic, or make it match, as the strategy says; returns what it is now."""

    async def get_topic(self, topic: str) -> TopicOptions | None:
        """What the broker has, or None."""

    async def list_topics(self) -> list[str]:
        """The topics that tbus made or could have made, sorted."""

    async def remove_topic(self, topic: str) -> bool:
        """Remove a topic and all that it holds; False if there was none."""

    async def lag(self, topic: str, group: str) -> Lag:
        """How far the group is behind."""

    async def list_groups(self, topics: Sequence[str]) -> dict[str, list[str]]:
        """The groups that the broker knows to read each of the topics, sorted; every topic is
        there, one that does not exist with none."""

    async def last_positions(self, topic: str) -> dict[int, int]:
        """The offset of the last message that each partition holds now: who reads a topic
        from its beginning without a group is done there. A partition that holds none is left
        out; so a topic that does not exist has none, and is not made."""

    async def ping(self) -> float:
        """Ask the broker for a sign of life; returns the round trip in seconds."""

    async def wait_failed(self) -> None:
        """Wait until the transport cannot go on, and raise why. For a task of the bus."""

    def is_connected(self) -> bool:
        """Whether the broker can be reached, as far as is known now."""

    def holdings(self) -> list[Holding]:
        """Everything this transport holds now."""


@runtime_checkable
class Keeper(Protocol):
    """What a transport in this process can do besides: keep an envelope as it is.

    Nobody needs the bytes then until somebody asks for them, and the outcome is known at once.
    """

    def keep_nowait(self, topic: str, envelope: Envelope, now: float) -> Position | None:
        """Store an envelope under its own key and id, without headers.

        Args:
            topic: one that exists, or nothing is stored.
            envelope: its time must be in UTC itself, so that who reads it finds what those
                would find who read its encoding.
            now: by the loop's clock.

        Returns:
            Where it stands; None if nothing was stored, and it is `send_nowait` that tells why.
        """
