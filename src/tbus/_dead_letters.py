r"""What a dead letter carries: the original untouched, and what became of it.

Body, key and headers are the original's, in their order and with their repeats. Behind them
comes one block of headers of tbus, whose names begin with `Tbus-Dead-` and whose first is
`Tbus-Dead-Topic`. A letter may itself be dead-lettered, so the last such block is the letter's
own, and everything before it belongs to the original.

What brokers do not carry in a header - line breaks, control characters, space at the ends,
text that is no Unicode - is written as in a Python string (`\n`, `\x1b`, `\\`), so it can be
read back as it was.

The id is made of group and place, so that a crash between storing the letter and settling
its original stores it once where the broker discards duplicates.

Pure: no clock, no I/O.
"""

from __future__ import annotations

import hashlib
import re
import traceback
from datetime import datetime

import attrs

from ._errors import describe, sole, text_of
from ._keys import find_key
from ._message import Delivery, Headers, Message, Position, Receipt, moment

PREFIX = "Tbus-Dead-"

REDRIVEN = "Tbus-Redriven-"
"""Begins the names of the headers of what was published again."""

MAX_TEXT = 2000
"""Longest text of one header, in characters; only a traceback may be longer."""

MAX_TRACEBACK = 4000
"""The same for tracebacks, unless the configuration says otherwise."""

SHORT_TEXT = 120
"""The same for the reason, where there is no room for more."""

_FIRST = PREFIX + "Topic"
_CUT = "…"


@attrs.frozen
class Failure:
    """Why a message is dead-lettered.

    Attributes:
        reason: in words.
        error: what was raised at last, where something was.
        first: when handling it first failed, in seconds since the epoch.
        last: when it last did.
    """

    reason: str
    error: Exception | None
    first: float
    last: float


@attrs.frozen
class DeadLetter:
    """A message that could not be handled, as its dead-letter topic holds it.

    Attributes:
        id: of the letter; the same however often it was stored.
        topic: where the original was published.
        position: where it stood there.
        timestamp: when the broker had stored it.
        key: what it is ordered by, or None.
        group: for whom it could not be handled, or None.
        attempts: how often a handler ran for it.
        first_failed: when the first of them failed.
        last_failed: when the last did.
        reason: why it was given up.
        error_type: the class of the last exception, or "".
        error: its text, cut off if it was long.
        traceback: its end, or "" where tracebacks are turned off or did not fit.
        source: the service that gave it up.
        body: the original's bytes.
        headers: the original's, in order.
        stored_in: the dead-letter topic.
        stored_at: the letter's position there.
        stored: when it was stored there.
        redriven: how often it is known to have been published again.
        last_redriven: when it last was.
    """

    id: str
    topic: str
    position: Position
    timestamp: datetime
    key: str | None
    group: str | None
    attempts: int
    first_failed: datetime | None
    last_failed: datetime | None
    reason: str
    error_type: str
    error: str
    traceback: str = attrs.field(repr=False)
    source: str
    body: bytes = attrs.field(repr=False)
    headers: Headers = attrs.field(repr=False)
    stored_in: str
    stored_at: Position
    stored: datetime
    redriven: int = 0
    last_redriven: datetime | None = None


@attrs.frozen
class Redriven:
    """A dead letter was published again.

    Attributes:
        letter: its id.
        event_id: the id that its original was published with now.
        receipt: where that stands. `duplicate` says that the broker had it already: an
            earlier try was stored.
    """

    letter: str
    event_id: str
    receipt: Receipt


