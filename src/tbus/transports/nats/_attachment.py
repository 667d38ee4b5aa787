"""How a consumer keeps hold of the server: found or made, claimed, set back, and pulled from.

The laws:

1. **Order.** Whoever needs the broker's order goes back, whenever anything may have been
   lost on its way, to the first message that is not settled: the server's `CONSUMER.RESET`
   makes it deliver everything after the ack floor again, in order. Otherwise what was lost
   would come after `ack_wait`, behind newer messages (seen: 1 2 3 7 8 9 4 5 6).
2. **A consumer or stream that was removed is an error**, unless the server lost it with its
   memory: then it is made again.
3. **Claimed.** A consumer of a group with order is read under a `Claim`, for one time of owning
   its partition; where the server says that somebody else has the consumer, the claim is lost.
4. Of two attempts to attach the later one counts; the other finds that out after each wait.

What the server keeps of it, and how that is made and found, is in `_served`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..._errors import MessagesLost, SubscriptionFailed, TbusError, TransportLost
from ..._events import Event, FeedReset
from ..._transport import FeedRequest
from ._claim import Claim, Taken
from ._errors import (
    CONSUMER_NOT_FOUND,
    FULL,
    MESSAGE_NOT_FOUND,
    STREAM_NOT_FOUND,
    ApiError,
    NoAnswer,
    NoResponders,
    SessionLost,
    not_possible,
)
from ._in_flight import InFlight
from ._progress import Progress
from ._pulls import Pulls, Take
from ._record import Record
from ._served import ORIGIN, ServedConsumer, check_order, priority_group
from ._session import Session
from ._streams import Config, Streams

logger = logging.getLogger("tbus.nats")

RESETS = 20
RESETS_WITHIN = 10.0
"""More resets than this, within so many seconds, on one connection, are nobody's accident."""


