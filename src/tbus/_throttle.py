"""Where a rate makes something wait: callers of a publisher, and keys of a subscription.

Callers wait in a row, first come, first served. Only the first of them waits for the clock,
and takes its token at the moment it goes; so one that is cancelled, wherever it stands,
has taken nothing, and nobody behind it waits any longer for it.

Keys do not wait at all: while there is no token, none of them is ready, and a timer makes
them ready again. No worker is held by that, and other subscriptions flow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from ._dispatch import KeyedDispatcher, Lane
from ._errors import BusClosed
from ._pace import Pace
from ._runtime import OneShot, Runtime
from ._timers import Timer, Timers

T = TypeVar("T")


class Turnstile:
    """Lets callers through at a pace, in the order in which they came."""

    def __init__(self, pace: Pace, runtime: Runtime) -> None:
        self.pace = pace
        self._runtime = runtime
        self._row: deque[OneShot] = deque()
        self._alarm: OneShot | None = None
        self._closed = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._row)

    async def wait(self) -> None:
        """Wait for one's turn. Cancelled, nothing was taken.

        Raises:
            BusClosed: nobody is let through any more.
        """
        # A checkpoint comes before a token is taken, and none between that and the return.
        await self._runtime.checkpoint_if_cancelled()
        if not self._row and not self._closed and self.pace.take(self._runtime.clock()) is None:
            return
        turn = self._runtime.one_shot()
        row = self._row
        row.append(turn)
        try:
            if row[0] is not turn:
                await turn.wait()
            await self._wait_first()
        finally:
            if row[0] is turn:
                row.popleft()
                if row:
                    row[0].set()
            else:
                row.remove(turn)

    async def _wait_first(self) -> None:
        runtime = self._runtime
        while True:
            if self._closed:
                raise BusClosed("the bus ended while this waited for its turn: it was not sent")
            when = self.pace.take(runtime.clock())
            if when is None:
                return
            alarm = self._alarm = runtime.one_shot()
            with runtime.open_scope() as scope:
                scope.deadline = when
                await alarm.wait()

    def close(self) -> None:
        """Let nobody through any more; who waits is told."""
        self._closed = True
        if self._row:
            self._row[0].set()
        if self._alarm is not None:
            self._alarm.set()


class PacedDispatcher(KeyedDispatcher[T]):
    """A dispatcher of which nothing is ready while the pace does not allow it.

    Args:
        limit: how many lanes may be running at once.
        pace: what each taking is counted by.
        on_ready: called when something is ready again.
    """

    __slots__ = ("_clock", "_on_ready", "_pace", "_pause", "_timers")

    def __init__(
        self,
        limit: int,
        pace: Pace,
        clock: Callable[[], float],
        timers: Timers,
        on_ready: Callable[[], None],
    ) -> None:
        super().__init__(limit)
        self._pace = pace
        self._clock = clock
        self._timers = timers
        self._on_ready = on_ready
        self._pause: Timer | None = None

    @property
    def ready(self) -> int:
        """How many lanes could be taken now, were there no limit; none during a pause."""
        return 0 if self._pause is not None else len(self._ready)

    def peek(self) -> T | None:
        """The head that would be taken next; None: nothing is ready, or there is a pause."""
        return None if self._pause is not None else super().peek()

    def take(self) -> Lane[T] | None:
        """The lane whose head is to be handled now, or None."""
        if self._pause is not None or not self._ready or self.running >= self.limit:
            return None
        when = self._pace.take(self._clock())
        if when is not None:
            self._pause = self._timers.call_at(when, self._go_on)
            return None
        return super().take()

    def _go_on(self) -> None:
        self._pause = None
        if self._ready:
            self._on_ready()
