"""The few places where Trio and anyio's asyncio backend differ, or where anyio's common
face costs too much to be called for every message.

anyio's own primitives are used everywhere else. The figures behind this room: a task
started through anyio's task group on Trio takes three times as long as through Trio's
nursery, and `anyio.lowlevel.checkpoint_if_cancelled` five times as long as Trio's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager
from threading import get_ident
from typing import Any, Protocol, TypeVar

import anyio
import anyio.lowlevel
import attrs
import outcome
import sniffio
import trio

T = TypeVar("T")


class Scope(Protocol):
    """What Trio's and anyio's cancel scopes have in common, as far as tbus uses it."""

    deadline: float
    shield: bool

    @property
    def cancel_called(self) -> bool: ...
    @property
    def cancelled_caught(self) -> bool: ...
    def cancel(self) -> None: ...
    def __enter__(self) -> Scope: ...
    def __exit__(self, *exc_info: Any) -> bool | None: ...


class Nursery(Protocol):
    """What Trio's nursery and anyio's task group have in common, as far as tbus uses it."""

    @property
    def cancel_scope(self) -> Any: ...
    def start_soon(self, function: Any, *args: Any, name: object = None) -> None: ...


class OneShot(Protocol):
    """An event that is set once."""

    def set(self) -> None: ...
    async def wait(self) -> Any: ...


class _Parking:
    """An event that one task waits for, on Trio: half the price of `trio.Event`."""

    __slots__ = ("_is_set", "_task")

    def __init__(self) -> None:
        self._is_set = False
        self._task: trio.lowlevel.Task | None = None

    def set(self) -> None:
        self._is_set = True
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        if self._is_set:
            await trio.lowlevel.checkpoint()
            return
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class Answer(Protocol):
    """A result that comes once, and one task that waits for it."""

    def resolve(self, about: object, result: Any) -> None:
        """There it is; never None. What it is about is not looked at."""

    def wait(self) -> Awaitable[Any]:
        """What is to be awaited at once: waits for the result, and returns it."""


class _TrioAnswer(outcome.Outcome[Any]):
    """On Trio: one object, and one call to set it. It is the outcome, too, that its task is
    rescheduled with: one made for that, which may be taken out only once, costs a fifth of a
    publish."""

    __slots__ = ("_result", "_task")

    def __init__(self) -> None:
        self._result: Any = None
        self._task: trio.lowlevel.Task | None = None

    def resolve(self, about: object, result: Any) -> None:  # noqa: ARG002 - of no use here
        self._result = result
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task, self)

    def wait(self) -> Awaitable[Any]:
        if self._result is not None:
            return self._checkpoint()
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105 - by the caller

    async def _checkpoint(self) -> Any:
        await trio.lowlevel.checkpoint()
        return self._result

    def _abort(self, _: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    # As an outcome

    def unwrap(self) -> Any:
        return self._result

    def send(self, gen: Generator[T, Any, object]) -> T:
        return gen.send(self._result)

    async def asend(self, agen: AsyncGenerator[T, Any]) -> T:
        return await agen.asend(self._result)


class _AsyncioAnswer:
    __slots__ = ("_event", "_result")

    def __init__(self) -> None:
        self._result: Any = None
        self._event = asyncio.Event()

    def resolve(self, about: object, result: Any) -> None:  # noqa: ARG002 - of no use here
        self._result = result
        self._event.set()

    async def wait(self) -> Any:
        await self._event.wait()
        return self._result


ELSEWHERE = (
    "this bus belongs to another event loop, that of the block which opened it. Call it there: a"
    " worker thread of that loop does so by anyio.from_thread.run(bus.publish, ...), or Trio's"
    " from_thread; another loop, or thread, opens a bus of its own"
)


def _check_trio() -> Callable[[], None]:
    # No run of Trio ends while a bus is open in it, and none begins inside another: so its thread
    # says which run it is, in half the time that the run's token takes.
    own = get_ident()

    def check_here() -> None:
        if get_ident() != own:
            raise RuntimeError(ELSEWHERE)

    return check_here


def _check_asyncio(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    # A loop may stop with a bus in it, and its thread run another one. `get_running_loop() is
    # loop` would say so, too, but makes a system call up to Python 3.11.
    own = get_ident()
    is_running = loop.is_running

    def check_here() -> None:
        if get_ident() != own or not is_running():
            raise RuntimeError(ELSEWHERE)

    return check_here


@attrs.frozen
class Runtime:
    """The program's event loop, as the bus needs it.

    Attributes:
        name: "trio" or "asyncio".
        clock: seconds; virtual under Trio's `MockClock`.
        run_soon: callable from any thread: run a function in the loop, in order.
        check_here: raises RuntimeError for a caller who runs in another loop, or in none.
        open_nursery: a nursery of the loop's own kind.
        open_scope: a cancel scope of the loop's own kind.
        one_shot: makes an event to wait for.
        parking: makes one that a single task waits for, for the hot paths.
        answer: makes a result that a single task waits for.
        checkpoint: a full checkpoint.
        checkpoint_if_cancelled: one only where there is a cancellation to deliver.
        cancelled: the exception class that delivers a cancellation.
    """

    name: str
    clock: Callable[[], float]
    run_soon: Callable[[Callable[[], object]], object]
    check_here: Callable[[], None]
    open_nursery: Callable[[], AbstractAsyncContextManager[Any]]
    open_scope: Callable[[], Scope]
    one_shot: Callable[[], OneShot]
    parking: Callable[[], OneShot]
    answer: Callable[[], Answer]
    checkpoint: Callable[[], Awaitable[None]]
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]
    cancelled: type[BaseException]


def current_runtime() -> Runtime:
    """The runtime of the loop that the caller runs in."""
    if sniffio.current_async_library() == "trio":
        return Runtime(
            name="trio",
            # The clock itself: `trio.current_time` looks it up anew at every call.
            clock=trio.lowlevel.current_clock().current_time,
            run_soon=trio.lowlevel.current_trio_token().run_sync_soon,
            check_here=_check_trio(),
            open_nursery=trio.open_nursery,
            open_scope=trio.CancelScope,
            one_shot=trio.Event,
            parking=_Parking,
            answer=_TrioAnswer,
            checkpoint=trio.lowlevel.checkpoint,
            checkpoint_if_cancelled=trio.lowlevel.checkpoint_if_cancelled,
            cancelled=trio.Cancelled,
        )
    loop = asyncio.get_running_loop()
    return Runtime(
        name="asyncio",
        clock=loop.time,
        run_soon=lambda function: loop.call_soon_threadsafe(function),  # noqa: PLW0108 - its type
        check_here=_check_asyncio(loop),
        open_nursery=anyio.create_task_group,
        open_scope=anyio.CancelScope,
        one_shot=asyncio.Event,
        parking=asyncio.Event,
        answer=_AsyncioAnswer,
        checkpoint=anyio.lowlevel.checkpoint,
        checkpoint_if_cancelled=anyio.lowlevel.checkpoint_if_cancelled,
        cancelled=asyncio.CancelledError,
    )
