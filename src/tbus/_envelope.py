"""The envelope: one event as it travels, in the JSON of the Go services it comes from.

The laws:

1. An `Envelope` that exists is valid. It is checked when it is made, whichever way, and
   cannot be changed; so `encode` checks nothing and cannot fail.
2. What `encode` writes is what Go's encoding/json writes for the same fields: this order,
   empty optional fields left out, `<`, `>`, `&`, U+2028 and U+2029 escaped in strings, no
   trailing zeros in a fraction of a second. The payload alone is not touched: its bytes go
   in as they came (Go's encoder would compact it, and escape within it).
3. `from_bytes` raises `InvalidEnvelope` or nothing, whatever the bytes are.

One is made for every message on both ways, so speed decides the form. The class keeps its
fields in its `__dict__`: a frozen class with slots fills them by nine calls of
`object.__setattr__`, which takes longer than reading the JSON. What msgspec checks in C
(types, minima, zones) is not checked again in Python. Errors are explained by a second,
slower look at the same bytes. All of it is one room, if a long one, because reading, making
and writing are the same nine fields by the same rules.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from os import urandom
from time import time_ns
from typing import Annotated, Any, Final, NoReturn, TypeVar

import attrs
import msgspec

from ._errors import ConfigurationError, InvalidEnvelope

T = TypeVar("T")

MAX_AGGREGATE_ID: Final = 256
"""Characters."""

MAX_EVENT_ID: Final = 256
"""Characters of one that is given to `Envelope.new`."""

_INT64: Final = 2**63
_SHOWN: Final = 100
"""Characters of a refused value that an error shows."""

_is_aggregate_id = re.compile(r"[A-Za-z0-9:_\-./]{1,256}").fullmatch
_find_foreign = re.compile(r"[^A-Za-z0-9:_\-./]").search

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Int64 = Annotated[int, msgspec.Meta(ge=-_INT64, le=_INT64 - 1)]


class _Wire(msgspec.Struct, gc=False):
    """What is read. A null optional field is an absent one, as it is for Go."""

    event_id: _Text
    aggregate_id: _Text
    event_type: _Text
    event_version: Annotated[int, msgspec.Meta(gt=0, le=_INT64 - 1)]
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    payload: msgspec.Raw
    trace_id: str | None = None
    correlation_id: str | None = None
    tenant_id: _Int64 | None = None


class _Head(msgspec.Struct, omit_defaults=True, gc=False):
    """What is written before the payload, in the order of the wire."""

    event_id: str
    aggregate_id: str
    event_type: str
    event_version: int
    timestamp: datetime | str
    trace_id: str = ""
    correlation_id: str = ""
    tenant_id: int = 0


_read = msgspec.json.Decoder(_Wire).decode
_read_raw = msgspec.json.Decoder(msgspec.Raw).decode
_write = msgspec.json.Encoder().encode

# What reading can raise besides msgspec's own: not UTF-8, nested too deeply.
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)
# What writing a payload can raise: foreign types, lone surrogates, cycles, unset slots.
_UNWRITABLE = (*_UNREADABLE, TypeError, AttributeError, NotImplementedError)


def new_event_id() -> str:
    """A new UUIDv7 (RFC 9562): its first 60 bits of time go on below the millisecond (the
    RFC's method 3), so ids made one after the other sort that way mostly. Nothing is kept
    between calls, and forked processes make different ones."""
    return _event_id(urandom(8).hex())


class EventIds:
    """Makes ids like `new_event_id`, many of them. What does not depend on the time is made in
    blocks, for every draw of noise gives the interpreter to another thread; what changes with
    the millisecond is kept through it. Of the noise, 14 bits are a block's and 48 an id's.
    Not to be shared with a forked process."""

    __slots__ = ("_millisecond", "_rest", "_start")

    def __init__(self) -> None:
        self._rest: list[str] = []
        self._millisecond = -1
        self._start = ""

    def new(self) -> str:
        """A new UUIDv7."""
        if not self._rest:
            noise = urandom(8 + _BLOCK).hex()
            begin = _rest(noise[:16])[:6]
            self._rest = [begin + noise[at : at + 12] for at in range(16, len(noise), 12)]
        millisecond, below = divmod(time_ns(), 1_000_000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._start = f"{millisecond >> 16:08x}-{millisecond & 0xFFFF:04x}-7"
        return self._start + _BELOW[(below << 12) // 1_000_000] + self._rest.pop()


_BLOCK: Final = 6 * 256


def _event_id(noise: str) -> str:
    nanoseconds = time_ns()
    milliseconds = nanoseconds // 1_000_000
    below = (nanoseconds - milliseconds * 1_000_000) * 4096 // 1_000_000
    time = (milliseconds << 16 | 0x7000 | below).to_bytes(8).hex("-", 2)
    return f"{time[:4]}{time[5:]}{_rest(noise)}"


def _rest(noise: str) -> str:
    """What stands behind the time: the variant and the noise."""
    return f"-{_VARIANT[noise[0]]}{noise[1:4]}-{noise[4:]}"


_BELOW: Final = [f"{number:03x}" for number in range(4096)]


# The two bits that name the variant, before two random ones.
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


@attrs.frozen(slots=False)
class Envelope:
    """One event, and what is known about it. Valid whenever it exists.

    Attributes:
        event_id: not blank; a UUIDv7 when tbus makes it.
        aggregate_id: what the event is about, and what it is ordered by: 1 to 256 of
            `A-Z a-z 0-9 : _ - . /`.
        event_type: not blank.
        event_version: 1 to 2**63 - 1.
        timestamp: with a zone of whole minutes; a fraction of a second finer than a
            microsecond is rounded when it is read.
        payload: JSON, byte for byte as it came, without white space around it.
        trace_id: empty if there is none.
        correlation_id: empty if there is none.
        tenant_id: 0 if there is none.

    Raises:
        InvalidEnvelope: a field breaks its rule; the message names field, value and rule.
    """

    event_id: str
    aggregate_id: str
    event_type: str
    event_version: int
    timestamp: datetime
    payload: bytes
    trace_id: str = ""
    correlation_id: str = ""
    tenant_id: int = 0

    def __init__(
        self,
        event_id: str,
        aggregate_id: str,
        event_type: str,
        event_version: int,
        timestamp: datetime,
        payload: bytes,
        trace_id: str = "",
        correlation_id: str = "",
        tenant_id: int = 0,
    ) -> None:
        fields = self.__dict__
        fields["event_id"] = _checked_text("event_id", event_id, blank=False)
        fields["aggregate_id"] = _checked_aggregate_id(aggregate_id)
        fields["event_type"] = _checked_text("event_type", event_type, blank=False)
        fields["event_version"] = _checked_int("event_version", event_version, 1)
        fields["timestamp"] = _checked_timestamp(timestamp)
        fields["payload"] = _checked_json(payload)
        fields["trace_id"] = "" if trace_id == "" else _checked_text("trace_id", trace_id)
        fields["correlation_id"] = (
            "" if correlation_id == "" else _checked_text("correlation_id", correlation_id)
        )
        fields["tenant_id"] = 0 if tenant_id == 0 else _checked_int("tenant_id", tenant_id, -_INT64)

    @classmethod
    def new(
        cls,
        aggregate_id: str,
        event_type: str,
        payload: Any,
        *,
        event_version: int = 1,
        event_id: str | None = None,
        timestamp: datetime | None = None,
        trace_id: str = "",
        correlation_id: str = "",
        tenant_id: int = 0,
    ) -> Envelope:
        """An envelope for something that happened now.

        Args:
            aggregate_id: what it is about.
            event_type: what happened.
            payload: anything that msgspec can encode (dict, list, str, numbers, attrs and
                dataclass instances, Structs, dates, ...). `bytes` and `msgspec.Raw` are
                taken as JSON already written, and checked to be some.
            event_version: 1 or more.
            event_id: 1 to 256 printable characters, as what is published may have for its id; a
                new UUIDv7 by default. What others wrote is read whatever its length.
            timestamp: now, in UTC, by default; must have a zone.
            trace_id: of the trace it belongs to.
            correlation_id: of the exchange it belongs to.
            tenant_id: whose it is.

        Raises:
            InvalidEnvelope: a field breaks its rule, or the payload has no JSON form.
        """
        self = object.__new__(cls)
        fields = self.__dict__
        fields["event_id"] = new_event_id() if event_id is None else _checked_own_id(event_id)
        fields["aggregate_id"] = _checked_aggregate_id(aggregate_id)
        fields["event_type"] = _checked_text("event_type", event_type, blank=False)
        fields["event_version"] = _checked_int("event_version", event_version, 1)
        fields["timestamp"] = (
            datetime.now(UTC) if timestamp is None else _checked_timestamp(timestamp)
        )
        fields["payload"] = (
            _checked_json(payload)
            if isinstance(payload, bytes | bytearray | memoryview | msgspec.Raw)
            else _written(payload)
        )
        fields["trace_id"] = "" if trace_id == "" else _checked_text("trace_id", trace_id)
        fields["correlation_id"] = (
            "" if correlation_id == "" else _checked_text("correlation_id", correlation_id)
        )
        fields["tenant_id"] = 0 if tenant_id == 0 else _checked_int("tenant_id", tenant_id, -_INT64)
        return self

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """Read one. Fields it does not know are ignored.

        Raises:
            InvalidEnvelope: the bytes are no envelope, or one that breaks a rule.
        """
        if type(data) is not bytes:
            data = _checked_bytes(data)
        try:
            wire = _read(data)
            if not data.isascii():
                data.decode()  # msgspec passes over the payload without looking at its UTF-8
        except _UNREADABLE as error:
            _explain(data, error)
        event_id = wire.event_id
        aggregate_id = wire.aggregate_id
        event_type = wire.event_type
        if not _is_aggregate_id(aggregate_id):
            _checked_aggregate_id(aggregate_id)
        if event_id.isspace() or event_type.isspace():
            _checked_text("event_id", event_id, blank=False)
            _checked_text("event_type", event_type, blank=False)
        self = object.__new__(cls)
        fields = self.__dict__
        fields["event_id"] = event_id
        fields["aggregate_id"] = aggregate_id
        fields["event_type"] = event_type
        fields["event_version"] = wire.event_version
        fields["timestamp"] = wire.timestamp
        fields["payload"] = bytes(wire.payload)
        fields["trace_id"] = wire.trace_id or ""
        fields["correlation_id"] = wire.correlation_id or ""
        fields["tenant_id"] = wire.tenant_id or 0
        return self

    def encode(self) -> bytes:
        """The JSON of the wire, in UTF-8, with no white space of its own."""
        timestamp = self.timestamp
        fraction = timestamp.microsecond
        head = _write(
            _Head(
                self.event_id,
                self.aggregate_id,
                self.event_type,
                self.event_version,
                # msgspec writes six digits of a fraction, Go none that are trailing zeros.
                timestamp if fraction % 10 or not fraction else _go_time(timestamp),
                self.trace_id,
                self.correlation_id,
                self.tenant_id,
            )
        )
        # A number is found in bytes three times as fast as bytes of length 1 are.
        if _LESS in head or _MORE in head or _AND in head or not head.isascii():
            head = _escaped_as_by_go(head)
        return b"".join((head[:-1], b',"payload":', self.payload, b"}"))

    def decode(self, type: type[T]) -> T:  # noqa: A002 - as msgspec calls it
        """The payload as a value of the type: a builtin, a Struct, an attrs class or a
        dataclass, anything msgspec can decode into.

        Raises:
            InvalidEnvelope: the payload is not of that type.
            ConfigurationError: msgspec cannot decode into the type at all.
        """
        try:
            return msgspec.json.decode(self.payload, type=type)
        except TypeError as error:
            raise ConfigurationError(
                f"payloads cannot be decoded into it: {error}", field="type", value=type
            ) from error
        except _UNREADABLE as error:
            name = getattr(type, "__name__", None) or str(type)
            raise InvalidEnvelope(
                f"the payload is not one of {name}: {error}",
                field="payload",
                value=_bounded(self.payload),
            ) from error


# What is kept in this process is kept without the object: the garbage collector does not look at a
# dict of texts and numbers, and would look through thousands of envelopes again and again.

Fields = dict[str, Any]
"""The fields of an envelope. Nothing in it is to be changed: the envelope may have the same."""


def fields_of(envelope: Envelope) -> Fields:
    """What is to be kept of an envelope."""
    return envelope.__dict__


def envelope_of(fields: Fields) -> Envelope:
    """The envelope again."""
    self = object.__new__(Envelope)
    object.__setattr__(self, "__dict__", fields)
    return self


_LESS, _MORE, _AND = b"<>&"

# --- checks ------------------------------------------------------------------------------


def _checked_text(name: str, value: str, *, blank: bool = True) -> str:
    if type(value) is not str:
        if not isinstance(value, str):
            _refuse(name, value, "it must be a str")
        value = str.__str__(value)
    if not blank and (not value or value.isspace()):
        _refuse(name, value, "it must not be blank")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            _refuse(name, value, "it has a lone surrogate, which UTF-8 cannot hold")
    return value


def _checked_own_id(value: str) -> str:
    """An id that is given here: brokers carry it in a header. Those of others are what they are."""
    value = _checked_text("event_id", value, blank=False)
    if len(value) > MAX_EVENT_ID or not value.isprintable():
        _refuse(
            "event_id",
            value,
            f"it must be text of 1 to {MAX_EVENT_ID} printable characters, and has {len(value)}",
        )
    return value


def _checked_aggregate_id(value: str) -> str:
    if type(value) is str and _is_aggregate_id(value):
        return value
    value = _checked_text("aggregate_id", value, blank=False)
    if foreign := _find_foreign(value):
        _refuse(
            "aggregate_id",
            value,
            f"character {foreign[0]!r} at position {foreign.start()} (the first is 0) is not one"
            " of A-Z a-z 0-9 : _ - . /",
        )
    if len(value) > MAX_AGGREGATE_ID:
        _refuse(
            "aggregate_id",
            value,
            f"it has {len(value)} characters, and {MAX_AGGREGATE_ID} are allowed",
        )
    return value


def _checked_int(name: str, value: int, least: int) -> int:
    if type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, int):
            _refuse(name, value, "it must be an int")
        value = int(value)
    if not least <= value < _INT64:
        _refuse(
            name,
            value,
            f"it must be {'from 1' if least == 1 else 'from -2**63'} to 2**63 - 1",
        )
    return value


def _checked_timestamp(value: datetime) -> datetime:
    if type(value) is not datetime:
        if not isinstance(value, datetime):
            _refuse("timestamp", value, "it must be a datetime with a zone")
        value = datetime.combine(value.date(), value.timetz())
    if value.tzinfo is not UTC:
        offset = value.utcoffset()
        if offset is None:
            _refuse(
                "timestamp", value, "it must have a zone: datetime.now(UTC), not datetime.now()"
            )
        if offset.seconds % 60 or offset.microseconds:
            _refuse("timestamp", value, "its zone must be whole minutes from UTC (RFC 3339)")
    elif value.fold:
        value = value.replace(fold=0)  # says nothing in UTC, and would not survive the wire
    return value


def _checked_bytes(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise InvalidEnvelope(f"the body must be bytes, not {type(value).__name__}")


def _checked_json(value: bytes | bytearray | memoryview | msgspec.Raw) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview | msgspec.Raw):
        _refuse("payload", value, "it must be JSON already written, as bytes")
    try:
        data = bytes(value)
        if not data.isascii():
            data.decode()
        return bytes(_read_raw(data))  # without white space around it
    except _UNREADABLE as error:
        raise InvalidEnvelope(
            f"it must be JSON already written, as bytes: {error}",
            field="payload",
            value=_bounded(value),
        ) from error


def _written(payload: object) -> bytes:
    try:
        data = _write(payload)
        # msgspec writes null for a float that is none or infinite, and says nothing. So
        # wherever it wrote a null, the payload is looked through.
        if b"null" in data and _holds_no_number(payload):
            raise ValueError("it has a float that is not finite, and JSON knows none")
        # A `msgspec.Raw` within goes in as it is, whatever it holds.
        _read_raw(data)
        if not data.isascii():
            data.decode()
    except _UNWRITABLE as error:
        raise InvalidEnvelope(
            f"it has no JSON form: {error}", field="payload", value=_bounded(payload)
        ) from error
    return data


def _holds_no_number(payload: object) -> bool:
    """Whether NaN or an infinity is anywhere in it. Without recursion: the depth is the
    caller's."""
    waiting: list[Any] = [msgspec.to_builtins(payload)]
    while waiting:
        one = waiting.pop()
        if isinstance(one, float):
            if one - one != 0.0:
                return True
        elif isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list | tuple | set | frozenset):
            waiting.extend(one)
    return False


