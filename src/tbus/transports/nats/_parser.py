"""What comes over a connection, cut into messages.

nats-py's parser matches regular expressions at the head of a buffer that it keeps cutting, and
awaits a coroutine for each message: a quarter of all that reading a message took. This one splits
the line that announces a message, and calls whoever subscribed. Every other line, of which there
are few, it leaves to nats-py's. Source: the NATS client protocol, MSG and HMSG.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

Receiver = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Called for a message with subject, reply, body and header block; must not block."""

LONGEST_LINE: Final = 1 << 20
"""Bytes of a line at most; the longest names the servers of a cluster."""

_MSG: Final = (4, 5)
_HMSG: Final = (5, 6)
"""Words of a line, without a subject for the reply and with one."""


class MessageParser(Parser):
    """Reads for one client, whose parser it becomes.

    Attributes:
        receivers: who is called, by the number of the subscription as it stands on the wire. A
            message for nobody is dropped: it was on its way when somebody unsubscribed.
        received: grows with everything that comes.
    """

    def __init__(self, client: Any) -> None:
        self._rest = bytearray()
        self._needed = 0
        super().__init__(client)
        self.receivers: dict[bytes, Receiver] = {}
        self.received = 0

    def reset(self) -> None:
        """Begin anew, with another connection."""
        super().reset()
        self._rest = bytearray()
        self._needed = 0

    async def parse(self, data: bytes = b"") -> None:
        """Take what was read, and hand on every message that is whole.

        Raises:
            ProtocolError: the server does not speak NATS.
        """
        self.received += 1
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return
            data = bytes(rest)
            rest.clear()
        receivers = self.receivers
        at, size = 0, len(data)
        self._needed = 0
        while at < size:
            end = data.find(b"\r\n", at)
            if end < 0:
                if size - at > LONGEST_LINE:
                    raise ProtocolError
                break
            words = data[at:end].split()
            body = end + 2
            headers: bytes | None = None
            try:
                if data.startswith(b"HMSG ", at) and len(words) in _HMSG:
                    start, body = body, body + int(words[-2])
                    stop = start + int(words[-1])
                    if not start <= body <= stop:
                        raise ProtocolError
                    if stop + 2 > size:
                        self._needed = stop + 2 - at
                        break
                    headers = data[start:body]
                elif data.startswith(b"MSG ", at) and len(words) in _MSG:
                    stop = body + int(words[-1])
                    if stop < body:
                        raise ProtocolError
                    if stop + 2 > size:
                        self._needed = stop + 2 - at
                        break
                else:
                    await super().parse(data[at:body])
                    if self.buf or self.state != AWAITING_CONTROL_LINE:
                        raise ProtocolError  # something that no server writes
                    at = body
                    continue
            except (AttributeError, LookupError, ValueError) as error:
                raise ProtocolError from error
            at = stop + 2
            receiver = receivers.get(words[2])
            if receiver is not None:
                reply = words[3] if len(words) - (headers is not None) == 5 else b""
                try:
                    receiver(words[1], reply, data[body:stop], headers)
                except Exception as error:  # noqa: BLE001 - raised by the loop, which ends the bridge
                    # The client would log it and read no more, and nobody would be told.
                    asyncio.get_running_loop().call_soon(_raise, error)
        if at < size:
            rest += data[at:]


def _raise(error: Exception) -> None:
    raise error
