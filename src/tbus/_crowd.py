"""Whether more handlers run at once than the event loop can wake in time.

Where the loop is busy, handlers that have waited stand in line for its next pass. More of them
handle nothing faster: each takes a task's memory and makes the pass longer for everybody. And
Trio makes fifteen objects for each timer that has run out before it wakes the first task, so
more than 46 of them in a pass set off Python's garbage collector in each: a sixth of the time
with 256 handlers that sleep for 2 ms, a third with 1024.

The laws:

1. A worker looks now and then: it gives the loop to others for a pass. Loops take their tasks in
   any order, so what happens meanwhile is of a pass or two, or of none.
2. It is crowded when `CROWD` handlers that had waited end meanwhile. Whoever ends beyond that
   begins nothing more until it is called.
3. While it is crowded the one that looks goes on with it, pass by pass. If in `PASSES` of them
   fewer than `FEW` end in each, on average, one worker is called. If less than a quarter of that
   ends, the loop is not busy: twice as many are called each time, so that all run after some
   dozens of passes.
4. It is over when nothing more may be begun, by the limits or for want of messages.

Pure: no clock, no I/O, no event loop.
"""

from __future__ import annotations

from math import inf

CROWD = 80
"""Handlers that end in a pass or two and are too many: half of them are fewer than 46."""

PASSES, FEW = 8, 28

LOOK_EVERY = 128
"""Handlers that have waited and ended from one look to the next: a pass costs as much as a third of
one of them."""

MOST_CALLS = 32
"""Workers that are called at once."""


class Crowd:
    """What is known of a pool of workers.

    Args:
        is_wanted: whether anybody is to look. On asyncio nobody is: its timers make nothing when
            they run out, and what is parked and called there costs more than it gains.

    Attributes:
        ended: handlers that have waited and ended well, so far.
        look_at: with how many of them a worker is to look, or (somebody does) to wait.
        is_on: whether workers wait because there are too many.
    """

    __slots__ = ("_calls", "_first", "_looking", "_passes", "ended", "is_on", "look_at")

    def __init__(self, is_wanted: bool = True) -> None:
        self.ended = 0
        self.look_at: float = LOOK_EVERY if is_wanted else inf
        self.is_on = False
        self._looking = False
        self._first = 0
        self._passes = 0
        self._calls = 0

    def begin(self) -> bool:
        """A worker begins to look. False: somebody does: there are too many, and it is to wait."""
        if self._looking:
            self.is_on = True
            return False
        self._looking = True
        self._passes = self._calls = 0
        self._first = self.ended
        self.look_at = self.ended + CROWD
        return True

    def count_pass(self) -> int:
        """It had its turn again: how many workers it is to call now."""
        self.look_at = self.ended + CROWD
        self._passes += 1
        if self._passes < PASSES:
            return 0
        ended = self.ended - self._first
        self._first = self.ended
        self._passes = 0
        if ended >= FEW * PASSES // 4:
            self._calls = 1 if ended < FEW * PASSES else 0
        else:
            self._calls = min(max(self._calls * 2, 1), MOST_CALLS)
        return self._calls

    def end(self) -> None:
        """Nobody looks any more, and nobody is to wait."""
        self.is_on = self._looking = False
        self.look_at = self.ended + LOOK_EVERY
