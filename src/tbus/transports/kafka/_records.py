"""Between an event of the bus and a Kafka record: key, value, headers.

The key is the one that the event is ordered by (an envelope's aggregate id). What tbus adds
to the headers stands in front, behind one that says how many these are, so that a reader gets
exactly the pairs that the publisher gave: `Tbus-Mirror: 6`, then the mirror of the envelope
under the names that the original's services use, then the publisher's own. Records of other
programs have no such header: there every pair is the publisher's, and the key may be looked
for in the body as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..._envelope import Envelope
from ..._message import Delivery, Headers, Position
from ..._transport import Outgoing

MIRROR = "Tbus-Mirror"

OVERHEAD = 128
"""Bytes that a message counts beside its body."""

RecordHeaders = Sequence[tuple[str, bytes | None]]


class Record(Protocol):
    """A record as the client has parsed it."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> RecordHeaders: ...


_MIRROR_OF_ONE = (MIRROR, b"1")
_MIRROR_OF = {1 + count: (MIRROR, b"%d" % count) for count in range(1, 8)}
"""What stands in front of a mirror and nothing else, by how many pairs that are."""

_ONE_SIZE = len(MIRROR) + 1 + 4 + len("X-Event-ID") + 4
"""Bytes of a mirror of an id alone, without the id."""
_FOUR_SIZE = _ONE_SIZE + sum(
    len(name) + 4 for name in ("X-Aggregate-ID", "X-Event-Version", "X-Event-Type")
)
_LONGEST_VERSION = len(str(2**63))


def encode_key(key: str | None) -> bytes | None:
    """The record's key."""
    if key is None:
        return None
    try:
        return key.encode()  # twice as fast as with a handler of errors
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogateescape")


def encode_headers(outgoing: Outgoing) -> tuple[list[tuple[str, bytes]], int]:
    """The record's headers: the mirror, then what the publisher gave; and their bytes."""
    id = outgoing.id.encode()
    envelope = outgoing.envelope
    if envelope is None:
        headers = [_MIRROR_OF_ONE, ("X-Event-ID", id)]
        size = _ONE_SIZE + len(id)
    else:
        about = envelope.aggregate_id.encode()
        kind = envelope.event_type.encode()
        headers = [
            _MIRROR_OF_ONE,
            ("X-Event-ID", id),
            ("X-Aggregate-ID", about),
            ("X-Event-Version", b"%d" % envelope.event_version),
            ("X-Event-Type", kind),
        ]
        size = _FOUR_SIZE + _LONGEST_VERSION + len(id) + len(about) + len(kind)
        if envelope.trace_id or envelope.correlation_id or envelope.tenant_id:
            more = _mirror_rarer(envelope)
            headers += more
            size += _size(more)
        headers[0] = _MIRROR_OF[len(headers)]
    if outgoing.headers:
        own = [(name, value.encode("utf-8", "surrogateescape")) for name, value in outgoing.headers]
        headers += own
        size += _size(own)
    return headers, size


def _mirror_rarer(envelope: Envelope) -> list[tuple[str, bytes]]:
    """What most envelopes do not have."""
    pairs = [
        ("X-Trace-ID", envelope.trace_id.encode()),
        ("X-Correlation-ID", envelope.correlation_id.encode()),
        ("X-Tenant-ID", b"%d" % envelope.tenant_id if envelope.tenant_id else b""),
    ]
    return [pair for pair in pairs if pair[1]]


def _size(pairs: Iterable[tuple[str, bytes]]) -> int:
    return sum([len(name) + len(value) + 4 for name, value in pairs])


def decode_headers(headers: RecordHeaders) -> tuple[Headers, bool]:
    """The publisher's own pairs, and whether the publisher was a tbus: then the record's key is
    the key that it gave, and nobody needs to look for another one."""
    if headers and headers[0][0] == MIRROR:
        count = headers[0][1] or b""
        if count.isdigit() and len(count) < 5:  # int() refuses thousands of digits
            first = 1 + int(count)
            return (_decode_pairs(headers[first:]) if first < len(headers) else ()), True
    return (_decode_pairs(headers) if headers else ()), False


def _decode_pairs(headers: RecordHeaders) -> Headers:
    return tuple(
        [
            (name, "" if value is None else value.decode("utf-8", "surrogateescape"))
            for name, value in headers
        ]
    )


def to_deliveries(partition: int, epoch: int, records: Iterable[Record]) -> list[Delivery]:
    """What the client has parsed, as the program gets it. Bytes of a key that are no UTF-8 come
    back as the same bytes when the key is published again."""
    # The hot path of consuming: most records have nothing but the mirror, and the time of the one
    # before.
    mirror_of = _MIRROR_OF.get
    time, seconds = 0, 0.0
    found: list[Delivery] = []
    for record in records:
        body = record.value or b""
        key = record.key
        pairs = record.headers
        headers: Headers = ()
        keyed = bool(pairs) and pairs[0] == mirror_of(len(pairs))
        if not keyed:
            headers, keyed = decode_headers(pairs)
        if record.timestamp != time:
            time = record.timestamp
            seconds = time / 1000
        found.append(
            Delivery(
                Position(partition, record.offset),
                body,
                headers,
                seconds,
                None if key is None else _decode_key(key),
                keyed,
                epoch,
                0,
                len(body) + OVERHEAD,
            )
        )
    return found


def _decode_key(key: bytes) -> str:
    try:
        return key.decode()  # twice as fast as with a handler of errors
    except UnicodeDecodeError:
        return key.decode("utf-8", "surrogateescape")
