"""What a dead letter carries: the original untouched, and what became of it.

The body, the key and the headers are the original's; what tbus adds are headers whose
names begin with `Tbus-`. The id is made of group and place, so that a crash between
storing the letter and settling its original stores it once where the broker discards
duplicates.
"""

from __future__ import annotations

import hashlib
import traceback

from ._errors import text_of
from ._message import Headers, Message

MAX_TEXT = 2000
"""Longest text of one header, in characters."""

PREFIX = "Tbus-Dead-"


def dead_letter_headers(
    message: Message, reason: str, error: Exception | None, source: str, *, tracebacks: bool = True
) -> Headers:
    """The original's headers, then where it came from and why it is here."""
    added = {
        "Topic": message.topic,
        "Position": str(message.position),
        "Group": message.group or "",
        "Key": message.key or "",
        "Attempts": str(message.attempt),
        "Reason": reason,
        "Source": source,
    }
    if error is not None:
        added["Error-Type"] = type(error).__name__
        added["Error"] = text_of(error)
        if tracebacks:
            added["Traceback"] = "".join(traceback.format_exception(error))[-MAX_TEXT:]
    return (
        *((name, value) for name, value in message.headers if not name.startswith("Nats-")),
        *((PREFIX + name, _one_line(value)) for name, value in added.items() if value),
    )


def dead_letter_id(message: Message) -> str:
    """The same for every try to store the letter of one message."""
    place = f"{message.topic}\0{message.group}\0{message.position}\0{message.timestamp}"
    return "dead-" + hashlib.sha256(place.encode()).hexdigest()[:32]


def _one_line(text: str) -> str:
    joined = " ⏎ ".join(line.strip() for line in text.splitlines() if line.strip())
    # Texts of errors may hold what no encoding takes: file names that are no Unicode, say.
    return joined[:MAX_TEXT].strip().encode("utf-8", "replace").decode()
