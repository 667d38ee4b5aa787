"""Blocks of a handler that a cancellation from outside does not cut: `Message.shielded`.

The laws:

1. A cancellation that comes while a block is open is held off until the outermost block of its
   task ends; it is then delivered at the next checkpoint. A handler whose last act the block
   is has handled its message.
2. It is held off no longer than the limit: `grace` seconds after it was asked for, and the
   deadline of the closing, or of the bus's graceful end, in any case. Then the shield is taken
   away, and the cancellation cuts the block like any other code.
3. The handler's own `timeout` is such a cancellation: its seconds run on inside, and the
   limit is `grace` seconds after they are spent. It stays what it is, a failed attempt.
4. A handler that was cancelled before it reaches the block does not enter it.

A shield is taken away rather than cancelled: what cuts the block is then always the
cancellation that was asked for, so nothing is caught here, and a shield of the program's own
around the block is respected.

Pure: scopes and timers are made by whoever runs the handler.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from math import inf
from types import TracebackType
from typing import Any, Protocol


class ShieldScope(Protocol):
    """A cancel scope, as far as it is needed here."""

    shield: bool

    def __enter__(self) -> Any: ...
    def __exit__(self, *exc_info: Any) -> bool | None: ...


class Alarm(Protocol):
    """A timer that can be called off."""

    def cancel(self) -> None: ...


class Handling(Protocol):
    """Who runs the handler that the current task belongs to."""

    def handles(self, message: object) -> bool:
        """Whether it is running the handler for this message now."""

    def open_shields(self) -> Shields:
        """The shields of the handler that runs now."""

    def open_scope(self) -> ShieldScope:
        """A new cancel scope."""

    async def checkpoint_if_cancelled(self) -> None:
        """A checkpoint where there is a cancellation to deliver."""


current_handling: ContextVar[Handling | None] = ContextVar("tbus handling", default=None)
"""Set in the tasks that run handlers, and inherited by what handlers start."""


class Shields:
    """The blocks that one handler has open, and how long they hold.

    Args:
        call_at: runs a function at a time of the loop's clock.
        clock: that clock.
        limit: until when they hold, as far as that is known now; infinite if not.
    """

    __slots__ = ("_alarm", "_call_at", "_clock", "_limit", "_open")

    def __init__(
        self,
        call_at: Callable[[float, Callable[[], object]], Alarm],
        clock: Callable[[], float],
        limit: float,
    ) -> None:
        self._call_at = call_at
        self._clock = clock
        self._limit = inf
        self._open: list[ShieldScope] = []
        self._alarm: Alarm | None = None
        self.hold_until(limit)

    def __bool__(self) -> bool:
        """Whether any block is open."""
        return bool(self._open)

    def hold_until(self, limit: float) -> None:
        """They hold until then, or as long as they would have held anyway, if that is less."""
        sooner = limit < self._limit
        self._limit = min(limit, self._limit)
        if self._clock() >= self._limit:  # whether or not the alarm still rings
            self._take_away()
        elif sooner:
            self._call_off()
            self._alarm = self._call_at(limit, self._take_away)

    def add(self, scope: ShieldScope) -> None:
        """A block begins."""
        scope.shield = self._clock() < self._limit
        self._open.append(scope)

    def remove(self, scope: ShieldScope) -> None:
        """It has ended."""
        self._open.remove(scope)
        if not self._open:
            self._call_off()
            self._limit = inf

    def _take_away(self) -> None:
        for scope in self._open:
            scope.shield = False

    def _call_off(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


class ShieldedBlock:
    """What `Message.shielded` returns: `async with` it, once."""

    __slots__ = ("_message", "_scope", "_shields")

    def __init__(self, message: object) -> None:
        self._message = message
        self._scope: ShieldScope
        self._shields: Shields

    async def __aenter__(self) -> None:
        handling = current_handling.get()
        if handling is None or not handling.handles(self._message):
            raise RuntimeError(
                "message.shielded() is for the handler of that message, while it runs; elsewhere"
                " nothing of tbus's cancels you: take a CancelScope(shield=True)"
            )
        await handling.checkpoint_if_cancelled()
        self._shields = handling.open_shields()
        self._scope = handling.open_scope()
        self._shields.add(self._scope)
        self._scope.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        # No checkpoint: what the block has done may be all that the handler had to do.
        self._shields.remove(self._scope)
        return self._scope.__exit__(kind, error, traceback)
