"""Running a command in Trio until it ends, fails, or is told to stop.

The first Ctrl-C (or SIGTERM) cancels the scope that the command waits in, so that the
block of `open_bus` around it is left in the ordinary way: the bus drains, and leaves
nothing. A second one cancels everything; the end of a bus is bounded even then.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import trio

from ._beside import running_beside

Command = Callable[["Stop"], Awaitable[int]]


class Stop:
    """Whether the user wants the command to end.

    Attributes:
        signal: which one asked first, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._scopes: list[trio.CancelScope] = []

    @contextmanager
    def scope(self) -> Iterator[trio.CancelScope]:
        """What the first signal cancels. One that came before cancels it at once, one that
        comes after it is left cancels the scope around it."""
        with trio.CancelScope() as scope:
            self._scopes.append(scope)
            try:
                yield scope
            finally:
                self._scopes.remove(scope)

    def request(self, number: int) -> None:
        """A signal came."""
        if not self._scopes:
            return
        if self.signal is None:
            self.signal = number
            self._scopes[-1].cancel()
        else:
            self._scopes[0].cancel()


def run_command(command: Command) -> int:
    """Run a command, and return its exit code: its own, or 128 + n if signal n ended it.

    Raises:
        Exception: what the command raised, as itself.
    """
    return trio.run(partial(_run, command))


async def _run(command: Command) -> int:
    stop = Stop()
    code = 0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with running_beside(partial(_listen, signals, stop), "signals"):
            with stop.scope():
                code = await command(stop)
    return code if stop.signal is None else code or 128 + stop.signal


async def _listen(signals: AsyncIterator[int], stop: Stop) -> None:
    async for number in signals:
        stop.request(number)
