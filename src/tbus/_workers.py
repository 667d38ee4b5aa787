"""The workers of a bus: tasks that run handlers, made when there is something to handle.

The laws:

1. At most `limit` workers for the whole bus, however many subscriptions and keys there
   are; none while there is nothing to handle.
2. A worker is added only when those there are wait in their handlers: handlers that
   never wait need one.
3. Subscriptions with work take turns, message by message.
4. A worker gives the loop to others when it has run for a millisecond.
5. Where Trio is too busy to wake more handlers in time, no more are begun (`_crowd`).
6. What a handler raises is its subscription's business; what tbus itself raises here
   ends the bus.
7. A handler that is cancelled from outside has not failed: its message is given back.
   One that is cancelled by its own deadline has.

Cancel scopes are dear (8 us for one and a checkpoint, 2 us to move a deadline), so a
worker keeps one scope for as long as it can, and moves its deadline when more than a hundredth of
the handler's time has passed, or a tenth of a second: its time may be that much short.

(A long file: the pool and its workers share their state message by message.)
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Protocol

from ._crowd import Crowd
from ._dispatch import Lane
from ._gathering import Bundle
from ._runtime import Nursery, OneShot, Runtime, Scope
from ._shield import Shields, current_handling
from ._timers import Timers

logger = logging.getLogger("tbus")

SLICE = 0.001
"""Seconds a worker runs before it gives the loop to others."""

SLICE_MESSAGES = 256
"""The same in messages, for clocks that stand still (virtual time)."""

DEADLINE_SLACK = 0.01
"""The part of its time by which a handler's deadline may be early."""

LEAST_SLACK, MOST_SLACK = 0.0005, 0.1
"""The same in seconds, at least and at most."""


class Doomed(Exception):  # never leaves the bus
    """Stands for the failure of a message whose handler is not to run again."""


class Work(Protocol):
    """What workers take from: a dispatcher of messages, or of lists of them."""

    limit: int
    running: int

    @property
    def ready(self) -> int:
        """How much could be taken now, were there no limit."""

    def take(self) -> Lane[Any] | None:
        """A lane whose head is to be handled now, or None."""


class Graves(Protocol):
    """What is not to be handled any more, by the heads of lanes."""

    def __len__(self) -> int: ...
    def __contains__(self, head: object, /) -> bool: ...


class Source(Protocol):
    """A subscription, as the workers see it. The head of a lane is a `Message`, or a `Bundle`
    where the handler takes lists."""

    @property
    def dispatcher(self) -> Work:
        """What its lanes are taken from."""

    timeout: float
    queued: bool
    """The pool's: whether the source is in its round."""

    handle: Callable[[Any], Awaitable[object]]
    """The handler."""

    doomed: Graves
    """Heads for which the handler is not to run again: they only wait to be dead-lettered."""

    @property
    def done(self) -> Callable[[Lane[Any]], None]:
        """To be called when the handler has returned for the lane's head."""

    async def failed(self, lane: Lane[Any], error: Exception) -> None:
        """The handler raised, or ran out of time (`TimeoutError`). Finishes or holds the
        lane."""

    def interrupted(self, lane: Lane[Any]) -> None:
        """The handler, or `failed`, was cancelled from outside. Holds the lane."""