def dead_letter_id(message: Message) -> str:
    """The same for every try to store the letter of one message."""
    place = f"{message.topic}\0{message.group}\0{message.position}\0{message.timestamp}"
    return "dead-" + hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def dead_letter_headers(
    message: Message, failure: Failure, source: str, *, traceback_limit: int = MAX_TRACEBACK
) -> Headers:
    """The original's headers, then where it came from and why it is here.

    Args:
        message: the original.
        failure: what became of it.
        source: the service that gives it up.
        traceback_limit: characters of a traceback that are kept, its last ones; 0: none.
    """
    error = failure.error
    kind = text = None
    if error is not None:
        told = sole(error)
        kind = type(told).__name__
        is_group = isinstance(told, BaseExceptionGroup)
        text = describe(told, MAX_TEXT) if is_group else text_of(told)
    added: dict[str, str | None] = {
        "Topic": message.topic,
        "Position": str(message.position),
        "Timestamp": _rfc3339(message.delivery.timestamp),
        "Group": message.group,
        "Key": message.key,
        "Id": dead_letter_id(message),
        "Attempts": str(message.attempt),
        "First-Failed": _rfc3339(failure.first),
        "Last-Failed": _rfc3339(failure.last),
        "Source": source or None,
        "Reason": failure.reason,
        "Error-Type": kind,
        "Error": text,
    }
    headers = [pair for pair in message.headers if not pair[0].startswith("Nats-")]
    headers += [
        (PREFIX + name, _written(value, MAX_TEXT))
        for name, value in added.items()
        if value is not None
    ]
    if error is not None and traceback_limit:
        lines = _written(_traceback(error), traceback_limit, keep_end=True)
        headers.append((f"{PREFIX}Traceback", lines))
    return tuple(headers)


def shortened(headers: Headers) -> Headers | None:
    """The same letter with less in it, for a broker that refused it: without its traceback;
    then without the error's text and with a short reason; then None, for nothing is left
    that could be missed."""
    start = _own(headers)
    if start is None:
        return None
    own = dict(headers[start:])
    if own.pop(f"{PREFIX}Traceback", None) is None and own.pop(f"{PREFIX}Error", None) is None:
        return None
    if f"{PREFIX}Error" not in own:
        reason = _read(own[f"{PREFIX}Reason"])
        own[f"{PREFIX}Reason"] = _written(reason, SHORT_TEXT)
    return (*headers[:start], *own.items())


def own_size(headers: Headers) -> int:
    """Bytes that a letter has beyond its original."""
    start = _own(headers)
    own = () if start is None else headers[start:]
    return sum(len(name) + len(value.encode()) + len(": \r\n") for name, value in own)


def read_dead_letter(topic: str, delivery: Delivery) -> DeadLetter | None:
    """The letter that a message of a dead-letter topic is, or None if it is none."""
    start = _own(delivery.headers)
    if start is None:
        return None
    told = {
        name[len(PREFIX) :]: _read(value)
        for name, value in delivery.headers[start:]
        if name.startswith(PREFIX)
    }
    place = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", told.get("Position", ""))
    timestamp = _time(told.get("Timestamp"))
    if place is None or timestamp is None or "Id" not in told:
        return None
    attempts = told.get("Attempts", "")
    return DeadLetter(
        id=told["Id"],
        topic=told["Topic"],
        position=Position(int(place[1]), int(place[2])),
        timestamp=timestamp,
        key=find_key(delivery)[0],
        group=told.get("Group"),
        attempts=int(attempts) if re.fullmatch("[0-9]{1,9}", attempts) else 0,
        first_failed=_time(told.get("First-Failed")),
        last_failed=_time(told.get("Last-Failed")),
        reason=told.get("Reason", ""),
        error_type=told.get("Error-Type", ""),
        error=told.get("Error", ""),
        traceback=told.get("Traceback", ""),
        source=told.get("Source", ""),
        body=delivery.encoded(),
        headers=delivery.headers[:start],
        stored_in=topic,
        stored_at=delivery.position,
        stored=moment(delivery.timestamp),
    )


# Redriving


def redriven_id(letter: DeadLetter) -> str:
    """The id that a letter is published again with: not the original's, which the broker may
    still discard; the same for every try; and another one once that is on record."""
    return f"redriven-{letter.id.removeprefix('dead-')}-{letter.redriven + 1}"