class Attachment:
    """A consumer's hold on the server.

    Args:
        request: of the feed.
        served: the server's side.
        streams: where its topic is looked up.
        start: starts a task in the loop's nursery.
        emit: tells the program of an event.
        fail: says that the consumer cannot go on: `fail(error)`.
        take: called for each message that comes.
        on_attached: called when messages come from now on.
        claim: what it is read under, or None: it needs none.

    Attributes:
        session: the connection that it has, or is being attached to.
        pulls: what is asked for there.
        progress: how far the group has come.
        in_flight: what was handed over and is not settled.
        record: of the owner, where there is a claim.
        stopped: nothing more is asked for.
    """

    __slots__ = (
        "_claim",
        "_emit",
        "_fail",
        "_on_attached",
        "_ordered",
        "_request",
        "_resets",
        "_served",
        "_start",
        "_streams",
        "_take",
        "in_flight",
        "progress",
        "pulls",
        "record",
        "session",
        "stopped",
    )

    def __init__(
        self,
        request: FeedRequest,
        served: ServedConsumer,
        streams: Streams,
        *,
        start: Callable[..., None],
        emit: Callable[[Event], None],
        fail: Callable[[TbusError], None],
        take: Take,
        on_attached: Callable[[], None],
        claim: Claim | None,
    ) -> None:
        self._request = request
        self._served = served
        self._streams = streams
        self._start = start
        self._emit = emit
        self._fail = fail
        self._take = take
        self._on_attached = on_attached
        self._claim = claim
        self._ordered = request.order != "none"
        self._resets: list[float] = []
        self.session: Session | None = None
        self.pulls: Pulls | None = None
        self.in_flight = InFlight(request.max_in_flight, request.max_in_flight_bytes)
        self.stopped = False
        self.record: Record | None = None
        if claim is None:
            self.progress = Progress(ordered=self._ordered)
        else:
            self.progress = Progress(ordered=self._ordered, mark=claim.mark, known=claim.known)
            self.record = Record(request, served, self.progress, lambda: self.session)

    # From the first connection to the last

    async def open(self, session: Session) -> None:
        """Attach for the first time.

        Raises:
            TbusError: the server would not have it.
        """
        topic = self._request.topic
        check_order(session, self._request)
        try:
            await self._attach(session, None)
        except ApiError as error:
            raise not_possible(f"cannot read topic {topic!r}", error) from error
        except (SessionLost, NoAnswer, NoResponders) as error:
            raise TransportLost(f"cannot read topic {topic!r}: {error}") from error

    def attach_again(self, session: Session, reason: str | None) -> None:
        """Go on from the first message that is not settled; None: begin."""
        if not self.stopped:
            self._start(self._try_to_attach, session, reason)

    def detach(self) -> None:
        """The connection is gone."""
        self.session = None
        pulls, self.pulls = self.pulls, None
        if pulls is not None:
            pulls.deafen()

    def stop(self) -> None:
        """Ask for nothing more."""
        self.stopped = True
        if self.pulls is not None:
            self.pulls.stop()
        if self.record is not None:
            self.record.stop()

    # Attaching

    async def _try_to_attach(self, session: Session, reason: str | None) -> None:
        if self.stopped:
            return
        try:
            await self._attach(session, reason)
        except Taken as taken:
            if not self.stopped:
                self.lose(str(taken))
        except SessionLost:
            pass  # attached again when there is a connection
        except (NoAnswer, NoResponders) as error:
            # JetStream may not be ready yet; a link that is really dead ends the session.
            await self._attach_soon(session, reason, error)
        except ApiError as error:
            if error.err_code in (*FULL, CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                # There is no room now; or it went just now, and the next look tells how.
                await self._attach_soon(session, reason, error)
            else:
                self._fail_if_owner(
                    not_possible(f"cannot go on reading {self._request.topic!r}", error)
                )
        except TbusError as error:
            self._fail_if_owner(error)

    async def _attach_soon(self, session: Session, reason: str | None, error: Exception) -> None:
        if session is not self.session and self.session is not None:
            return
        logger.debug("attaching to %s: %s", self._served.path, error)
        await asyncio.sleep(0.25)
        if not session.lost.is_set():
            self.attach_again(session, reason)

    def _fail_if_owner(self, error: TbusError) -> None:
        # An owner finds no consumer while the next one makes it again.
        if self._claim is None or self._claim.owns():
            self._fail(error)

    async def _attach(self, session: Session, reason: str | None) -> None:
        claim, progress = self._claim, self.progress
        pulls = Pulls(
            session,
            self._served.path,
            None if claim is None else priority_group(claim.epoch),
            self.in_flight,
            ordered=self._ordered,
            take=self._take,
            puller=self,
        )
        before, self.pulls = self.pulls, pulls
        self.session = session
        if before is not None:
            await before.end()
        info, is_new = await self._served.find_or_make(session, progress.frontier)
        is_first = not progress.has_begun
        if is_new:
            self._begin_stream()
        if claim is not None:
            info = await self._be_owner(claim, session, info, is_first or is_new)
        pending = info["num_ack_pending"] or info["num_redelivered"]
        if self._ordered and (reason is not None or pending):
            if claim is not None and not claim.owns():
                raise Taken("the lease has run out")
            info = await self._served.reset(session, info)
            if reason is not None:
                self._emit(FeedReset(self._request.topic, self._request.group, reason))
        if pulls is not self.pulls:
            return  # attached or detached again meanwhile
        progress.origin = info["config"].get("metadata", {}).get(ORIGIN, "")
        progress.gapless = self._is_gapless()
        if not progress.has_begun:
            progress.begin(info["delivered"]["stream_seq"])
        if self.record is not None and not self.record.is_known:
            await self.record.read(session)
            if pulls is not self.pulls:
                return
        await pulls.begin(info["delivered"]["consumer_seq"] + 1)
        if not self.stopped:
            pulls.pull()
            self._on_attached()

    async def _be_owner(self, claim: Claim, session: Session, info: Config, is_new: bool) -> Config:
        """Claim the consumer, or see that it is still claimed."""
        if not claim.owns():
            raise Taken("the lease has run out")
        if is_new:
            return await self._served.claim(session, info, claim.epoch)
        if not self._served.is_claimed(info, claim.epoch):
            raise Taken("another process has claimed the consumer")
        return info

    def _begin_stream(self) -> None:
        """The stream is another one: nothing of the old one is in flight any more."""
        self.progress.begin_stream()
        self.in_flight.clear()
        if self.record is not None:
            self.record.forget()

    def _is_gapless(self) -> bool:
        """Whether every position of the stream is one of its own."""
        return (
            self._ordered
            and self._streams.is_own
            and (self._claim is None or self._served.partitions == 1)
        )

    # What the pulls meet

    def go_back(self, reason: str, delay: float = 0.0) -> None:
        """Something is missing: attach again. What comes meanwhile is not looked at."""
        session = self.session
        if self.pulls is not None:
            self.pulls.deafen()
        if session is None or self.stopped:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._resets = [when for when in self._resets if now - when < RESETS_WITHIN] + [now]
        if len(self._resets) > RESETS:
            self._fail(
                SubscriptionFailed(
                    f"group {self._request.group!r} of topic {self._request.topic!r} lost its place"
                    f" {RESETS} times within {RESETS_WITHIN} s ({reason}): does another program"
                    f" read from its consumer {self._served.path!r}?"
                )
            )
            return
        if delay:
            loop.call_later(delay, self._back, session, reason)
        else:
            self._back(session, reason)

    def _back(self, session: Session, reason: str) -> None:
        if session is self.session and not session.lost.is_set():
            self.attach_again(session, reason)

    def look_into_gap(self, last: int) -> None:
        """What comes next, up to this one, did not come."""
        if self.pulls is not None:
            self.pulls.deafen()  # what comes meanwhile comes again
        if self.session is not None:
            self._start(self._look_into_gap, self.session, self.progress.next, last)

    async def _look_into_gap(self, session: Session, first: int, last: int) -> None:
        """Retention took them, or the group has settled them. Set back, the server may still be
        taking in acknowledgements of an earlier time of owning the partition, and begin behind the
        floor that it has told."""
        topic = self._request.topic
        incarnation = self.progress.incarnation
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
            self.progress.skip(incarnation, last)
        self.go_back(f"messages {first} to {last} were acknowledged already")

    def lose(self, reason: str) -> None:
        """Somebody else has the consumer."""
        if self._claim is not None:
            self._claim.lose(reason)

    def fail(self, error: TbusError) -> None:
        """The consumer cannot go on."""
        self._fail(error)