class WorkerPool:
    """Runs the heads of ready lanes in workers inside `nursery`, at most `limit`.

    Args:
        timers: for the limits of shielded blocks.
        grace: seconds that these hold against a cancellation.
    """

    def __init__(
        self,
        runtime: Runtime,
        nursery: Nursery,
        limit: int,
        timers: Timers | None = None,
        grace: float = 0.0,
    ) -> None:
        self.limit = limit
        self.grace = grace
        self.timers = Timers(runtime) if timers is None else timers
        self.peak = 0
        self._runtime = runtime
        self._nursery = nursery
        self._workers: set[_Worker] = set()
        self._round: deque[Source] = deque()
        self._parked: dict[_Worker, OneShot] = {}  # at least one more is not
        self._starting = 0
        self._resting = 0
        self._burst = 1
        self._crowd = Crowd(is_wanted=runtime.name == "trio")
        self.begun = 0
        """Handlers begun so far, by all workers."""
        self.progressed: float | None = None
        """When a handler has ended well last."""

    def __len__(self) -> int:
        """Workers there are now."""
        return len(self._workers)

    def offer(self, source: Source) -> None:
        """A subscription has something ready. Never blocks."""
        self.enqueue(source)
        if not self._starting and not self._resting and not self._crowd.is_on:
            self._call_worker()

    def enqueue(self, source: Source) -> None:
        """The same, from within a worker, which goes on with it itself."""
        if not source.queued:
            source.queued = True
            self._round.append(source)

    def withdraw(self, source: Source) -> None:
        """Begin nothing more of a subscription; what runs goes on."""
        if source.queued:
            source.queued = False
            self._round.remove(source)

    def evict(
        self,
        source: Source,
        wanted: Callable[[Any], bool] | None = None,
        until: float | None = None,
    ) -> int:
        """Cancel the handlers of a subscription, all or those of some heads: not a failure.
        Shielded blocks hold until the clock says `until` (default: for the grace period).
        Returns how many."""
        if until is None:
            until = self._runtime.clock() + self.grace
        evicted = [
            w
            for w in self._workers
            if w.source is source and w.lane is not None and (wanted is None or wanted(w.lane.head))
        ]
        for worker in evicted:
            worker.evict(until)
        return len(evicted)

    def has_shielded(self, source: Source) -> bool:
        """Whether handlers of a subscription are in shielded blocks."""
        return any(bool(w.shields) for w in self._workers if w.source is source)

    def is_inside(self) -> bool:
        """Whether the caller is a handler of this pool, or was started by one."""
        handling = current_handling.get()
        return isinstance(handling, _Worker) and handling.pool is self

    def running(self) -> list[tuple[str, float]]:
        """Topic and clock time of the beginning, of every handler that runs now."""
        return [(w.topic, w.since) for w in self._workers if w.lane is not None]

    def _call_worker(self) -> None:
        """One more worker: one that is parked, or else a new one."""
        if self._parked:
            _, called = self._parked.popitem()  # whoever came last
            self._starting += 1
            called.set()
        elif len(self._workers) < self.limit:
            worker = _Worker(self, self._runtime)
            self._workers.add(worker)
            self._starting += 1
            self.peak = max(self.peak, len(self._workers))
            self._nursery.start_soon(self._work, worker, name="tbus worker")

    def _count_more(self, most: int) -> int:
        """How many handlers could be begun now, as far as that is less than `most`."""
        count = 0
        for source in self._round:
            work = source.dispatcher
            count += max(0, min(work.ready, work.limit - work.running))
            if count >= most:
                return most
        return count

    def _has_more(self) -> bool:
        for source in self._round:
            work = source.dispatcher
            if work.ready and work.running < work.limit:
                return True
        return False

    async def _work(self, worker: _Worker) -> None:
        current_handling.set(worker)
        started = False
        try:
            await self._runtime.checkpoint_if_cancelled()
            self._starting -= 1
            started = True
            if self._is_needed() or await self._wait_called(worker):
                while await worker.run():
                    pass
        finally:
            if not started:
                self._starting -= 1
            self._workers.discard(worker)

    def _is_needed(self) -> bool:
        """Whether there is something for a worker that has begun; it brings others along."""
        # One that rests comes back for what is ready.
        if self._resting or not self._has_more():
            self._burst = 1
            return False
        if self._crowd.is_on:
            return True
        # Whoever was here before waits in a handler: so will this one, probably.
        # Doubling reaches the limit in a few passes of the loop. Those that are starting are
        # enough for as many messages: each is there for one, this one too.
        for _ in range(self._count_more(self._starting + self._burst) - self._starting - 1):
            self._call_worker()
        self._burst = min(self._burst * 2, 32)
        return True

    async def _look(self, worker: _Worker) -> bool:
        """Many handlers have waited and ended: see whether there are too many at once, and wait
        if so. False: the worker is to end."""
        crowd = self._crowd
        if not crowd.begin():
            return await self._wait_called(worker)
        worker.scope.deadline = inf
        try:
            while True:
                await self._runtime.checkpoint()
                if not crowd.is_on:
                    return True
                calls = crowd.count_pass()
                more = self._count_more(calls) if calls else 0
                for _ in range(more):
                    self._call_worker()
                if more < calls or (not self._parked and len(self._workers) >= self.limit):
                    return True
        finally:
            crowd.end()

    async def _wait_called(self, worker: _Worker) -> bool:
        """Park a worker that has found nothing until there is something. False: it is to end, with
        all others, for none of them has anything."""
        while len(self._workers) - len(self._parked) > 1:
            self._parked[worker] = called = self._runtime.parking()
            try:
                await called.wait()
            finally:
                if self._parked.pop(worker, None) is not None:
                    worker.spare = True  # cut by the deadline of its last handler
                elif worker in self._workers:
                    self._starting -= 1
            if worker not in self._workers:
                return False
            await self._runtime.checkpoint_if_cancelled()
            if self._is_needed():
                return True
        for other, called in self._parked.items():
            self._workers.discard(other)  # no more are to be counted, though they have to end yet
            other.spare = True  # also one that its deadline cuts in this very pass
            called.set()
        self._parked.clear()
        return False


