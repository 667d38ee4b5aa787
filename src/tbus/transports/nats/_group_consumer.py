"""A topic's partitions that this process reads for a group. Lives in the clients' loop.

One `Consumer` for each partition that is owned, for as long as it is owned; the `Membership` says
which those are. The laws:

1. **Nothing without the lease.** Of what is settled for a partition that is not owned now, or was
   settled for an earlier time of owning it, the server hears nothing.
2. **Hand-over**: the program begins nothing more, what runs may end within `DRAIN_WAIT` and is
   settled; then the partition is let go, and with it goes the mark of what is settled.
3. **What was lost**: what runs of it is cancelled, and it is not had again before nothing of it
   runs any more. What was completed all the same is remembered: if this process is the next owner,
   it does not repeat it.
4. **Credit** is shared evenly among the partitions owned; each has room for one message at least.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from ..._errors import TbusError, TransportLost
from ..._events import Event, MembersChanged, PartitionsAssigned, PartitionsRevoked
from ..._message import Delivery
from ..._ownership import Drain, Drop, Take
from ..._transport import FeedRequest
from ._alarms import Alarms
from ._claim import Claim
from ._consumer import CLOSE_WAIT, Consumer
from ._errors import ApiError, NoAnswer, NoResponders, SessionLost, not_possible
from ._membership import Membership, clock
from ._names import consumer_name
from ._served import ServedConsumer, check_order
from ._session import Session
from ._streams import Streams

logger = logging.getLogger("tbus.nats")

DRAIN_WAIT = 10.0
"""Seconds that running handlers have to end when a partition is handed over."""


class GroupConsumer:
    """Reads one topic for one group, together with other processes.

    Args:
        tell: hands deliveries to the program: `tell(batch)`.
        fail: says that nothing can be read any more: `fail(error)`.
        drain: asks the program to let what runs of a partition end:
            `drain(self, partition, epoch)`.
        lose: tells it that a partition is gone, and asks the same.
        own: tells it that deliveries of a partition come from now on: `own(partition, epoch)`.
    """

    def __init__(
        self,
        request: FeedRequest,
        streams: Streams,
        alarms: Alarms,
        *,
        start: Callable[..., None],
        emit: Callable[[Event], None],
        tell: Callable[[list[Delivery]], None],
        fail: Callable[[TbusError], None],
        drain: Callable[[GroupConsumer, int, int], None],
        lose: Callable[[GroupConsumer, int, int], None],
        own: Callable[[int, int], None],
    ) -> None:
        assert request.group is not None
        self.request = request
        self._group = request.group
        self._streams = streams
        self._alarms = alarms
        self._start = start
        self._emit = emit
        self._tell = tell
        self._fail = fail
        self._drain = drain
        self._lose = lose
        self._own = own
        self._batch: list[Delivery] = []
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._served: list[ServedConsumer] = []
        self._shares: dict[int, Consumer] = {}
        self._drains: dict[int, asyncio.TimerHandle] = {}
        self._lost: dict[tuple[int, int], Consumer] = {}
        """What was lost and still runs, by partition and epoch."""
        self._former: dict[int, Consumer] = {}
        """What this process had last of each partition, for what it knows to be settled."""
        self._stopped = False
        self._closing = False
        """The program has ended all its handlers."""
        self.membership: Membership

    # From opening to closing

    async def open(self, session: Session) -> None:
        """Make or find the consumers of all partitions, and become a member of the group.

        Raises:
            TbusError: the server would not have it.
        """
        topic = self.request.topic
        check_order(session, self.request)
        try:
            await self._streams.ensure(session, topic)
            partitions = self._streams.partitions(topic)
            self.membership = Membership(
                topic,
                self._group,
                partitions,
                self._streams.options,
                self._alarms,
                start=self._start,
                perform=self._perform,
                shares=self._marks,
                meet=self._tell_members,
                fail=self._fail,
            )
            for number in range(partitions):
                name = consumer_name(self._group, None if partitions == 1 else number)
                served = ServedConsumer(
                    self.request,
                    name,
                    self._streams,
                    self._emit,
                    partition=number,
                    bucket=self.membership.bucket,
                )
                # What is published from now on is handed over, whoever owns it.
                await served.find_or_make(session, None)
                self._served.append(served)
            self._session = session
            await self.membership.join(session)
        except ApiError as error:
            raise not_possible(f"cannot read topic {topic!r}", error) from error
        except (SessionLost, NoAnswer, NoResponders) as error:
            raise TransportLost(f"cannot read topic {topic!r}: {error}") from error

    def attach_again(self, session: Session, reason: str) -> None:
        """There is another connection."""
        self._session = session
        self._start(self._attach_again, session, reason)

    async def _attach_again(self, session: Session, reason: str) -> None:
        await self.membership.attach_again(session)
        if session is self._session:
            for share in tuple(self._shares.values()):
                share.attach_again(session, reason)

    def detach(self) -> None:
        """The connection is gone."""
        self._session = None
        self.membership.detach()
        for share in self._shares.values():
            share.detach()

    def stop(self) -> None:
        """Ask for nothing more, and begin to give the partitions away: each goes to others as
        soon as nothing of it runs."""
        if self._stopped:
            return
        self._stopped = True
        for share in self._shares.values():
            share.stop()
        self.membership.begin_to_leave()

    async def close(self) -> None:
        """Give every partition away, and wait until the group knows it."""
        self.stop()
        self._closing = True
        for number, share in tuple(self._shares.items()):
            self.drained(number, share.epoch)
        for number, epoch in tuple(self._lost):
            self.drained(number, epoch)
        session = self._session
        try:
            if session is not None and not session.lost.is_set():
                async with asyncio.timeout(CLOSE_WAIT):
                    await self.membership.leave()
                await session.ping(CLOSE_WAIT)
        except (TimeoutError, SessionLost, NoAnswer) as error:
            logger.debug("leaving group %s: %s", self._group, error)
        finally:
            self.abandon()
            await self.membership.close()

    def abandon(self) -> None:
        """It is closed, whatever the server has heard."""
        self._stopped = True
        if hasattr(self, "membership"):
            self.membership.end()
        for timer in self._drains.values():
            timer.cancel()
        self._drains.clear()
        for share in self._shares.values():
            share.abandon()
        self._shares.clear()

    # Settling

    def settle(self, deliveries: list[Delivery]) -> None:
        """Messages were handled."""
        # What is settled here is sent at the end of this pass of the loop: one look is enough.
        covered = clock() < self.membership.lease.until
        for (number, epoch), some in _by_share(deliveries).items():
            share = self._shares.get(number)
            if share is None or share.epoch != epoch:
                share = self._lost.get((number, epoch))
            elif covered:
                share.settle(some)
                continue
            if share is not None:
                share.remember(some)

    def give_back(self, deliveries: list[Delivery]) -> None:
        """Messages are for whoever reads for the group next."""
        if clock() < self.membership.lease.until:
            for (number, epoch), some in _by_share(deliveries).items():
                share = self._shares.get(number)
                if share is not None and share.epoch == epoch:
                    share.give_back(some)

    def note_attempts(self, delivery: Delivery, attempts: int) -> None:
        """Handling a message has failed so often."""
        share = self._shares.get(delivery.position.partition)
        if share is not None and share.epoch == delivery.epoch:
            share.note_attempts(delivery, attempts)

    def begin(self, delivery: Delivery, stored: Callable[[], None]) -> None:
        """A suspect is about to be handled: `stored` is called when that is stored."""
        share = self._shares.get(delivery.position.partition)
        if share is not None and share.epoch == delivery.epoch:
            share.begin(delivery, stored)

    def lapsed(self, partitions: dict[int, int]) -> None:
        """The program found that the lease has run out before this loop did, and has forgotten
        these partitions: they must be had anew."""
        for number, epoch in partitions.items():
            self.membership.lost(number, epoch, "the process was suspended for too long")

    # What the membership decides

    def _perform(self, effects: list[Take | Drain | Drop]) -> None:
        for effect in effects:
            if isinstance(effect, Take):
                self._take(effect)
            elif isinstance(effect, Drain):
                self._begin_drain(effect)
            else:
                self._drop(effect)
        self._share_credit()
        for epoch in sorted({e.epoch for e in effects if isinstance(e, Take)}):
            self._tell_of(effects, Take, epoch)
        lost = tuple(e.partition for e in effects if isinstance(e, Drop))
        if lost:
            self._emit(PartitionsRevoked(self.request.topic, self._group, lost, lost=True))

    def _tell_members(self, members: tuple[str, ...]) -> None:
        own = self.membership.member.id
        self._emit(MembersChanged(self.request.topic, self._group, members, own))

    def _tell_of(self, effects: list[Take | Drain | Drop], kind: type, epoch: int) -> None:
        numbers = tuple(e.partition for e in effects if isinstance(e, kind) and e.epoch == epoch)
        self._emit(PartitionsAssigned(self.request.topic, self._group, numbers, epoch))

    def _take(self, take: Take) -> None:
        number, epoch = take.partition, take.epoch
        former = self._former.get(number)
        share = Consumer(
            self.request,
            self._served[number],
            self._streams,
            self._alarms,
            start=self._start,
            emit=self._emit,
            tell=self._tell_together,
            fail=self._fail,
            claim=Claim(
                number,
                epoch,
                take.mark,
                self.membership,
                () if former is None else former.known(),
            ),
        )
        self._shares[number] = self._former[number] = share
        self._own(number, epoch)
        if self._stopped:
            share.stop()
        elif self._session is not None:
            share.attach_again(self._session, None)

    def _tell_together(self, batch: list[Delivery]) -> None:
        """Hand over what has come from all partitions in one pass of the loop as one batch."""
        if len(self._shares) == 1 and not self._batch:
            self._tell(batch)
            return
        if not self._batch:
            self._loop.call_soon(self._tell_batch)
        self._batch += batch

    def _tell_batch(self) -> None:
        batch, self._batch = self._batch, []
        self._tell(batch)

    def _begin_drain(self, drain: Drain) -> None:
        number, epoch = drain.partition, drain.epoch
        self._shares[number].stop()
        if self._closing:
            self.drained(number, epoch)  # the program has ended its handlers already
            return
        if not self._stopped:  # else it is the bus that ends what runs too long
            self._drains[number] = self._loop.call_later(DRAIN_WAIT, self._end_drain, number, epoch)
        self._drain(self, number, epoch)

    def _end_drain(self, number: int, epoch: int) -> None:
        logger.warning(
            "group %s: handlers of topic %s still ran %s s after partition %d was to be handed"
            " over: they are cancelled",
            self._group, self.request.topic, DRAIN_WAIT, number,
        )  # fmt: skip
        self._lose(self, number, epoch)

    def _drop(self, drop: Drop) -> None:
        number, epoch = drop.partition, drop.epoch
        logger.debug("%s of %s: %s", number, self.request.topic, drop.reason)
        share = self._shares.pop(number, None)
        if share is None:
            return  # it was being let go: that goes on
        self._end_patience(number)
        self._lost[number, epoch] = share
        self._start(share.release)
        if self._closing:
            self.drained(number, epoch)
        else:
            self._lose(self, number, epoch)

    def _end_patience(self, number: int) -> None:
        timer = self._drains.pop(number, None)
        if timer is not None:
            timer.cancel()

    def drained(self, number: int, epoch: int) -> None:
        """The program says that nothing of a partition runs any more. More often than once is
        no harm."""
        lost = self._lost.pop((number, epoch), None)
        if lost is not None:
            self.membership.drained(number, epoch, lost.mark_text())
            return
        share = self._shares.get(number)
        if share is None or share.epoch != epoch:
            return
        del self._shares[number]
        self._end_patience(number)
        self._start(self._let_go, share, number, share.mark_text())

    async def _let_go(self, share: Consumer, number: int, mark: str) -> None:
        await share.end()
        await share.release()
        self.membership.drained(number, share.epoch, mark)
        self._emit(PartitionsRevoked(self.request.topic, self._group, (number,)))
        self._share_credit()

    def _share_credit(self) -> None:
        parts = max(1, len(self._shares))
        for share in self._shares.values():
            share.set_credit(
                max(1, self.request.max_in_flight // parts),
                max(1, self.request.max_in_flight_bytes // parts),
            )

    def _marks(self) -> Iterator[tuple[int, int, str]]:
        for number, share in self._shares.items():
            yield number, share.epoch, share.mark_text()


def _by_share(deliveries: list[Delivery]) -> dict[tuple[int, int], list[Delivery]]:
    """By partition and epoch."""
    found: dict[tuple[int, int], list[Delivery]] = {}
    for delivery in deliveries:
        found.setdefault((delivery.position.partition, delivery.epoch), []).append(delivery)
    return found
