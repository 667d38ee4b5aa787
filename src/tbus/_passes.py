"""The two ends of a pass of an event loop: before it waits for I/O, and after.

The bridge hooks in there, on both sides: at the end of a pass it wakes the other side, once
and only if that one sleeps; after the wait it takes what has crossed, so that a crossing into a
busy loop is there in the very next pass.

While busy, a side also rests now and then (law 5 of the bridge). A wait that slept has let the
other side in; a poll that found something to do at once has not. So a busy program on Trio wakes
the clients' loop no sooner than when it rests: without the interpreter, that one would wake for
nothing, and be in the way. The clients' loop does not wait so long: its passes are short, and
receipts are waited for.
"""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Callable

import trio

REST = 20e-6
"""Seconds that a busy side really sleeps, to let the other one in."""

Waits = Callable[[bool], bool]
"""Wakes the other side. Called with whether the loop is about to sleep; returns whether something
has crossed."""


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
        before = time.perf_counter()
        rests = before - self._rested >= self._rest_every
        if self._waits(sleeps) and sleeps:
            sleeps, timeout = False, 0
        if rests and not sleeps:
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
        rest_every: seconds a busy loop works before it rests; infinite where both sides can work
            at once.
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
        self._one_at_a_time = rest_every < math.inf
        self._rested = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        now = time.perf_counter()
        sleeps = timeout > 0
        rests = now - self._rested >= self._rest_every
        if (sleeps or rests or not self._one_at_a_time) and self._waits(sleeps) and sleeps:
            self._stay()
        if sleeps:
            self._rested = now
        elif rests:
            time.sleep(REST)
            self._rested = time.perf_counter()

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - Trio's signature
        self._woke()
