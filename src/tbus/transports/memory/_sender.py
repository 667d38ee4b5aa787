"""The way of an event to the broker and of its outcome back, with what can go wrong on it.

While nothing is wrong (`is_plain`) there is no way at all: the transport stores an event, and
tells its outcome, in the call that sends it. Otherwise it waits here, in the order of the calls.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from enum import Enum

import attrs

from ..._errors import OutcomeUnknown, PublishRefused, TbusError, TransportLost
from ..._message import Receipt
from ..._runtime import OneShot, Runtime
from ..._timers import Timer, Timers
from ..._transport import Outgoing

Answer = Receipt | TbusError


class Link(Enum):
    """How the transport's connection is."""

    UP = "up"
    SILENT = "silent"
    """The broker takes what is sent and says nothing."""

    DOWN = "down"
    """Nothing can be sent."""

    CLOSED = "closed"


@attrs.define(eq=False)
class _Waiting:
    outgoing: Outgoing
    was_sent: bool
    timer: Timer | None = None


class Sender:
    """Takes events in order, and tells each its outcome once.

    Attributes:
        is_plain: nothing is wrong.
        delay: seconds that an answer takes.
        refused_until: publishes that come before this time are refused.
        answers_to_lose: so many outcomes get lost.
        stores_unanswered: whether the broker stores those events.
    """

    def __init__(
        self, store: Callable[[Outgoing], Answer], runtime: Runtime, timers: Timers
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._timers = timers
        self._link = Link.UP
        self._open: dict[_Waiting, None] = {}  # no outcome yet, in the order of the calls
        self._on_the_way: deque[_Waiting] = deque()  # the broker has not taken it
        self._flushed: list[OneShot] = []
        self.is_plain = True
        self.delay = 0.0
        self.refused_until = -math.inf
        self.answers_to_lose = 0
        self.stores_unanswered = True

    def send(self, outgoing: Outgoing) -> None:
        """Store an event while something is wrong, or let it wait for that to pass."""
        if self._link is Link.CLOSED:
            outgoing.on_outcome(outgoing, _never_sent(outgoing))
            return
        waiting = _Waiting(outgoing, self._link is not Link.DOWN)
        self._open[waiting] = None
        waiting.timer = self._timers.call_later(outgoing.timeout, lambda: self._give_up(waiting))
        if self._link is Link.UP:
            self._arrive(waiting)
        else:
            self._on_the_way.append(waiting)

    def faults_changed(self) -> None:
        """To be called when a fault was set or ended."""
        self.is_plain = (
            self._link is Link.UP
            and not self.delay
            and not self.answers_to_lose
            and self._runtime.clock() >= self.refused_until
        )

    def set_link(self, link: Link) -> None:
        """Send what waits if the connection is back."""
        if self._link is Link.CLOSED:
            return
        self._link = link
        self.faults_changed()
        if link is not Link.UP:
            return
        while self._on_the_way:
            waiting = self._on_the_way.popleft()
            if waiting.was_sent:
                self._arrive(waiting)  # even if nobody waits any more
            elif waiting in self._open:
                if waiting.outgoing.withdrawn:
                    self._finish(waiting, _never_sent(waiting.outgoing))
                else:
                    waiting.was_sent = True
                    self._arrive(waiting)

    def abandon(self) -> None:
        """Give every event that has no outcome the one that is true now."""
        for waiting in list(self._open):
            self._give_up(waiting)

    async def flush(self) -> None:
        """Wait until every event taken has its outcome."""
        await self._runtime.checkpoint()
        while self._open:
            event = self._runtime.one_shot()
            self._flushed.append(event)
            await event.wait()

    def close(self) -> None:
        """Take nothing more."""
        self.set_link(Link.CLOSED)
        self.abandon()
        self._on_the_way.clear()

    def _arrive(self, waiting: _Waiting) -> None:
        outgoing = waiting.outgoing
        answer: Answer
        if self._runtime.clock() < self.refused_until:
            answer = PublishRefused(
                f"the memory broker was told to refuse publishes to topic {outgoing.topic!r}"
            )
        elif self.answers_to_lose:
            self.answers_to_lose -= 1
            if self.stores_unanswered:
                self._store(outgoing)
            return
        else:
            answer = self._store(outgoing)
        if self.delay:
            self._timers.call_later(self.delay, lambda: self._finish(waiting, answer))
        else:
            self._finish(waiting, answer)
        self.faults_changed()

    def _give_up(self, waiting: _Waiting) -> None:
        outgoing = waiting.outgoing
        if waiting.was_sent:
            unknown = (
                f"no answer came for event {outgoing.id} to topic {outgoing.topic!r}:"
                " it may be stored, or not; publish it again with the same id"
            )
            self._finish(waiting, OutcomeUnknown(unknown, event_id=outgoing.id))
        else:
            self._finish(waiting, _never_sent(outgoing))

    def _finish(self, waiting: _Waiting, answer: Answer) -> None:
        if waiting not in self._open:
            return
        del self._open[waiting]
        if waiting.timer is not None:
            waiting.timer.cancel()
        waiting.outgoing.on_outcome(waiting.outgoing, answer)
        if not self._open:
            for event in self._flushed:
                event.set()
            self._flushed.clear()


def _never_sent(outgoing: Outgoing) -> TransportLost:
    return TransportLost(
        f"event {outgoing.id} to topic {outgoing.topic!r} was not sent: the memory broker could"
        " not be reached in time; it may be sent again"
    )
