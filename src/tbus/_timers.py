"""One task that runs callbacks at their time, for the whole bus."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from ._runtime import OneShot, Runtime


class Timer:
    """One callback to come. `cancel` makes it do nothing."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Timers:
    """A heap of timers and the task that waits for the next one.

    The task is idle, without a deadline, when there is no timer.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._sooner: OneShot | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Run `callback` at `when` on the runtime's clock, in the timers' task. It must
        neither block nor raise."""
        timer = Timer(callback)
        heappush(self._heap, (when, next(self._order), timer))
        if self._sooner is not None and self._heap[0][2] is timer:
            self._sooner.set()
        return timer

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """The same after `delay` seconds."""
        return self.call_at(self._runtime.clock() + delay, callback)

    async def run(self) -> None:
        """Run the callbacks until cancelled."""
        while True:
            now = self._runtime.clock()
            while self._heap and self._heap[0][0] <= now:
                timer = heappop(self._heap)[2]
                if timer.callback is not None:
                    timer.callback()
            self._sooner = self._runtime.one_shot()
            with self._runtime.open_scope() as scope:
                if self._heap:
                    scope.deadline = self._heap[0][0]
                await self._sooner.wait()
            self._sooner = None
