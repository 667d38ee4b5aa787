"""Headers on the wire.

The server keeps headers as they are, but the client reads them into a dict: of a name that
comes more than once only the last is seen. So where a name repeats, all pairs travel once
more in one header of tbus's own, and are read from there.
"""

from __future__ import annotations

import json

from ..._message import Headers

MESSAGE_ID = "Nats-Msg-Id"
KEY = "X-Aggregate-ID"
PAIRS = "Tbus-Headers"


def encode_headers(headers: Headers, message_id: str, key: str | None) -> bytes:
    """The header block of a publish.

    Args:
        headers: the user's pairs.
        message_id: what the server discards duplicates by.
        key: the key of plain bytes; an envelope carries its own.
    """
    lines = [f"NATS/1.0\r\n{MESSAGE_ID}: {message_id}\r\n"]
    if key is not None:
        lines.append(f"{KEY}: {key}\r\n")
    if headers:
        lines += [f"{name}: {value}\r\n" for name, value in headers]
        if len({name for name, _ in headers}) < len(headers):
            lines.append(f"{PAIRS}: {json.dumps(headers)}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode()


def decode_headers(found: dict[str, str] | None) -> Headers:
    """The user's pairs, without what belongs to the server and to tbus."""
    if not found:
        return ()
    pairs = found.get(PAIRS)
    if pairs is not None:
        try:
            return tuple((str(name), str(value)) for name, value in json.loads(pairs))
        except (ValueError, TypeError):
            pass  # not written by tbus: then it is a header like any other
    return tuple(
        (name, value)
        for name, value in found.items()
        if not name.startswith("Nats-") and (pairs is None or name != PAIRS)
    )