class _Worker:
    """One worker: the loop that takes a message, handles it and settles it."""

    def __init__(self, pool: WorkerPool, runtime: Runtime) -> None:
        self.source: Source | None = None
        self.lane: Lane[Any] | None = None
        self.scope: Scope
        self.evicted = False
        self.until = inf
        """Until when the shielded blocks of an evicted handler hold."""
        self.shields: Shields | None = None
        self.since = 0.0
        self.spare = False
        """It is to end: nobody has called it for as long as a handler may take, or all do."""
        self.pool = pool
        self._runtime = runtime

    @property
    def topic(self) -> str:
        return "" if self.lane is None else str(self.lane.head.topic)

    async def run(self) -> bool:
        """Handle until nothing is ready (then False), a handler has failed, or the scope
        is spent (then True: run again)."""
        failure: Exception | None = None
        more = True
        self.evicted = False
        self.until = inf
        self.scope = self._runtime.open_scope()
        try:
            try:
                with self.scope:
                    more = await self._handle_ready()
            except Exception as error:
                if self.lane is None:
                    raise  # not a handler's: a defect of ours
                failure = error
            except BaseExceptionGroup as group:
                raise self._without_errors(group) from None
            if failure is not None and self.evicted:
                self._log_beside(failure)  # it stands where the cancellation was
            if self.lane is None or self.evicted:
                return more and not self.spare
            assert self.source is not None
            await self._see_if_cancelled(failure)
            if failure is None:
                failure = TimeoutError(f"the handler ran longer than {self.source.timeout} s")
            await self.source.failed(self.lane, failure)
            self.lane = None
            return True
        finally:
            if self.lane is not None:
                assert self.source is not None
                self.source.interrupted(self.lane)
                self.lane = None

    async def _see_if_cancelled(self, failure: Exception | None) -> None:
        """A bus that is cancelled from outside evicts nobody: what a handler then raises stands
        where its cancellation was, and is no failure."""
        try:
            await self._runtime.checkpoint_if_cancelled()
        except BaseException:
            if failure is not None and type(failure) is not Doomed:
                self._log_beside(failure)
            raise

    async def _handle_ready(self) -> bool:
        pool = self.pool
        clock = self._runtime.clock
        scope = self.scope
        workers, limit = pool._workers, pool.limit
        round_, parked, crowd = pool._round, pool._parked, pool._crowd
        slice_start = now = clock()
        timed_until, timeout, deadline = -inf, inf, inf
        count = 0
        while True:
            while round_:
                source = round_[0]
                lane = source.dispatcher.take()
                if lane is None:
                    round_.popleft()
                    source.queued = False
                    continue
                if len(round_) > 1:
                    round_.rotate(-1)
                if (
                    not pool._starting
                    and not pool._resting
                    and not crowd.is_on
                    and (parked or len(workers) < limit)
                    and pool._has_more()
                ):
                    pool._call_worker()
                if now > timed_until or source.timeout != timeout:
                    timeout = source.timeout
                    timed_until = now + min(max(timeout * DEADLINE_SLACK, LEAST_SLACK), MOST_SLACK)
                    scope.deadline = deadline = now + timeout
                self.source = source
                self.since = now
                self.lane = lane
                message = lane.head
                if source.doomed and message in source.doomed:
                    raise Doomed
                pool.begun = begun = pool.begun + 1
                await source.handle(message)
                self.lane = None
                source.done(lane)
                if not source.queued and source.dispatcher.ready:
                    pool.enqueue(source)
                pool.progressed = now = clock()
                if now >= deadline or self.evicted:
                    return True  # a handler that went on after it was cancelled
                if begun != pool.begun:  # others ran meanwhile: the loop was theirs
                    slice_start = now
                    count = 0
                    crowd.ended = ended = crowd.ended + 1
                    if ended >= crowd.look_at:
                        lane = message = None  # not to be held while it waits
                        if not await pool._look(self):
                            return False
                        slice_start = now = clock()
                        timed_until = -inf
                count += 1
                if now - slice_start > SLICE or count >= SLICE_MESSAGES:
                    scope.deadline = inf
                    pool._resting += 1
                    try:
                        await self._runtime.checkpoint()
                    finally:
                        pool._resting -= 1
                    slice_start = now = clock()
                    timed_until = -inf
                    count = 0
            lane = message = None  # not to be held while it waits
            if not await pool._wait_called(self):
                return False
            slice_start = now = clock()
            count = 0

    # Shielded blocks

    def evict(self, until: float) -> None:
        """Cancel the handler that runs; its shielded blocks hold until then."""
        self.evicted = True
        self.until = min(self.until, until)
        self.scope.cancel()
        if self.shields:
            self.shields.hold_until(until)

    def handles(self, message: object) -> bool:
        """Whether this is what runs now, or in the list that does."""
        if self.lane is None:
            return False
        head = self.lane.head
        return head is message or (isinstance(head, Bundle) and message in head.messages)

    def open_shields(self) -> Shields:
        """The blocks of the handler that runs now."""
        if not self.shields:
            limit = min(self.scope.deadline + self.pool.grace, self.until)
            self.shields = Shields(self.pool.timers.call_at, self._runtime.clock, limit)
        assert self.shields is not None
        return self.shields

    def open_scope(self) -> Scope:
        """A new cancel scope."""
        return self._runtime.open_scope()

    async def checkpoint_if_cancelled(self) -> None:
        """A checkpoint where there is a cancellation to deliver."""
        await self._runtime.checkpoint_if_cancelled()

    def _without_errors(self, group: BaseExceptionGroup[BaseException]) -> BaseException:
        """A handler that is cancelled may raise beside the cancellation; its message comes
        again, so that is told to the log alone."""
        cancelled, errors = group.split(self._runtime.cancelled)
        if cancelled is None or self.lane is None:
            return group
        if errors is not None:
            self._log_beside(errors)
        return cancelled

    def _log_beside(self, error: BaseException) -> None:
        logger.warning(
            "a handler of topic %r raised while it was cancelled", self.topic, exc_info=error
        )