# --- the wire ----------------------------------------------------------------------------


def _go_time(value: datetime) -> str:
    """As Go's time.RFC3339Nano: a fraction without trailing zeros, Z for UTC."""
    text = value.isoformat(timespec="seconds")
    whole, zone = text[:19], text[19:]
    fraction = f".{value.microsecond:06d}".rstrip("0") if value.microsecond else ""
    return whole + fraction + ("Z" if zone == "+00:00" else zone)


def _escaped_as_by_go(head: bytes) -> bytes:
    # All five can stand only within strings, where an escape means the same.
    return (
        head.replace(b"<", b"\\u003c")
        .replace(b">", b"\\u003e")
        .replace(b"&", b"\\u0026")
        .replace(b"\xe2\x80\xa8", b"\\u2028")
        .replace(b"\xe2\x80\xa9", b"\\u2029")
    )


# --- errors ------------------------------------------------------------------------------

_RULES: Final = {
    "event_id": "it must be a string that is not blank",
    "aggregate_id": "it must be a string of 1 to 256 of A-Z a-z 0-9 : _ - . /",
    "event_type": "it must be a string that is not blank",
    "event_version": "it must be a whole number from 1 to 2**63 - 1",
    "timestamp": "it must be a time as in RFC 3339, with a zone, in the years 1 to 9999",
    "payload": "it must be there, and hold JSON",
    "trace_id": "it must be a string",
    "correlation_id": "it must be a string",
    "tenant_id": "it must be a whole number from -2**63 to 2**63 - 1",
}
_find_field = re.compile(r"required field `(\w+)`|at `\$\.(\w+)`").search


