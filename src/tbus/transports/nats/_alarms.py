"""One timer of the loop for all that a process keeps alive on NATS. Lives in the clients' loop.

Every idle topic has heartbeats of its own. With a timer each, which is set anew with every question
and every answer, setting cost as much as what was done when it rang, and whatever rings at a moment
of its own wakes the thread. Here a moment is a tick, which many have in common.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil, inf

TICK = 0.01
"""Seconds: an alarm rings at the first multiple that is not too early."""

FAR_TICKS = 5
"""Of them from one alarm that is far away to the next: what is due then is sent, and answered,
together."""

FAR = 0.5
"""Seconds from which on an alarm is far enough away to come 50 ms late. Three ways to the server
fit between a heartbeat and the end of its lease."""


class Alarms:
    """Calls many functions, each at its time, in no tick twice. None of them may block."""

    __slots__ = ("_loop", "_next", "_rung", "_set", "_ticks", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._set: dict[Callable[[], object], int] = {}
        self._ticks: dict[int, dict[Callable[[], object], None]] = {}
        """What rings, by the tick; no tick without anything."""
        self._next: float = inf
        """The tick that the timer is set to."""
        self._rung = 0
        """The last tick that rang, or is ringing: the loop must go on in between."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._set)

    def set(self, wake: Callable[[], object], delay: float) -> None:
        """Have a function called once, so many seconds from now, instead of when it was to be
        called until now."""
        tick = ceil((self._loop.time() + delay) / TICK)
        if delay > FAR:
            tick += -tick % FAR_TICKS
        tick = max(tick, self._rung + 1)
        before = self._set.get(wake)
        if before == tick:
            return
        self._set[wake] = tick
        self._ticks.setdefault(tick, {})[wake] = None
        if tick < self._next:
            self._arm(tick)
        if before is not None:
            self._take_out(wake, before)

    def cancel(self, wake: Callable[[], object]) -> None:
        """A function is not to be called any more."""
        tick = self._set.pop(wake, None)
        if tick is not None:
            self._take_out(wake, tick)

    def _take_out(self, wake: Callable[[], object], tick: int) -> None:
        those = self._ticks[tick]
        del those[wake]
        if not those:
            del self._ticks[tick]
            if tick == self._next:
                self._arm(min(self._ticks, default=inf))

    def _arm(self, tick: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._next = tick
        if tick < inf:
            self._timer = self._loop.call_at(tick * TICK, self._ring)

    def _ring(self) -> None:
        now = self._rung = int(max(self._next, self._loop.time() // TICK))
        self._timer = None
        self._next = -inf  # until all of these have been called, whatever they set
        try:
            while (tick := min(self._ticks, default=inf)) <= now:
                wake = next(iter(self._ticks[int(tick)]))
                self.cancel(wake)
                wake()
        finally:
            self._arm(min(self._ticks, default=inf))
