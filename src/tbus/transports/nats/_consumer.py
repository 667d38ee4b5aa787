"""One consumer on the server, read by overlapping pulls. Lives in the clients' loop.

The laws:

1. **Credit.** What was handed over and is not settled, and what is asked for, is never
   more than `max_in_flight`; asked for again when half of the credit is used. Each message
   asked for may take its even share of `max_in_flight_bytes`.
2. **Own inbox.** Each time it is attached (first, after a reconnect, after a gap) the consumer
   gets a new inbox: what is still on its way to an older one is not seen.
3. **Order.** Whoever needs the broker's order goes back, whenever anything may have been
   lost on its way, to the first message that is not settled: the server's `CONSUMER.RESET`
   makes it deliver everything after the ack floor again, in order. Otherwise what was lost
   would come after `ack_wait`, behind newer messages (seen: 1 2 3 7 8 9 4 5 6). Lost is
   what leaves a gap in the consumer's own sequence, or what a heartbeat counts and did not
   come.
4. **No repeats.** What is in flight, or was settled here, and is delivered again is not
   handed over again: the first gets its new reply subject, the second is settled again.
5. **Alive.** What is in flight is reported as in progress every third of `ack_wait`.
6. **A consumer or stream that was removed is an error**, unless the server lost it with its
   memory: then it is made again.
7. **Claimed.** A consumer of a group with order is read under a `Claim`, for one time of owning
   its partition. Before anything is settled it is asked whether that lasts; where the server
   says that somebody else has the consumer, the claim is lost.
8. **What was settled out of order is remembered.** What is settled beyond the ack floor, or is
   below it and the server may have forgotten, and how often handling has failed for what is
   not, is a mark that the next owner is given.
   Who reads next goes back to the floor like after any other end, recognises those messages, and
   settles them again without handing them over. (Giving back by nak is no way to keep an
   order: the server may put what it takes from its queue of redeliveries back at the end of it.)

What the server keeps of it, and how that is made and found, is in `_served`. (A long file:
the laws above need the same few tables.)
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

import attrs

from ..._errors import (
    ConfigurationError,
    ConsumerGone,
    MessagesLost,
    SubscriptionFailed,
    TbusError,
    TransportLost,
)
from ..._events import Event, FeedReset
from ..._marks import Mark, decode, encode, joined
from ..._message import Delivery, Position
from ..._suspects import Suspects
from ..._transport import FeedRequest, Verdict
from ..._watermark import Watermark
from ._errors import (
    CONSUMER_NOT_FOUND,
    FULL,
    MESSAGE_NOT_FOUND,
    ApiError,
    NoAnswer,
    NoResponders,
    SessionLost,
    not_possible,
)
from ._headers import decode_headers, decode_status
from ._names import API
from ._partitions import partition_of_subject
from ._served import ORIGIN, ServedConsumer, priority_group
from ._session import Session, Subscription, publish_command
from ._streams import NANO, Config, Streams

logger = logging.getLogger("tbus.nats")

EXPIRES = 30.0
"""Seconds after which a pull is answered although there were too few messages."""

HEARTBEAT = 5.0
"""Seconds between the server's signs of life while a pull waits."""

CLOSE_WAIT = 5.0
"""Seconds for each question at the end; whoever closes has a deadline of its own."""

RESETS = 20
RESETS_WITHIN = 10.0
"""More resets than this, within so many seconds, on one connection, are nobody's accident."""

NINE = 9

MARK_SIZE = 4096
"""Characters of a mark, at most."""

ORDER_SINCE = (2, 11)


@attrs.frozen
class Claim:
    """A time of owning a partition.

    Attributes:
        partition: which.
        epoch: of this time.
        mark: what an earlier owner has left.
        owns: whether it lasts.
        lose: somebody else has the partition: `lose(reason)`.
        known: marks of what this process has settled, when it had the partition before.
    """

    partition: int
    epoch: int
    mark: str
    owns: Callable[[], bool]
    lose: Callable[[str], None]
    known: tuple[str, ...] = ()


