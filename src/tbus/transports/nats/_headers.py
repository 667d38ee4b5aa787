"""Headers on the wire.

A header block begins with a version line, which may carry a status; then come lines of
name and value. tbus reads the block itself: the client's own parser makes a dict of it,
in which of a name that comes more than once only the last is left. Source: NATS
ADR-4, message headers.
"""

from __future__ import annotations

from ..._message import Headers

MESSAGE_ID = "Nats-Msg-Id"
KEY = "X-Aggregate-ID"
_VERSION = "NATS/1.0"
_ID_ONLY = b"NATS/1.0\r\nNats-Msg-Id:"


def encode_headers(headers: Headers, message_id: str, key: str | None) -> bytes:
    """The header block of a publish.

    Args:
        headers: the user's pairs.
        message_id: what the server discards duplicates by.
        key: the key of plain bytes; an envelope carries its own.
    """
    if "\n" in message_id or "\r" in message_id:
        # An envelope of another program may have any id: what follows must be no header of its own.
        message_id = message_id.encode("unicode_escape").decode()
    text = f"NATS/1.0\r\n{MESSAGE_ID}: {message_id}\r\n"
    if key is not None:
        text += f"{KEY}: {key}\r\n"
    for name, value in headers:
        text += f"{name}: {value}\r\n"
    return (text + "\r\n").encode()


def decode_headers(block: bytes | None) -> tuple[Headers, str | None]:
    """The user's pairs, without the server's own, and the key that a header carries."""
    if block is None:
        return (), None
    # What tbus writes for an envelope without headers: nothing of it is the user's.
    if block.startswith(_ID_ONLY) and block.find(b"\r\n", len(_ID_ONLY)) == len(block) - 4:
        return (), None
    key = None
    pairs = []
    for line in block.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            continue
        if name == KEY:
            key = value.strip()
        elif not name.startswith("Nats-"):
            pairs.append((name, value.strip()))
    return tuple(pairs), key


def decode_status(block: bytes) -> tuple[str, str, dict[str, str]]:
    """Status, description and fields of a message from the server itself."""
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    status, _, text = first.removeprefix(_VERSION).strip().partition(" ")
    fields = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            fields[name] = value.strip()
    return status, text.strip(), fields
