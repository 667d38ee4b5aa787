"""One consumer on the server, read for one feed: what comes, and how it ends.

Lives in the clients' loop. The laws:

1. **No repeats.** What is in flight and is delivered again is not handed over again: it gets its
   new reply subject. What was settled here is settled again.
2. **Alive.** What is in flight is reported as in progress every third of `ack_wait`.
3. **Claimed.** Of a consumer under a `Claim` nothing is settled unless that lasts: whoever calls
   `settle` has asked.

How it is found on the server and goes back when something was lost is in `_attachment`; how
messages are asked for in `_pulls`, what is in flight in `_in_flight`, what is settled in
`_progress`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from ..._errors import TbusError
from ..._events import Event
from ..._message import Delivery, Position
from ..._transport import FeedRequest
from ._alarms import Alarms
from ._attachment import Attachment
from ._claim import Claim
from ._errors import ApiError, NoAnswer, NoResponders, SessionLost
from ._headers import decode_headers
from ._partitions import partition_of_subject
from ._progress import Arrival
from ._pulls import HEARTBEAT
from ._served import ServedConsumer
from ._session import Session
from ._streams import NANO, Streams

logger = logging.getLogger("tbus.nats")

CLOSE_WAIT = 5.0
"""Seconds for each question at the end; whoever closes has a deadline of its own."""


class Consumer:
    """Reads a topic, or one partition of it, for one group.

    Args:
        alarms: of the process.
        claim: what it is read under, or None: it needs none.
        tell: hands deliveries to the program: `tell(batch)`.
        fail: says that the consumer cannot go on: `fail(error)`.
    """

    __slots__ = (
        "_alarms",
        "_attachment",
        "_buffer",
        "_in_flight",
        "_is_kept_alive",
        "_is_shared",
        "_loop",
        "_ordered",
        "_partition",
        "_progress",
        "_pull_pending",
        "_served",
        "_start",
        "_tell",
        "epoch",
        "request",
    )

    def __init__(
        self,
        request: FeedRequest,
        served: ServedConsumer,
        streams: Streams,
        alarms: Alarms,
        *,
        start: Callable[..., None],
        emit: Callable[[Event], None],
        tell: Callable[[list[Delivery]], None],
        fail: Callable[[TbusError], None],
        claim: Claim | None = None,
    ) -> None:
        self.request = request
        self.epoch = 0 if claim is None else claim.epoch
        self._partition = 0 if claim is None else claim.partition
        self._is_shared = False
        """It reads all of several partitions, without owning any."""
        self._ordered = request.order != "none"
        self._served = served
        self._start = start
        self._tell = tell
        self._alarms = alarms
        self._loop = asyncio.get_running_loop()
        self._attachment = Attachment(
            request,
            served,
            streams,
            start=start,
            emit=emit,
            fail=fail,
            take=self._take,
            on_attached=self._on_attached,
            claim=claim,
        )
        self._progress = self._attachment.progress
        self._in_flight = self._attachment.in_flight
        self._buffer: list[Delivery] = []
        self._pull_pending = False
        self._is_kept_alive = False

    def set_credit(self, messages: int, size: int) -> None:
        """How much may be in flight from now on: messages, and bytes."""
        self._in_flight.limit(messages, size)

    # Connections

    async def open(self, session: Session) -> None:
        """Make or find the consumer, for the first time.

        Raises:
            TbusError: the server would not have it.
        """
        await self._attachment.open(session)

    def attach_again(self, session: Session, reason: str | None) -> None:
        """Go on from the first message that is not settled; None: begin."""
        self._attachment.attach_again(session, reason)

    def detach(self) -> None:
        """The connection is gone."""
        self._attachment.detach()

    def _on_attached(self) -> None:
        self._is_shared = self._attachment.record is None and self._served.partitions > 1
        if not self._is_kept_alive:
            self._is_kept_alive = True
            self._keep_alive()

    def _keep_alive(self) -> None:
        """Say of everything in flight that it is in progress; look whether the server is."""
        session, pulls = self._attachment.session, self._attachment.pulls
        if session is not None and not session.lost.is_set():
            for reply in self._in_flight.replies():
                session.write(b"PUB %b 4\r\n+WPI\r\n" % reply)
            if pulls is not None:
                pulls.look_at_server()
        # All consumers at once, so that a hundred idle ones wake the loop no more often than one.
        period = min(self.request.ack_wait / 3, HEARTBEAT)
        self._alarms.set(self._keep_alive, period - self._loop.time() % period)

    # Handing over

    def _take(
        self,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: bytes | None,
        position: int,
        delivered: int,
        stored: int,
    ) -> None:
        progress = self._progress
        if not progress.arrive_next(position) and not self._arrive(position, reply):
            return
        redelivered, suspect = delivered - 1, False
        if progress.watched is not None:
            redelivered, suspect = progress.watched.judge(position)
        size = len(data) + 128
        self._in_flight.add(position, reply, size)
        pairs, key = decode_headers(headers)
        partition = partition_of_subject(subject) if self._is_shared else self._partition
        attempts = progress.attempts
        if not self._buffer:
            self._loop.call_soon(self._hand_over)
        self._buffer.append(
            Delivery(  # by position: naming its fields takes as long again
                Position(partition, position),
                data,
                pairs,
                stored / NANO,
                key,
                False,
                self.epoch,
                redelivered,
                size,
                progress.incarnation,
                attempts.get(position, 0) if attempts else 0,
                suspect,
            )
        )

    def _arrive(self, position: int, reply: bytes) -> bool:
        """Whether a message that does not come where it should is to be handed over."""
        if self._in_flight.renew(position, reply):
            return False
        arrival = self._progress.arrive(position)
        if arrival is Arrival.SETTLED:
            self._acknowledge(reply)
        elif arrival is Arrival.BEYOND:
            self._hand_over()  # what came before the gap is not lost
            self._attachment.look_into_gap(position - 1)
        return arrival is Arrival.NEW

    def _hand_over(self) -> None:
        batch, self._buffer = self._buffer, []
        if batch:
            self._tell(batch)
            pulls = self._attachment.pulls
            if pulls is not None:
                pulls.pull()

    # Settling

    def settle(self, deliveries: Iterable[Delivery]) -> None:
        """Messages were handled."""
        settled = self._take_out(deliveries)
        self._progress.settle(settled)
        session = self._attachment.session
        if session is not None and settled:
            session.write(b"".join([b"PUB %b 0\r\n\r\n" % reply for reply in settled.values()]))

    def give_back(self, deliveries: Iterable[Delivery]) -> None:
        """Messages are for whoever reads for the group next."""
        replies = self._take_out(deliveries).values()
        if not self._ordered:
            for reply in replies:
                self._give_back(reply)

    def _take_out(self, deliveries: Iterable[Delivery]) -> dict[int, bytes]:
        """They are not in flight any more: returns their positions, and how each is settled."""
        incarnation, pop = self._progress.incarnation, self._in_flight.pop
        found = {}
        for delivery in deliveries:
            if delivery.token == incarnation:
                position = delivery.position.offset
                reply = pop(position)
                if reply is not None:
                    found[position] = reply
        if found and not self._pull_pending:
            self._pull_pending = True
            self._loop.call_soon(self._pull_again)
        return found

    def remember(self, deliveries: Iterable[Delivery]) -> None:
        """Messages were handled, and the server is not to be told any more: the mark tells."""
        incarnation = self._progress.incarnation
        self._progress.settle({d.position.offset for d in deliveries if d.token == incarnation})

    def note_attempts(self, delivery: Delivery, attempts: int) -> None:
        """Handling a message has failed so often: the mark tells."""
        position = delivery.position.offset
        if delivery.token == self._progress.incarnation and position in self._in_flight:
            self._progress.note_attempts(position, attempts)

    def _pull_again(self) -> None:
        self._pull_pending = False
        pulls = self._attachment.pulls
        if pulls is not None:
            pulls.pull_again()

    def _acknowledge(self, reply: bytes) -> None:
        session = self._attachment.session
        if session is not None:
            session.write(b"PUB %b 0\r\n\r\n" % reply)

    def _give_back(self, reply: bytes) -> None:
        session = self._attachment.session
        if session is not None:
            session.write(b"PUB %b 4\r\n-NAK\r\n" % reply)

    # Of a partition that is owned

    def begin(self, delivery: Delivery, stored: Callable[[], None]) -> None:
        """A suspect is about to be handled: `stored` is called when that is stored."""
        record = self._attachment.record
        if record is not None and record.begin(delivery.position.offset):
            self._start(record.store, stored)
        else:
            stored()

    async def end(self) -> None:
        """Nothing of it runs any more: tell the next owner that nobody has died."""
        if self._attachment.record is not None:
            await self._attachment.record.end()

    def mark_text(self) -> str:
        """What is settled, for the next owner."""
        return self._progress.mark()

    def known(self) -> tuple[str, ...]:
        """Marks that say what this process has settled here, now or before."""
        return self._progress.known()

    # The end

    def stop(self) -> None:
        """Ask for nothing more; what still comes goes back."""
        self._attachment.stop()

    async def close(self) -> None:
        """Stop, give back what is not settled, and wait until the server has heard it all."""
        self.stop()
        session, pulls = self._attachment.session, self._attachment.pulls
        try:
            if session is None or session.lost.is_set():
                return
            if pulls is not None:
                await pulls.drain(CLOSE_WAIT)
            if self.request.group is None:
                await self._served.remove(session, CLOSE_WAIT)
            elif not self._ordered:
                for reply in self._in_flight.replies():
                    self._give_back(reply)
            await session.ping(CLOSE_WAIT)
        except ApiError as error:
            logger.debug("closing %s: %s", self._served.path, error)
        except (SessionLost, NoAnswer, NoResponders) as error:
            logger.debug("closing %s: %s", self._served.path, error)
        finally:
            self.abandon()

    async def release(self) -> None:
        """Read no more. What is on its way is for the next owner."""
        pulls = self._attachment.pulls
        self.abandon()
        if pulls is not None:
            await pulls.end()

    def abandon(self) -> None:
        """It is closed, whatever the server has heard."""
        self.stop()
        self._attachment.detach()
        self._in_flight.clear()
        self._alarms.cancel(self._keep_alive)
