"""One asyncio loop in one thread, both owned by the bus, and the crossings to and from it.

The broker clients are asyncio programs. They live in this loop whatever the program's own
loop is. Its laws:

1. **Owned.** The thread is started and joined inside `open_bridge`. When that block is
   left, the loop is closed and the thread is gone, whatever the clients' tasks do: first
   they are cancelled, and those that do not end in time have the loop stopped under them.
2. **Coalesced.** A crossing is an append to a deque. The other side is woken once per pass of
   this side's loop, at its end, and only if it sleeps; in each pass it takes everything that is
   there, in bounded helpings. One crossing at a time costs some 100 us; a thousand at once
   cost one wake.
3. **In order.** What `submit` takes runs in the loop in order; the same for `post`.
4. **Never silent.** An exception in a crossed call, or in a task of the loop's nursery, ends
   the bridge: `wait_failed` raises it in the program, and `open_bridge` what has come too late
   for that. If another exception leaves the block, it goes into the log instead; so does
   what a task raises because it is cancelled, at the end or because another one has failed.
5. **Fair.** While a loop is busy it polls its selector without waiting, which gives the
   interpreter away and takes it back before the other thread has woken: measured, the
   other side then waits for seconds. So each side, while busy, really sleeps for some
   20 us every 2.5 ms. (`sys.setswitchinterval` does not help: the forced switch starts
   anew at every poll.) A free-threaded interpreter needs none of it, and nothing but
   speed depends on it.

Cancelling a `call` in the program abandons it: the loop is asked to cancel its task, and
nobody waits for that; the task stays in the loop's nursery, which ends with the bridge.

(A long file: both sides of a crossing stand on the same few fields. The loop itself is in
`_owned_loop`, its passes in `_passes`.)
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import trio
from anyio.abc import TaskGroup

from ._errors import BusClosed, TbusError
from ._owned_loop import OwnedLoop
from ._passes import PassInstrument, PassSelector
from ._runtime import OneShot, Runtime, current_runtime

T = TypeVar("T")

logger = logging.getLogger("tbus.bridge")

REST_EVERY = 0.0025
"""Seconds a busy side works before it lets the other one in."""

HELPING = 512
"""Crossed calls that are run before the loop gets to do something else."""

CANCEL_WAIT = 0.3
"""Seconds that the clients' tasks have to end when they are cancelled at the end."""


class _Call:
    """An async function that the program called in the loop."""

    __slots__ = ("abandoned", "answered", "done", "error", "result", "scope")

    def __init__(self, done: OneShot) -> None:
        self.done = done
        self.result: Any = None
        self.error: BaseException | None = None
        self.scope: anyio.CancelScope | None = None
        self.abandoned = False
        self.answered = False

    def answer(self) -> None:
        """In the program's thread: the result, or the error, is there."""
        self.answered = True
        self.done.set()


