"""A function cancelled at each of its checkpoints in turn.

A cancellation can meet a task in two ways: while it waits, and then the wait is aborted; or
after its wait is over and before it runs on, and then its next checkpoint raises. Code that
is right for one is often wrong for the other (a receipt that has come, a lock that has been
got), so each checkpoint is tried in both ways.

Trio only: where a task stands is known there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import trio

When = Literal["while it waits", "when its wait is over"]

LIMIT = 10_000
"""Checkpoints after which a function is taken for one that does not end."""


class CancelAt(trio.abc.Instrument):
    """Cancels at the n-th checkpoint of whatever task it watches.

    Attributes:
        reached: whether there was such a checkpoint.
    """

    def __init__(self, number: int, when: When, cancel: Callable[[], object]) -> None:
        self.reached = False
        self._task: trio.lowlevel.Task | None = None
        self._cancel = cancel
        self._left = number
        self._waits = when == "while it waits"

    def watch(self, task: trio.lowlevel.Task | None) -> None:
        """Count this task's checkpoints from now on; None: nobody's."""
        self._task = task

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It waits now."""
        if self._waits and task is self._task:
            self._count()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Its wait is over."""
        if not self._waits and task is self._task:
            self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.reached = True
            self._cancel()


@contextmanager
def cancelling_at(number: int, when: When, cancel: Callable[[], object]) -> Iterator[CancelAt]:
    """While this is open, call `cancel` at the n-th checkpoint of what is watched."""
    instrument = CancelAt(number, when, cancel)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield instrument
    finally:
        trio.lowlevel.remove_instrument(instrument)


async def cancel_at_every_checkpoint(
    function: Callable[[], Awaitable[object]],
    *,
    after: Callable[[bool], Awaitable[object]] | None = None,
    at_most: int | None = None,
) -> int:
    """Run `function` again and again, cancelled at its first checkpoint, at its second, and
    so on, until it ends without having reached the one; then all of that once more, each
    time cancelled when the wait is just over.

    Checkpoints are those of the task that runs `function`; whatever it starts is cancelled
    with it. A function whose checkpoints differ from run to run is cancelled at as many
    as the longest run had.

    Args:
        function: what to run; it takes no arguments.
        after: called after each run, not cancelled, with whether that run was cut short by
            the cancellation: the place for what must hold then.
        at_most: no more than so many checkpoints, for functions that have thousands.

    Returns:
        How many runs were cancelled.

    Raises:
        RuntimeError: it has more than ten thousand checkpoints and there is no `at_most`.
    """
    cancelled = 0
    for when in get_args(When):
        number = 0
        while at_most is None or number < at_most:
            number += 1
            if number > LIMIT:
                raise RuntimeError(f"it does not end within {LIMIT} checkpoints: give at_most")
            reached, cut_short = await _run(function, number, when)
            if after is not None:
                await after(cut_short)
            if not reached:
                break
            cancelled += 1
    return cancelled


async def _run(
    function: Callable[[], Awaitable[object]], number: int, when: When
) -> tuple[bool, bool]:
    """Whether the checkpoint was reached, and whether the function was cut short there."""
    with trio.CancelScope() as scope, cancelling_at(number, when, scope.cancel) as cancel:
        cancel.watch(trio.lowlevel.current_task())
        try:
            await function()
        except BaseException as error:
            error.add_note(f"cancelled at checkpoint {number}, {when}")
            raise
    return cancel.reached, scope.cancelled_caught