def redriven_headers(letter: DeadLetter) -> Headers:
    """The original's headers, then that it was redriven, from where, and for whom."""
    added = {
        "From": f"{letter.stored_in} {letter.stored_at}",
        "Letter": letter.id,
        "Group": letter.group,
        "Count": str(_redriven_before(letter) + 1),
    }
    kept = [pair for pair in letter.headers if not pair[0].startswith(REDRIVEN)]
    return (
        *kept,
        *((REDRIVEN + name, _written(v, MAX_TEXT)) for name, v in added.items() if v is not None),
    )


def record_headers(letter: DeadLetter, event_id: str, position: Position) -> Headers:
    """What is put on record when a letter was redriven."""
    return (
        (f"{REDRIVEN}Letter", letter.id),
        (f"{REDRIVEN}Topic", letter.topic),
        (f"{REDRIVEN}Id", event_id),
        (f"{REDRIVEN}Position", str(position)),
    )


def read_record(delivery: Delivery) -> str | None:
    """The letter that a record is about."""
    return dict(delivery.headers).get(f"{REDRIVEN}Letter")


def _redriven_before(letter: DeadLetter) -> int:
    """How often the message came back before, from other letters or from this one."""
    count = dict(letter.headers).get(f"{REDRIVEN}Count", "")
    return letter.redriven + (int(count) if re.fullmatch("[0-9]{1,9}", count) else 0)


# Texts


def _own(headers: Headers) -> int | None:
    """Where the letter's own block of headers begins; a transport may add some behind it."""
    for index in range(len(headers) - 1, -1, -1):
        if headers[index][0] == _FIRST:
            return index
    return None


def _traceback(error: Exception) -> str:
    """From where the handler begins on: how tbus called it says nothing."""
    start = error.__traceback__
    while start is not None and start.tb_frame.f_globals.get("__name__", "").startswith("tbus."):
        start = start.tb_next
    try:
        lines = traceback.format_exception(type(error), error, start or error.__traceback__)
        return "".join(lines).rstrip()
    except Exception as failure:  # noqa: BLE001 - users' own exceptions may fail even here
        return f"<no traceback: {type(failure).__name__} while it was made>"


def _written(text: str, limit: int, *, keep_end: bool = False) -> str:
    """A text as a header's value, of at most `limit` characters."""
    if len(text) <= limit and text.isprintable() and "\\" not in text and text == text.strip(" "):
        return text
    part = text[-limit:] if keep_end else text[:limit]
    pieces = [
        one if one.isprintable() and one != "\\" else one.encode("unicode_escape").decode("ascii")
        for one in part
    ]
    cut = len(part) < len(text)
    if cut or sum(map(len, pieces)) > limit - 6:  # the two ends may get three longer each
        if keep_end:
            pieces.reverse()
        room = max(0, limit - 6 - len(_CUT))
        for count, piece in enumerate(pieces):
            room -= len(piece)
            if room < 0:
                del pieces[count:]
                cut = True
                break
        if keep_end:
            pieces.reverse()
    for end in (0, -1):
        if pieces and pieces[end] == " ":
            pieces[end] = r"\x20"
    if cut:
        pieces.insert(0 if keep_end else len(pieces), _CUT[:limit])
    return "".join(pieces)


_ESCAPE = re.compile(r"\\(?:[\\nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_SIMPLE = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def _read(value: str) -> str:
    def plain(match: re.Match[str]) -> str:
        kind = match[0][1]
        if kind in _SIMPLE:
            return _SIMPLE[kind]
        number = int(match[0][2:], 16)
        return chr(number) if number < 0x110000 else match[0]

    return _ESCAPE.sub(plain, value)


def _rfc3339(seconds: float) -> str:
    told = moment(seconds).isoformat(timespec="microseconds")
    return told.replace("+00:00", "Z")


def _time(text: str | None) -> datetime | None:
    try:
        found = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
