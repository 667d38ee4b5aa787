"""The two ends of a pass of an event loop: before it waits for I/O, and after.

The bridge hooks in there, on both sides: at the end of a pass it wakes the other side, once
and only if that one sleeps; after the wait it takes what has crossed, so that a crossing into a
busy loop is there in the very next pass.

While busy, a side also rests now and then (law 5 of the bridge). A wait that slept has let the
other side in; a poll that found something to do at once has not.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable

import trio

REST = 20e-6
"""Seconds that a busy side really sleeps, to let the other one in."""

Waits = Callable[[bool], bool]
"""Called with whether the loop is about to sleep; returns whether something has crossed."""


class PassSelector(selectors.DefaultSelector):
    """For asyncio: a selector that tells the ends of each pass.

    Args:
        waits: called before the wait.
        woke: called after it.
        rest_every: seconds a busy loop works before it rests.
    """

    def __init__(self, waits: Waits, woke: Callable[[], None], rest_every: float) -> None:
        super().__init__()
        self._waits = waits
        self._woke = woke
        self._rest_every = rest_every
        self._rested = time.perf_counter()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        sleeps = timeout is None or timeout > 0
        if self._waits(sleeps) and sleeps:
            sleeps, timeout = False, 0
        before = time.perf_counter()
        if not sleeps and before - self._rested >= self._rest_every:
            time.sleep(REST)
            self._rested = time.perf_counter()
        events = super().select(timeout)
        if sleeps:
            now = time.perf_counter()
            if now - before > REST:
                self._rested = now
        self._woke()
        return events


class PassInstrument(trio.abc.Instrument):
    """For Trio: an instrument that tells the ends of each pass.

    Args:
        waits: called before the wait.
        woke: called after it.
        stay: called when Trio is about to sleep although something has crossed: wakes it.
        rest_every: seconds a busy loop works before it rests.
    """

    def __init__(
        self,
        waits: Waits,
        woke: Callable[[], None],
        stay: Callable[[], None],
        rest_every: float,
    ) -> None:
        self._waits = waits
        self._woke = woke
        self._stay = stay
        self._rest_every = rest_every
        self._rested = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        now = time.perf_counter()
        if self._waits(timeout > 0) and timeout > 0:
            self._stay()
        if timeout > 0:
            self._rested = now
        elif now - self._rested >= self._rest_every:
            time.sleep(REST)
            self._rested = time.perf_counter()

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - Trio's signature
        self._woke()