def _explain(data: bytes, error: Exception) -> NoReturn:
    """Raise what says which field of the body is wrong, and what it is."""
    if isinstance(error, msgspec.ValidationError) and (found := _find_field(str(error))):
        missing, wrong = found.groups()
        if missing is not None:
            raise InvalidEnvelope(
                f"{missing} is missing: {_RULES[missing]}", field=missing
            ) from error
        try:
            value = bytes(msgspec.json.decode(data, type=dict[str, msgspec.Raw])[wrong])
        except (*_UNREADABLE, KeyError):
            value = b""
        raise InvalidEnvelope(_RULES[wrong], field=wrong, value=_bounded(value)) from error
    if isinstance(error, RecursionError):
        problem = "it is nested too deeply"
    elif isinstance(error, UnicodeDecodeError):
        problem = f"it is not UTF-8 at byte {error.start}"
    else:
        problem = str(error)
    raise InvalidEnvelope(f"the body holds no envelope: {problem}") from error


def _refuse(name: str, value: object, rule: str) -> NoReturn:
    raise InvalidEnvelope(rule, field=name, value=_bounded(value))


def _bounded(value: object) -> object:
    """What can be shown of a value: never long, and never failing to be shown."""
    if value is None or isinstance(value, bool | float | datetime):
        return value
    if isinstance(value, int):
        return value if -(2**128) < value < 2**128 else f"<int of {value.bit_length()} bits>"
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
    if isinstance(value, bytes):
        return value if len(value) <= _SHOWN else value[:_SHOWN] + b"..."
    return f"<{type(value).__name__}>"
