"""What travels: a `Delivery` from the broker, the `Message` a handler sees, and the
`Receipt` or `PublishOutcome` that comes back for a publish."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import msgspec

from ._envelope import Envelope, Fields, envelope_of
from ._errors import TbusError
from ._shield import ShieldedBlock

Headers = tuple[tuple[str, str], ...]
"""Ordered pairs; a name may come more than once."""


def moment(seconds: float) -> datetime:
    """An instant as brokers tell it, in seconds since the epoch, as a time in UTC.

    A broker stores whatever number a publisher gave it, where it is told to. What lies beyond
    the years that Python knows is told as the first, or the last, instant of those: nobody's
    handler fails, and nothing stays undelivered, because of it.
    """
    try:
        return datetime.fromtimestamp(seconds, tz=UTC)
    except (ValueError, OverflowError, OSError):  # which of them depends on platform and number
        last, first = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
        return last if seconds > 0 else first


# Position, Receipt, Delivery and Message are made for every message. msgspec's structs take a
# third of the time of attrs classes, and the garbage collector need not look at them: nothing
# they hold leads back to them.


class Position(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where a message stands: its partition, and its place in that partition.

    Attributes:
        partition: 0 where a topic has only one.
        offset: Kafka's offset, or the stream's sequence on NATS and in memory.
    """

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The broker has stored the event.

    Attributes:
        topic: where it was published.
        position: where it stands.
        duplicate: the broker had it already, by its id, and stored nothing.
    """

    topic: str
    position: Position
    duplicate: bool = False


@attrs.frozen
class PublishOutcome:
    """What became of one event given to a pipelined publisher.

    Attributes:
        event_id: the event's id.
        topic: where it was sent.
        receipt: set if it was stored.
        error: set if it was refused (`PublishRefused`, `TransportLost`) or if that is
            unknown (`OutcomeUnknown`).
    """

    event_id: str
    topic: str
    receipt: Receipt | None = None
    error: TbusError | None = None

    @property
    def success(self) -> bool:
        return self.receipt is not None


class Delivery(msgspec.Struct, eq=False, gc=False):
    """One message as a transport hands it over: what was published and where it stands.

    Attributes:
        position: partition and offset.
        body: the bytes as published; or, from a transport in this process, the fields of the
            envelope that was published, if nobody has asked for its bytes yet (see `encoded`).
        headers: ordered pairs.
        timestamp: when the broker stored it, in seconds since the epoch.
        key: the key that the transport itself carries (Kafka's record key), or None.
        keyed: `key` is what the publisher of the message gave to tbus, so nobody needs to
            look for another one in the body.
        epoch: of the partition's owner; a later owner has a higher one.
        redelivered: how often it was delivered before, as far as anybody counts; 0 is the first
            time.
        size: what it counts against `max_in_flight_bytes`.
        token: the transport's own; a number, what it needs to settle the message.
        attempts: handler runs that have failed for it before, here or in another process, as
            far as the transport has kept it.
        suspect: processes that had it have died, so it is to be handled alone, after
            `Feed.begin`. Only of what is redelivered.
    """

    position: Position
    body: bytes | Fields
    headers: Headers
    timestamp: float
    key: str | None = None
    keyed: bool = False
    epoch: int = 0
    redelivered: int = 0
    size: int = 0
    token: int = 0
    attempts: int = 0
    suspect: bool = False

    def encoded(self) -> bytes:
        """The bytes as published. Made at most once, and kept in place of the fields."""
        body = self.body
        if isinstance(body, dict):
            body = self.body = envelope_of(body).encode()
        return body


class Message(msgspec.Struct, eq=False, gc=False):
    """A message as a handler sees it. Read it; nothing in it is to be changed.

    Attributes:
        topic: the topic.
        key: what it is ordered by, or None: then it is ordered with nothing.
        group: the subscription's group, or None.
        attempt: 1 the first time a handler runs for it, and one more for each run that failed,
            in other processes of the group too. Runs that were cancelled from outside are not
            counted.
    """

    topic: str
    key: str | None
    group: str | None
    delivery: Delivery
    attempt: int = 1
    _decoded: Envelope | None = None

    def __repr__(self) -> str:
        # Without the body, which may be long, and may be nobody's to read in a log.
        return (
            f"{type(self).__name__}(topic={self.topic!r}, key={self.key!r}, group={self.group!r},"
            f" position={self.delivery.position}, attempt={self.attempt})"
        )

    @property
    def body(self) -> bytes:
        """The bytes as they were published."""
        body = self.delivery.body
        if isinstance(body, dict):
            if self._decoded is None:
                self._decoded = envelope_of(body)  # for those who ask for it afterwards
            return self.delivery.encoded()
        return body

    @property
    def headers(self) -> Headers:
        """Ordered pairs; a name may come more than once."""
        return self.delivery.headers

    @property
    def position(self) -> Position:
        """Partition, and offset or stream sequence."""
        return self.delivery.position

    @property
    def epoch(self) -> int:
        """Which owner of the partition this process was when the message came; a later
        owner has a higher one, so a write guarded by it cannot be undone by an old one."""
        return self.delivery.epoch

    @property
    def timestamp(self) -> datetime:
        """When the broker stored it, in UTC; never an error, see `moment`."""
        return moment(self.delivery.timestamp)

    @property
    def envelope(self) -> Envelope:
        """The body as an envelope, decoded once.

        Raises:
            InvalidEnvelope: the body is none. A handler that lets this pass sends the
                message to the dead-letter topic: no retry could help.
        """
        decoded = self._decoded
        if decoded is None:
            body = self.delivery.body
            # Not the error: it would hold those who asked, and so, maybe, this message.
            decoded = envelope_of(body) if isinstance(body, dict) else Envelope.from_bytes(body)
            self._decoded = decoded
        return decoded

    def shielded(self) -> ShieldedBlock:
        """In the handler of this message: `async with message.shielded():` around what should
        not be cut in the middle.

        A cancellation from outside, at the end of the bus or of the subscription or because the
        partition went to another owner, is held off until the block ends; if the block is the
        handler's last act, the message is settled as handled. It holds `grace` seconds after
        the cancellation was asked for, and no longer than a graceful end or closing allows;
        then the block is cut. A handler's `timeout` counts on inside, holds off as long,
        and is a failed attempt as ever, unless the handler ends with the block.

        Blocks may be nested, and opened by tasks that the handler started. One that was
        cancelled before does not enter: entering is a checkpoint, leaving is none.

        Raises:
            RuntimeError: on entering, where no handler runs for this message. For those of
                `open_messages` the loop is the program's own, and so are its shields.
        """
        return ShieldedBlock(self)