class _Taken(Exception):
    """The claim is over."""


@attrs.define(eq=False)
class _InFlight:
    """A message that was handed over and is not settled."""

    reply: bytes
    size: int


class Consumer:
    """Reads a topic, or one partition of it, for one group.

    Args:
        claim: what it is read under, or None: it needs none.
        tell: hands deliveries to the program: `tell(batch)`.
        fail: says that the consumer cannot go on: `fail(error)`.
    """

    # More attributes than a class shares between its objects, one of which every idle topic has.
    __slots__ = (
        "_asked",
        "_attempts",
        "_buffer",
        "_bytes",
        "_claim",
        "_emit",
        "_fail",
        "_generation",
        "_heard",
        "_in_flight",
        "_inbox",
        "_incarnation",
        "_loop",
        "_low",
        "_mark",
        "_messages",
        "_next",
        "_ordered",
        "_origin",
        "_partition",
        "_pull_pending",
        "_resets",
        "_served",
        "_session",
        "_settled_before",
        "_share",
        "_size",
        "_start",
        "_stopped",
        "_streams",
        "_suspects",
        "_tell",
        "_timer",
        "_too_big",
        "_watched",
        "epoch",
        "name",
        "request",
    )

    def __init__(
        self,
        request: FeedRequest,
        served: ServedConsumer,
        streams: Streams,
        *,
        start: Callable[..., None],
        emit: Callable[[Event], None],
        tell: Callable[[list[Delivery]], None],
        fail: Callable[[TbusError], None],
        claim: Claim | None = None,
    ) -> None:
        self.request = request
        self.name = served.path
        self.epoch = 0 if claim is None else claim.epoch
        self._claim = claim
        self._partition = 0 if claim is None else claim.partition
        self._served = served
        self._streams = streams
        self._start = start
        self._emit = emit
        self._tell = tell
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._ordered = request.order != "none"
        self.set_credit(request.max_in_flight, request.max_in_flight_bytes)
        self._origin = ""
        self._mark: Watermark | None = None
        self._in_flight: dict[int, _InFlight] = {}
        self._suspects: Suspects | None = None
        """Of a claimed consumer, once it is known."""
        self._watched: Suspects | None = None
        """The same, where something is to be asked of it: for the hot path."""
        self._attempts: dict[int, int] = {}
        """How often handling has failed for what is not settled, of a claimed consumer."""
        self._bytes = 0
        self._session: Session | None = None
        self._inbox: Subscription | None = None
        self._generation = 0
        self._settled_before: list[tuple[int, int]] = []
        self._next = 0
        """The consumer sequence that comes next."""
        self._asked = 0
        self._too_big = False
        """The next message does not fit into the bytes that are left."""
        self._heard = 0.0
        self._buffer: list[Delivery] = []
        self._pull_pending = False
        self._incarnation = 0
        """Counts the streams that the topic has had; positions of one mean nothing in the
        next."""
        self._resets: list[float] = []
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None

    def set_credit(self, messages: int, size: int) -> None:
        """How much may be in flight from now on: messages, and bytes."""
        self._messages = messages
        self._size = size
        self._share = max(1, size // messages)
        self._low = max(1, messages // 4)

    # Attaching

    async def open(self, session: Session) -> None:
        """Make or find the consumer, for the first time.

        Raises:
            TbusError: the server would not have it.
        """
        if self._ordered and session.version < ORDER_SINCE:
            raise ConfigurationError(
                f"this nats-server is {'.'.join(map(str, session.version))}; order by key through"
                " reconnects needs 2.11, and better 2.14: upgrade it, or subscribe with"
                " order='none'",
                field="order",
                value=self.request.order,
            )
        try:
            await self._attach(session, None)
        except ApiError as error:
            raise not_possible(f"cannot read topic {self.request.topic!r}", error) from error
        except (SessionLost, NoAnswer, NoResponders) as error:
            raise TransportLost(f"cannot read topic {self.request.topic!r}: {error}") from error
        self._keep_alive()

    def attach_again(self, session: Session, reason: str | None) -> None:
        """Go on from the first message that is not settled; None: begin."""
        if not self._stopped:
            self._start(self._try_to_attach, session, reason)

    def detach(self) -> None:
        """The connection is gone."""
        self._generation += 1
        self._session = None
        self._inbox = None
        self._asked = 0

    async def _try_to_attach(self, session: Session, reason: str | None) -> None:
        if self._stopped:
            return
        try:
            await self._attach(session, reason)
        except _Taken as taken:
            if self._claim is not None and not self._stopped:
                self._claim.lose(str(taken))
        except SessionLost:
            pass  # attached again when there is a connection
        except (NoAnswer, NoResponders) as error:
            # JetStream may not be ready yet; a link that is really dead ends the session.
            await self._attach_soon(session, reason, error)
        except ApiError as error:
            if error.err_code in FULL or error.err_code == CONSUMER_NOT_FOUND:
                # There is no room now; or it went just now, and the next look tells how.
                await self._attach_soon(session, reason, error)
            else:
                self._fail_if_owner(
                    not_possible(f"cannot go on reading {self.request.topic!r}", error)
                )
        except TbusError as error:
            self._fail_if_owner(error)
        else:
            if self._timer is None and self._mark is not None and not self._stopped:
                self._keep_alive()  # one that is claimed was not opened before

    async def _attach_soon(self, session: Session, reason: str | None, error: Exception) -> None:
        if session is not self._session and self._session is not None:
            return
        logger.debug("attaching to %s: %s", self.name, error)
        await asyncio.sleep(0.25)
        if not session.lost.is_set():
            self.attach_again(session, reason)

    def _fail_if_owner(self, error: TbusError) -> None:
        # An owner finds no consumer while the next one makes it again.
        if self._claim is None or self._claim.owns():
            self._fail(error)

    async def _attach(self, session: Session, reason: str | None) -> None:
        self._generation += 1
        generation = self._generation
        self._session = session
        self._asked = 0
        if self._inbox is not None:
            inbox, self._inbox = self._inbox, None
            await session.unsubscribe(inbox)
        info, is_new = await self._served.find_or_make(
            session, None if self._mark is None else self._mark.frontier
        )
        is_first = self._mark is None
        if is_new:
            self._begin_stream()
        if self._claim is not None:
            info = await self._be_owner(self._claim, session, info, is_first or is_new)
        pending = info["num_ack_pending"] or info["num_redelivered"]
        if self._ordered and (reason is not None or pending):
            if self._claim is not None and not self._claim.owns():
                raise _Taken("the lease has run out")
            info = await self._served.reset(session, info)
            if reason is not None:
                self._emit(FeedReset(self.request.topic, self.request.group, reason))
        if generation != self._generation:
            return  # attached or detached again meanwhile
        self._origin = info["config"].get("metadata", {}).get(ORIGIN, "")
        if self._mark is None:
            floor = info["delivered"]["stream_seq"]
            self._mark = Watermark(floor)
            self._settled_before = self._read_marks(floor)
        if self._claim is not None and self._suspects is None:
            self._suspects = await self._look_at_record(session, self._mark)
            self._watched = self._suspects if self._suspects else None
            if generation != self._generation:
                return
        self._next = info["delivered"]["consumer_seq"] + 1
        self._heard = self._loop.time()
        subject = session.new_inbox()
        inbox = await session.subscribe(
            subject,
            lambda subject, reply, data, headers: self._on_message(
                generation, subject, reply, data, headers
            ),
        )
        if generation != self._generation:
            await session.unsubscribe(inbox)
            return
        self._inbox = inbox
        if self._stopped:
            return
        self._pull()

    async def _be_owner(self, claim: Claim, session: Session, info: Config, is_new: bool) -> Config:
        """Claim the consumer, or see that it is still claimed."""
        if not claim.owns():
            raise _Taken("the lease has run out")
        if is_new:
            return await self._served.claim(session, info, claim.epoch)
        if not self._served.is_claimed(info, claim.epoch):
            raise _Taken("another process has claimed the consumer")
        return info

    def _begin_stream(self) -> None:
        """The stream is another one: its positions have nothing to do with the old ones."""
        self._incarnation += 1
        if self._mark is not None:
            self._mark = Watermark(0)
            self._settled_before = []
            self._attempts.clear()
            self._suspects = self._watched = None
            self._in_flight.clear()
            self._bytes = 0

    # Pulling

    def _pull(self) -> None:
        """Ask for what there is room for, if that is worth asking."""
        session = self._session
        if self._inbox is None or self._stopped or session is None or self._too_big:
            return
        room = min(
            self._messages - len(self._in_flight),
            (self._size - self._bytes) // self._share,
        )
        if not self._in_flight:
            room = max(1, room)
        wanted = room - self._asked
        if wanted < 1 or (self._asked and (wanted < self._low or self._asked > room // 2)):
            return
        self._ask(session, wanted, wanted * self._share)

    def _ask(self, session: Session, count: int, max_bytes: int) -> None:
        assert self._inbox is not None
        body: dict[str, object] = {
            "batch": count,
            "expires": round(EXPIRES * NANO),
            "idle_heartbeat": round(HEARTBEAT * NANO),
        }
        if max_bytes:
            body["max_bytes"] = max_bytes
        if self._claim is not None:
            body["group"] = priority_group(self.epoch)
        self._asked += count
        session.write(
            publish_command(
                f"{API}.CONSUMER.MSG.NEXT.{self._served.path}",
                json.dumps(body).encode(),
                reply=self._inbox.subject,
            )
        )

    def _on_message(
        self, generation: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        if generation != self._generation:
            return
        self._heard = self._loop.time()
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
                self._go_back(f"message {self._next} of the consumer was lost on its way")
                return
            self._next += 1
        self._asked = max(0, self._asked - 1)
        if self._claim is None and self._served.partitions > 1:
            self._partition = partition_of_subject(subject)
        self._take(reply, data, headers, int(position), int(delivered), int(stored))

    def _take(
        self,
        reply: bytes,
        data: bytes,
        headers: bytes | None,
        position: int,
        delivered: int,
        stored: int,
    ) -> None:
        mark = self._mark
        assert mark is not None
        expected = mark.highest + 1
        known = self._in_flight.get(position)
        if known is not None:
            known.reply = reply
            return
        settled_before = bool(self._settled_before) and self._was_settled_before(position)
        if position > expected and not settled_before and self._is_gapless():
            self._hand_over()  # what came before the gap is not lost
            self._generation += 1  # what comes meanwhile is not looked at
            if self._session is not None:
                self._start(self._look_into_gap, self._session, mark, expected, position - 1)
            return
        if not mark.open(position):
            # What a group shares without order may come back from another process, so only
            # who reads alone knows that it has been settled.
            if self._ordered and mark.is_settled(position):
                self._acknowledge(reply)
                return
            mark.reopen(position)
        elif settled_before:
            mark.complete(position)
            self._acknowledge(reply)
            return
        redelivered, suspect = delivered - 1, False
        if self._watched is not None:
            redelivered, suspect = self._watched.judge(position)
        size = len(data) + 128
        self._in_flight[position] = _InFlight(reply, size)
        self._bytes += size
        pairs, key = decode_headers(headers)
        if not self._buffer:
            self._loop.call_soon(self._hand_over)
        self._buffer.append(
            Delivery(
                position=Position(self._partition, position),
                body=data,
                headers=pairs,
                timestamp=stored / NANO,
                key=key,
                epoch=self.epoch,
                redelivered=redelivered,
                size=size,
                token=self._incarnation,
                attempts=self._attempts.get(position, 0),
                suspect=suspect,
            )
        )

    async def _look_into_gap(
        self, session: Session, mark: Watermark, first: int, last: int
    ) -> None:
        """These did not come: retention took them, or the group has settled them. Set back, the
        server may still be taking in acknowledgements of an earlier time of owning the partition,
        and begin behind the floor that it has told."""
        topic = self.request.topic
        try:
            await session.api(f"STREAM.MSG.GET.{self._streams.stream(topic)}", {"seq": first})
        except SessionLost:
            return  # attached again when there is a connection, and seen again
        except (NoAnswer, NoResponders) as error:
            logger.debug("looking for message %d of %s: %s", first, topic, error)
        except ApiError as error:
            if error.err_code == MESSAGE_NOT_FOUND:
                self._fail_if_owner(MessagesLost(topic, first, last))
                return
            logger.debug("looking for message %d of %s: %s", first, topic, error)
        else:
            if mark is self._mark and mark.open(last):
                mark.complete(last)
        self._go_back(f"messages {first} to {last} were acknowledged already")

    def _is_gapless(self) -> bool:
        """Whether every position of the stream is one of its own."""
        return (
            self._ordered
            and self._streams.is_own
            and (self._claim is None or self._served.partitions == 1)
        )

    def _was_settled_before(self, position: int) -> bool:
        runs = self._settled_before
        while runs and runs[0][1] < position:
            runs.pop(0)
        return bool(runs) and runs[0][0] <= position

    def _hand_over(self) -> None:
        batch, self._buffer = self._buffer, []
        if batch:
            self._tell(batch)
            self._pull()

    def _on_status(self, headers: bytes) -> None:
        status, text, found = decode_status(headers)
        if status == "100":
            seen = found.get("Nats-Last-Consumer")
            if self._ordered and seen is not None and int(seen) >= self._next:
                self._go_back(f"message {self._next} of the consumer was lost on its way")
            return
        pending = found.get("Nats-Pending-Messages")
        if pending is not None:
            self._asked = max(0, self._asked - int(pending))
        if status in ("404", "408") or "Completed" in text:
            self._pull()
        elif "Exceeds MaxBytes" in text:
            if self._in_flight:
                self._too_big = True  # asked for again when something was settled
            else:
                session = self._session
                if session is not None and not self._asked and not self._stopped:
                    self._ask(session, 1, 0)
        elif (status == "409" and "Deleted" in text) or status == "503":
            self._go_back(f"the server says: {text.strip() or status}")
        elif status == "409":
            logger.debug("%s: %s", self.name, text)
            self._go_back(f"the server says: {text}", delay=0.25)
        elif self._claim is not None and (status == "423" or "Priority Group" in text):
            self._generation += 1
            self._claim.lose("another process has claimed the consumer")
        else:
            self._fail(
                ConsumerGone(f"the server refuses to be asked for {self.name!r}: {status} {text}")
            )

    def _go_back(self, reason: str, delay: float = 0.0) -> None:
        """Something is missing: attach again. What comes meanwhile is not looked at."""
        session = self._session
        self._generation += 1
        if session is None or self._stopped:
            return
        now = self._loop.time()
        self._resets = [when for when in self._resets if now - when < RESETS_WITHIN] + [now]
        if len(self._resets) > RESETS:
            self._fail(
                SubscriptionFailed(
                    f"group {self.request.group!r} of topic {self.request.topic!r} lost its place"
                    f" {RESETS} times within {RESETS_WITHIN} s ({reason}): does another program"
                    f" read from its consumer {self.name!r}?"
                )
            )
            return
        if delay:
            self._loop.call_later(delay, self._back, session, reason)
        else:
            self._back(session, reason)

    def _back(self, session: Session, reason: str) -> None:
        if session is self._session and not session.lost.is_set():
            self.attach_again(session, reason)

    # Settling

    def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """A message was handled, or is given back."""
        if delivery.token != self._incarnation:
            return
        position = delivery.position.offset
        known = self._in_flight.pop(position, None)
        if known is None:
            return
        self._bytes -= known.size
        self._too_big = False
        assert self._mark is not None
        if verdict is Verdict.DONE:
            self._mark.complete(position)
            self._acknowledge(known.reply)
            if self._attempts:
                self._attempts.pop(position, None)
            if self._watched is not None:
                self._watched.settle((position,))
        elif not self._ordered:
            self._give_back(known.reply)
        if not self._pull_pending:
            self._pull_pending = True
            self._loop.call_soon(self._pull_again)

    def remember(self, delivery: Delivery) -> None:
        """A message was handled, and the server is not to be told any more: the mark tells."""
        if delivery.token == self._incarnation and self._mark is not None:
            self._mark.complete(delivery.position.offset)
            self._attempts.pop(delivery.position.offset, None)

    def note_attempts(self, delivery: Delivery, attempts: int) -> None:
        """Handling a message has failed so often: the mark tells."""
        position = delivery.position.offset
        if delivery.token == self._incarnation and position in self._in_flight:
            if attempts:
                self._attempts[position] = attempts
            else:
                self._attempts.pop(position, None)

    def _pull_again(self) -> None:
        self._pull_pending = False
        self._pull()

    def _acknowledge(self, reply: bytes) -> None:
        if self._session is not None:
            self._session.write(b"PUB %b 0\r\n\r\n" % reply)

    def _give_back(self, reply: bytes) -> None:
        if self._session is not None:
            self._session.write(b"PUB %b 4\r\n-NAK\r\n" % reply)

    def _keep_alive(self) -> None:
        """Say of everything in flight that it is in progress; look whether the server is."""
        session = self._session
        if session is not None and not session.lost.is_set():
            for known in self._in_flight.values():
                session.write(b"PUB %b 4\r\n+WPI\r\n" % known.reply)
            silent = self._loop.time() - self._heard
            if self._asked and silent > 3 * HEARTBEAT:
                self._heard = self._loop.time()
                self._go_back("the server has sent no heartbeat for this consumer")
        self._timer = self._loop.call_later(
            min(self.request.ack_wait / 3, HEARTBEAT), self._keep_alive
        )

    # Suspects

    async def _look_at_record(self, session: Session, mark: Watermark) -> Suspects:
        """Read how the last owner has ended, and store that there is another one."""
        base = mark.frontier + 1
        if self._settled_before and self._settled_before[0][0] <= base:
            base = self._settled_before[0][1] + 1
        limit = self.request.max_deliveries
        if limit is None:
            return Suspects(limit, self.request.max_in_flight)
        record = await self._served.record(session)
        text = record.removeprefix(f"{self._origin} ")  # else it is of a consumer that was removed
        suspects = Suspects(limit, self.request.max_in_flight, text, base)
        await self._served.keep_record(session, f"{self._origin} {suspects.text()}")
        return suspects

    def begin(self, delivery: Delivery, stored: Callable[[], None]) -> None:
        """A suspect is about to be handled: `stored` is called when that is stored."""
        if self._suspects is not None and self._suspects.begin(delivery.position.offset):
            self._start(self._store_record, stored)
        else:
            stored()

    async def _store_record(self, stored: Callable[[], None]) -> None:
        assert self._suspects is not None
        while not self._stopped:
            session = self._session
            try:
                if session is not None:
                    await self._served.keep_record(
                        session, f"{self._origin} {self._suspects.text()}"
                    )
                    stored()
                    return
            except (ApiError, NoAnswer, NoResponders, SessionLost) as error:
                logger.debug("%s: storing what is begun: %s", self.name, error)
            await asyncio.sleep(0.25)

    async def end(self) -> None:
        """Nothing of it runs any more: tell the next owner that nobody has died."""
        session = self._session
        if session is None or self._suspects is None or self.request.max_deliveries is None:
            return
        try:
            await self._served.keep_record(
                session, f"{self._origin} {self._suspects.text(owned=False)}"
            )
        except (ApiError, NoAnswer, NoResponders, SessionLost) as error:
            logger.debug("%s: storing that it has ended: %s", self.name, error)

    # The mark

    def mark_text(self) -> str:
        """What is settled, for the next owner."""
        mark = self._mark
        if mark is None:
            return "" if self._claim is None else self._claim.mark
        base = mark.frontier + 1
        runs: list[tuple[int, int]] = []
        highest = mark.highest
        before = [(max(first, highest + 1), last) for first, last in self._settled_before]
        for first, last in (*mark.runs(), *(run for run in before if run[0] <= run[1])):
            if runs and first == runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], last)
            elif not runs and first <= base:
                base = last + 1
            else:
                runs.append((first, last))
        attempts = tuple(sorted(pair for pair in self._attempts.items() if pair[0] >= base))
        return f"{self._origin} {encode(Mark(base, tuple(runs), attempts), MARK_SIZE)}"

    def known(self) -> tuple[str, ...]:
        """Marks that say what this process has settled here, now or before."""
        if self._mark is None:
            return () if self._claim is None else self._claim.known
        return (self.mark_text(),)

    def _read_marks(self, floor: int) -> list[tuple[int, int]]:
        """The runs beyond the floor that were settled before this time of owning the partition,
        and the attempts of what is not."""
        claim = self._claim
        marks = () if claim is None else (*claim.known, claim.mark)
        return joined([run for mark in marks for run in self._read_mark(mark, floor)])

    def _read_mark(self, mark: str, floor: int) -> list[tuple[int, int]]:
        """The same by one mark. What was settled below its own base counts, too: a server that was
        killed has forgotten its latest acknowledgements, and not the mark."""
        origin, _, text = mark.partition(" ")
        base = text.split(":")[1] if text.count(":") > 1 else ""
        found = decode(text, int(base)) if base.isdecimal() else None
        if found is None or origin != self._origin:
            return []  # there is none, or somebody has removed the consumer, to read again
        self._attempts |= {at: failed for at, failed in found.attempts if at > floor}
        runs = [(floor + 1, found.base - 1), *found.runs]
        return [(max(first, floor + 1), last) for first, last in runs if last > floor]

    # The end

    def stop(self) -> None:
        """Ask for nothing more; what still comes goes back."""
        self._stopped = True

    async def close(self) -> None:
        """Stop, give back what is not settled, and wait until the server has heard it all."""
        self.stop()
        session = self._session
        try:
            if session is None or session.lost.is_set():
                return
            inbox, self._inbox = self._inbox, None
            if inbox is not None:
                await session.drain(inbox, CLOSE_WAIT)
            if self.request.group is None:
                await self._served.remove(session, CLOSE_WAIT)
            elif not self._ordered:
                for known in self._in_flight.values():
                    self._give_back(known.reply)
            await session.ping(CLOSE_WAIT)
        except ApiError as error:
            logger.debug("closing %s: %s", self.name, error)
        except (SessionLost, NoAnswer, NoResponders) as error:
            logger.debug("closing %s: %s", self.name, error)
        finally:
            self.abandon()

    async def release(self) -> None:
        """Read no more. What is on its way is for the next owner."""
        session, inbox = self._session, self._inbox
        self._inbox = None
        self.abandon()
        if session is not None and inbox is not None:
            await session.unsubscribe(inbox)

    def abandon(self) -> None:
        """It is closed, whatever the server has heard."""
        self._generation += 1
        self._stopped = True
        self._in_flight.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