class Bridge:
    """The way into the loop (`submit`, `call`) and out of it (`post`)."""

    def __init__(self, runtime: Runtime, *, fair: bool = True) -> None:
        self.runtime = runtime
        self.loop: OwnedLoop
        self.nursery: TaskGroup
        """The loop's own nursery, for the loop's thread alone: what is started there ends
        with the bridge."""
        free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()
        self._rest_every = REST_EVERY if fair and not free_threaded else math.inf
        self._inbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._outbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._loop_woken = False
        self._loop_sleeps = False
        # asyncio tells nobody when it sleeps: there every wake is needed.
        self._program_sleeps = runtime.name != "trio"
        # Trio tells the end of a pass (see PassInstrument); on asyncio a callback is it.
        self._schedule_wake = (
            None if runtime.name == "trio" else asyncio.get_running_loop().call_soon
        )
        self._wake_scheduled = False
        self._outbox_woken = False
        self._calls: set[_Call] = set()
        self.at_end: list[Callable[[], object]] = []
        """Called in the program's thread when the loop has ended, behind all that it has told: what
        was submitted in its last moments may never have run."""
        self._ready = runtime.one_shot()
        self._failed = runtime.one_shot()
        self._finished = runtime.one_shot()
        self.ended = False
        """The loop has ended: nothing crosses any more."""
        self._stopping: asyncio.Event | None = None
        self._stop_asked = False
        self._served = False
        """The loop went on until it was asked to end: what its nursery raises, and no task has
        told by itself, comes of that."""
        self._stopped = False
        """It is being stopped under a task."""
        self._begun = False
        # Crossed calls run in the context of the loop's main task, for anyio knows by it
        # which loop it is in.
        self._context: contextvars.Context
        self._failure: BaseException | None = None
        self._told = False
        """It was raised in the program."""
        self._thread = threading.Thread(target=self._run_loop, name="tbus loop", daemon=True)

    # In the program's thread

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Run a function in the loop, soon and in order. Never blocks.

        Raises:
            BusClosed: the loop has ended.
        """
        if self.ended:
            raise BusClosed("the bus has ended, and its connection with it")
        self._inbox.append((function, args))
        if self._schedule_wake is not None and not self._wake_scheduled:
            self._wake_scheduled = True
            self._schedule_wake(self._wake_loop)

    def submit_if_open(self, function: Callable[..., object], *args: Any) -> bool:
        """The same, for what need not be told to a loop that has ended; whether it was."""
        if not self.ended:
            self.submit(function, *args)
        return not self.ended

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run an async function in the loop and wait for what it returns or raises.

        Cancelled, it leaves at once; the function is cancelled in the loop, and what it
        still returns or raises is dropped.
        """
        call = _Call(self.runtime.one_shot())
        self.submit(self._begin_call, call, function, args)
        self._calls.add(call)
        try:
            await call.done.wait()
        except BaseException:
            call.abandoned = True
            if not self.ended:
                self.submit(self._cancel_call, call)
            raise
        finally:
            self._calls.discard(call)
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    async def wait_failed(self) -> None:
        """Wait until the bridge has failed, and raise why. For a task of the bus."""
        await self._failed.wait()
        self._raise_failure()

    def tasks(self) -> list[str]:
        """The tasks of the loop, by name; a moment's view, taken from outside the loop."""
        return sorted(task.get_name() for task in asyncio.all_tasks(self.loop))

    def threads(self) -> list[str]:
        """The names of the threads that the bridge holds now."""
        return [self._thread.name, *self.loop.lookups.names()]

    def _wake_loop(self) -> None:
        """At the end of a pass of the program's loop."""
        self._wake_scheduled = False
        if self._inbox and self._loop_sleeps and not self._loop_woken and not self.ended:
            self._loop_woken = True
            try:
                self.loop.call_soon_threadsafe(self._loop_is_awake)
            except RuntimeError:  # closed, and the program has not heard of it yet
                pass

    def _program_waits(self, sleeps: bool) -> bool:
        self._wake_loop()
        # In this order: whoever posts looks at the second after the first.
        self._program_sleeps = sleeps
        return bool(self._outbox)

    def _program_woke(self) -> None:
        self._program_sleeps = False
        if self._outbox:
            self._drain_outbox()

    def _stay_awake(self) -> None:
        self.runtime.run_soon(self._drain_outbox)

    def _drain_outbox(self) -> None:
        self._outbox_woken = False
        self._run_posted()
        if self._outbox and not self._outbox_woken:
            self._outbox_woken = True
            self.runtime.run_soon(self._drain_outbox)

    def _run_posted(self) -> None:
        """One helping of what the loop has posted."""
        outbox = self._outbox
        for _ in range(HELPING):
            if not outbox:
                return
            function, args = outbox.popleft()
            try:
                function(*args)
            except Exception as error:  # noqa: BLE001 - raised in the program
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self._failed.set()

    async def _start(self) -> None:
        self._thread.start()
        await self._ready.wait()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._told = True
            raise self._failure

    async def _end(self) -> None:
        """Cancel what is in the loop, then stop it under whatever is left, then join."""
        if not self._thread.is_alive() and not self._begun:
            return  # it could not be started
        stubborn = not await self._ends_within(CANCEL_WAIT, self._stop_serving)
        while stubborn:
            # The loop's own shutdown runs the loop again, and a stubborn task holds that
            # one as well: stop it until it is closed.
            logger.warning("a client's task does not end when cancelled: stopping its loop")
            self._stopped = True
            stubborn = not await self._ends_within(0.05, self.loop.stop)
        self._thread.join()
        self.ended = True
        self._outbox.extend((function, ()) for function in self.at_end)
        while self._outbox:  # nobody comes to it behind this
            self._run_posted()
        if self._begun:
            self.loop.lookups.join(0.1)
        for call in [call for call in self._calls if not call.answered]:
            call.error = BusClosed("the bus ended before this call was answered")
            call.done.set()

    async def _ends_within(self, seconds: float, ask: Callable[[], None]) -> bool:
        """Ask the loop to end; whether its thread has done so in time."""
        try:
            if self._begun:
                self.loop.call_soon_threadsafe(ask)
        except RuntimeError:  # it is closed: that is what is wanted
            pass
        with self.runtime.open_scope() as scope:
            scope.deadline = self.runtime.clock() + seconds
            await self._finished.wait()
        return not scope.cancelled_caught

    # In the loop's thread

    def start(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a task in the loop's nursery."""
        self.nursery.start_soon(self._run_task, function, args, name=f"tbus {function.__name__}")

    async def _run_task(self, function: Callable[..., Awaitable[object]], args: Any) -> None:
        try:
            try:
                await function(*args)
            except asyncio.CancelledError as error:
                if self._is_ending():
                    raise
                # Let through, it would end every other task here, and nobody would be told.
                told = f"a client has cancelled {function!r}, unasked"
                raise RuntimeError(told) from error  # noqa: ASYNC104 - see above
        except Exception as error:
            # Told from here: the nursery tells it when all its tasks have ended, which one
            # that swallows its cancellation never does.
            if not self.nursery.cancel_scope.cancel_called:
                self.post(self._fail, error)
            raise

    def _is_ending(self) -> bool:
        """In the loop's thread: whether its tasks are cancelled."""
        return self._stop_asked or self.nursery.cancel_scope.cancel_called

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Run a function in the program's thread, soon and in order. Never blocks."""
        self._outbox.append((function, args))

    def _wake_program(self) -> None:
        """At the end of a pass of the clients' loop."""
        if self._outbox and self._program_sleeps and not self._outbox_woken:
            self._outbox_woken = True
            self.runtime.run_soon(self._drain_outbox)

    def _loop_waits(self, sleeps: bool) -> bool:
        self._wake_program()
        # In this order: whoever submits looks at the second after the first.
        self._loop_sleeps = sleeps
        return bool(self._inbox)

    def _loop_woke(self) -> None:
        self._loop_sleeps = False
        if self._inbox:
            self._context.run(self._drain_inbox)

    def _loop_is_awake(self) -> None:
        self._loop_woken = False

    def _drain_inbox(self) -> None:
        inbox = self._inbox
        for _ in range(HELPING):
            if not inbox:
                return
            function, args = inbox.popleft()
            try:
                function(*args)
            except Exception as error:  # noqa: BLE001 - raised in the program
                self.post(self._fail, error)

    def _begin_call(
        self, call: _Call, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]
    ) -> None:
        if not call.abandoned:
            self.nursery.start_soon(self._run_call, call, function, args)

    async def _run_call(
        self, call: _Call, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]
    ) -> None:
        with anyio.CancelScope() as call.scope:
            if call.abandoned:
                return
            try:
                call.result = await function(*args)
            except Exception as error:  # noqa: BLE001 - raised in the program
                call.error = error
            except BaseException as error:  # noqa: ASYNC103 - see below
                call.error = BusClosed("the bus ended while it asked its broker")
                if self._is_ending() or not isinstance(error, asyncio.CancelledError):
                    raise
                # Whoever asked has left; or a client has cancelled its caller, unasked. Let
                # through without a scope of its own, it would end every other task here.
                if not call.scope.cancel_called:
                    call.error = TbusError("the broker's client cancelled what was asked of it")
            finally:
                self.post(call.answer)

    def _cancel_call(self, call: _Call) -> None:
        if call.scope is not None:
            call.scope.cancel()

    def _stop_serving(self) -> None:
        self._stop_asked = True
        if self._stopping is not None:
            self._stopping.set()

    def _run_loop(self) -> None:
        def make_loop() -> OwnedLoop:
            selector = PassSelector(self._loop_waits, self._loop_woke, self._rest_every)
            try:
                self.loop = OwnedLoop(selector)
            except BaseException:
                selector.close()
                raise
            self._begun = True
            self.loop.set_exception_handler(self._on_unhandled)
            return self.loop

        try:
            anyio.run(self._serve, backend="asyncio", backend_options={"loop_factory": make_loop})
        except BaseException as error:  # noqa: ASYNC103, BLE001 - raised in the program
            self.post(self._thread_ended, error)
        else:
            self.post(self._thread_ended, None)
        self._wake_program()

    def _on_unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a client's forgotten task raises has nobody to tell it to; what a callback of
        tbus raises ends the bridge."""
        error = context.get("exception")
        if isinstance(error, Exception) and "handle" in context and _is_ours(error):
            self.post(self._fail, error)
        else:
            logger.debug("in a client: %s", context.get("message"))

    def _thread_ended(self, error: BaseException | None) -> None:
        self.ended = True
        self._finished.set()
        self._ready.set()
        if isinstance(error, BaseExceptionGroup):  # without what its task has told by itself
            error = error.split(lambda one: one is self._failure)[1]
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is None:
            return
        if self._stopped and isinstance(error, RuntimeError):
            # Most likely asyncio's own, of a loop that was stopped under a task.
            logger.debug("the loop was stopped under a client's task", exc_info=error)
        elif self._failure is not None:
            logger.warning("a client's task has failed, too", exc_info=error)
        elif self._served:
            logger.warning("a client's task has failed when cancelled", exc_info=error)
        else:
            self._fail(error)

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._context = contextvars.copy_context()
        async with anyio.create_task_group() as self.nursery:
            self.post(self._ready.set)
            await self._stopping.wait()
            self._served = True
            self.nursery.cancel_scope.cancel()


def _is_ours(error: Exception) -> bool:
    """Whether it passed through code of tbus."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith("tbus."):
            return True
        traceback = traceback.tb_next
    return False


@asynccontextmanager
async def open_bridge(*, fair: bool = True) -> AsyncIterator[Bridge]:
    """Start the loop's thread; leaving the block ends both, within half a second, also
    when it is left by a cancellation.

    Args:
        fair: let each side in while the other is busy. For measuring what it costs.

    Raises:
        Exception: what has failed, and nobody was told by `wait_failed`.
    """
    runtime = current_runtime()
    bridge = Bridge(runtime, fair=fair)
    instrument = PassInstrument(
        bridge._program_waits, bridge._program_woke, bridge._stay_awake, bridge._rest_every
    )
    if runtime.name == "trio":
        trio.lowlevel.add_instrument(instrument)
    try:
        try:
            with anyio.CancelScope(shield=True):
                await bridge._start()
            yield bridge
        finally:
            with anyio.CancelScope(shield=True):
                await bridge._end()
            if runtime.name == "trio":
                trio.lowlevel.remove_instrument(instrument)
    except BaseException:
        if bridge._failure is not None and not bridge._told:
            logger.error("the clients' loop has failed, too", exc_info=bridge._failure)
        raise
    if not bridge._told:
        bridge._raise_failure()
