"""Overlapping pulls through an inbox of their own, and what comes back by it.

The laws:

1. **Credit.** What is asked for and what is in flight is never more than the credit; asked for
   again when half of it is used.
2. **Own inbox.** Each time the consumer is attached there are new pulls with a new inbox: what is
   still on its way to an older one is not seen.
3. **Together.** A pull ends at a moment that all consumers of the process have in common. From then
   on an idle one's heartbeats come with those of all others, and wake the loop once.
4. **Order.** Lost on its way is what leaves a gap in the consumer's own sequence, or what a
   heartbeat counts and did not come. Then the pulls are deaf, and the consumer goes back.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Protocol

from ..._errors import ConsumerGone, TbusError
from ._headers import decode_status
from ._in_flight import InFlight
from ._names import API
from ._session import Session, Subscription, publish_command
from ._streams import NANO

logger = logging.getLogger("tbus.nats")

EXPIRES = 30.0
"""Seconds after which a pull is answered although there were too few messages, at most."""

HEARTBEAT = 5.0
"""Seconds between the server's signs of life while a pull waits, at most. Multiples of it by the
loop's clock are the moments in common."""

TOGETHER = 0.1
"""Seconds after such a moment that still count as it."""

NINE = 9


Take = Callable[[bytes, bytes, bytes, bytes | None, int, int, int], None]
"""Called for a message with subject, reply, body, header block, its place in the stream, how often
it was delivered, and when it was stored, in nanoseconds."""


class Puller(Protocol):
    """Whoever has the pulls."""

    def go_back(self, reason: str, delay: float = 0.0) -> None:
        """Something is missing: attach again, after so many seconds."""

    def lose(self, reason: str) -> None:
        """Somebody else has the consumer."""

    def fail(self, error: TbusError) -> None:
        """The consumer cannot go on."""


