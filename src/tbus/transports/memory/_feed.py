"""A feed: one member of a group, with somebody who waits for its messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..._errors import ConsumerGone, MessagesLost
from ..._events import RetentionTook
from ..._message import Delivery
from ..._runtime import OneShot, Runtime
from ..._timers import Timers
from ..._transport import Emit, EndOfFeed, FeedRequest, Reader
from ._group import Member
from ._topic_store import TopicStore

_BATCH = 256
"""Deliveries handed over at once, at most: some 100 us of work before others may run."""


class MemoryFeed:
    """Deliveries of one topic for one group."""

    def __init__(
        self,
        request: FeedRequest,
        topic: TopicStore,
        runtime: Runtime,
        timers: Timers,
        emit: Emit,
        on_close: Callable[[MemoryFeed], None],
    ) -> None:
        self.request = request
        self.delay = 0.0  # seconds that a message takes to come
        self._topic = topic
        self._runtime = runtime
        self._timers = timers
        self._emit = emit
        self._on_close = on_close
        self._sleeper: OneShot | None = None
        self._is_closed = False
        self._group = topic.open_group(request)
        self.member = Member(
            self._group,
            request,
            emit,
            wake=self._wake,
            later=timers.call_later,
        )
        self._group.join(self.member)
        self.settle = self.member.settle
        """Say how a delivery ended. What is not this feed's any more is ignored."""

    async def receive(self) -> Sequence[Delivery]:
        """Wait for the next deliveries. Cancelled, it has taken none.

        Raises:
            EndOfFeed: `stop` or `aclose` was called.
            ConsumerGone: the topic or the group was removed.
            MessagesLost: retention took messages that the group had not read. Raised once;
                called again, the feed goes on behind them.
        """
        await self._runtime.checkpoint()
        member = self.member
        while True:
            batch = self._take()
            if batch:
                return batch
            sleeper = self._sleeper = self._runtime.one_shot()
            member.is_waiting = member.is_asking = True
            try:
                await sleeper.wait()
            except BaseException:
                if not member.is_waiting and member.group.is_shared:
                    member.group.wake_one()  # woken for a message that another may take
                raise
            finally:
                member.is_waiting = member.is_asking = False
                self._sleeper = None

    def read_by(self, reader: Reader) -> None:
        """Nothing to tell: a partition goes when nothing of it is in flight."""

    def begin(self, delivery: Delivery, begun: Callable[[], None]) -> None:  # noqa: ARG002 - the contract's signature
        """Nothing is suspect here: who dies takes the broker along."""
        begun()

    def note_attempts(self, delivery: Delivery, attempts: int) -> None:
        """Keep how often handling a delivery has failed."""
        self.member.note_attempts(delivery, attempts)

    def stop(self) -> None:
        """Ask for nothing more."""
        self.member.stop()
        self._wake()

    async def aclose(self) -> None:
        """Stop and give back what is not settled. Nothing here has to be waited for."""
        self.close()
        await self._runtime.checkpoint()

    def close(self) -> None:
        """The same at once."""
        if self._is_closed:
            return
        self._is_closed = True
        self.member.leave()
        if self._group.name is None:
            self._topic.close_group(self._group)
        self._wake()
        self._on_close(self)

    def _take(self) -> list[Delivery]:
        member = self.member
        if member.is_stopped:
            raise EndOfFeed
        if not member.is_linked:
            return []
        topic = self._topic
        if topic.is_gone or self._group.is_gone:
            what = "topic" if topic.is_gone else f"group {self.request.group!r} of topic"
            raise ConsumerGone(f"{what} {topic.name!r} was removed; subscribe again")
        now = self._runtime.clock()
        topic.expire_if_due(now)
        loss = member.find_loss()
        if loss is not None:
            self._emit(RetentionTook(topic.name, self.request.group, loss.first, loss.last))
            raise MessagesLost(topic.name, loss.first, loss.last)
        if not self.delay:
            return member.read(_BATCH, math.inf)
        # A microsecond of slack: a sum and difference of floats need not be what they were.
        batch = member.read(_BATCH, topic.wall_time(now - self.delay) + 1e-6)
        if not batch and member.has_more():
            self._timers.call_later(self.delay, self._wake)
        return batch

    def _wake(self) -> None:
        self.member.is_waiting = False
        if self._sleeper is not None:
            self._sleeper.set()

    # --- its connection ---

    def cut(self) -> None:
        """Break the connection."""
        self.member.cut()

    def resume(self) -> bool:
        """Mend it; False if it was whole."""
        if self.member.is_linked or self._is_closed:
            return False
        self.member.relink()
        return True

    def look_again(self) -> None:
        """Something has changed in what there is to take."""
        if self.member.is_waiting:
            self._wake()