class Pulls:
    """What is asked for in one connection.

    Args:
        session: the connection.
        path: of the consumer, as the API's subjects name it.
        group: the priority group that the pulls name, of a consumer that is claimed.
        in_flight: what the credit is used by.
        ordered: whether every message must come in its place.
        take: called for each message.
        puller: told what keeps them from coming.
    """

    __slots__ = (
        "_asked",
        "_full",
        "_group",
        "_has_heard",
        "_heard",
        "_in_flight",
        "_inbox",
        "_is_deaf",
        "_loop",
        "_next",
        "_ordered",
        "_path",
        "_puller",
        "_session",
        "_stopped",
        "_take",
    )

    def __init__(
        self,
        session: Session,
        path: str,
        group: str | None,
        in_flight: InFlight,
        *,
        ordered: bool,
        take: Take,
        puller: Puller,
    ) -> None:
        self._session = session
        self._path = path
        self._group = group
        self._in_flight = in_flight
        self._ordered = ordered
        self._take = take
        self._puller = puller
        self._loop = asyncio.get_running_loop()
        self._inbox: Subscription | None = None
        self._next = 0
        """The consumer sequence that comes next."""
        self._asked = 0
        self._full = False
        """The next message does not fit into the bytes that are left."""
        self._heard = 0.0
        """When the server is known to have given a sign of life."""
        self._has_heard = False
        """Whether it has given one since."""
        self._is_deaf = False
        self._stopped = False

    # From the first to the last

    async def begin(self, sequence: int) -> None:
        """Listen, from this consumer sequence on."""
        self._next = sequence
        self._heard = self._loop.time()
        self._inbox = await self._session.subscribe(self._session.new_inbox(), self._on_message)

    def stop(self) -> None:
        """Ask for nothing more."""
        self._stopped = True

    def deafen(self) -> None:
        """Neither ask nor listen: what comes meanwhile comes again."""
        self._is_deaf = True

    async def end(self) -> None:
        """The same, and say so to the server."""
        self._is_deaf = True
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            await self._session.unsubscribe(inbox)

    async def drain(self, timeout: float) -> None:
        """Stop, and wait until everything that was on its way has been received.

        Raises:
            SessionLost, NoAnswer: some of it may not have been.
        """
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            await self._session.drain(inbox, timeout)

    # Asking

    def pull_again(self) -> None:
        """The same when something was settled."""
        self._full = False
        self.pull()

    def pull(self) -> None:
        """Ask for what there is room for, if that is worth asking."""
        if self._inbox is None or self._full or self._stopped or self._is_deaf:
            return
        room = self._in_flight.room()
        wanted = room - self._asked
        if wanted < 1 or (
            self._asked and (wanted < self._in_flight.low or self._asked > room // 2)
        ):
            return
        self._ask(self._inbox, wanted, wanted * self._in_flight.share)

    def _ask(self, inbox: Subscription, count: int, max_bytes: int) -> None:
        now = self._loop.time()
        expires, heartbeat = _times(now)
        body: dict[str, object] = {
            "batch": count,
            "expires": round(expires * NANO),
            "idle_heartbeat": int(heartbeat * NANO),
        }
        if max_bytes:
            body["max_bytes"] = max_bytes
        if self._group is not None:
            body["group"] = self._group
        if not self._asked:
            self._heard = now  # nobody had to say anything before
        self._asked += count
        self._session.write(
            publish_command(
                f"{API}.CONSUMER.MSG.NEXT.{self._path}",
                json.dumps(body).encode(),
                reply=inbox.subject,
            )
        )

    def look_at_server(self) -> None:
        """Whether it has been silent for too long."""
        now = self._loop.time()
        if self._has_heard:
            self._has_heard = False
            self._heard = now
        elif self._asked and now - self._heard > 3 * HEARTBEAT:
            self._heard = now
            self._puller.go_back("the server has sent no heartbeat for this consumer")

    # Listening

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if self._is_deaf:
            return
        self._has_heard = True
        if not reply.startswith(b"$JS.ACK."):
            self._on_status(headers or b"")
            return
        parts = reply.split(b".")
        # Nine parts; twelve where the server names domain and account.
        if len(parts) == NINE:
            _, _, _, _, delivered, position, sequence, stored, _ = parts
        else:
            delivered, position, sequence, stored = parts[6:10]
        if self._ordered:
            if int(sequence) != self._next:
                self._puller.go_back(f"message {self._next} of the consumer was lost on its way")
                return
            self._next += 1
        if self._asked:
            self._asked -= 1
        self._take(subject, reply, data, headers, int(position), int(delivered), int(stored))

    def _on_status(self, headers: bytes) -> None:
        status, text, found = decode_status(headers)
        if status == "100":
            seen = found.get("Nats-Last-Consumer")
            if self._ordered and seen is not None and int(seen) >= self._next:
                self._puller.go_back(f"message {self._next} of the consumer was lost on its way")
            return
        pending = found.get("Nats-Pending-Messages")
        if pending is not None:
            self._asked = max(0, self._asked - int(pending))
        if status in ("404", "408") or "Completed" in text:
            self.pull()
        elif "Exceeds MaxBytes" in text:
            self._on_too_big()
        elif (status == "409" and "Deleted" in text) or status == "503":
            self._puller.go_back(f"the server says: {text.strip() or status}")
        elif status == "409":
            logger.debug("%s: %s", self._path, text)
            self._puller.go_back(f"the server says: {text}", delay=0.25)
        elif self._group is not None and (status == "423" or "Priority Group" in text):
            self._is_deaf = True
            self._puller.lose("another process has claimed the consumer")
        else:
            self._puller.fail(
                ConsumerGone(f"the server refuses to be asked for {self._path!r}: {status} {text}")
            )

    def _on_too_big(self) -> None:
        if len(self._in_flight):
            self._full = True  # asked for again when something was settled
        elif self._inbox is not None and not self._asked and not self._stopped:
            self._ask(self._inbox, 1, 0)


def _times(now: float) -> tuple[float, float]:
    """How long a pull is to wait, and how often it is to hear of the server meanwhile, no more than
    twice where it begins at a moment of its own. (The server wants two heartbeats to fit.)"""
    since = now % HEARTBEAT
    if since < TOGETHER:
        return EXPIRES - since, HEARTBEAT
    expires = 2 * HEARTBEAT - since
    return expires, expires / 2
