"""What one side hands over and one task of the program takes, in order.

Each idle subscription waits at one. anyio's memory streams do the same for any number of tasks,
and take four kibibytes for that: a fifth of what an idle topic may cost.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from ._errors import TbusError
from ._runtime import OneShot, Runtime
from ._transport import EndOfFeed

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Takes everything at once, without a limit: whoever puts has a credit of their own.

    Args:
        runtime: of the loop that all of it is called in.
    """

    __slots__ = ("_closed", "_failure", "_letters", "_runtime", "_sleeper")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._letters: list[T] = []
        self._sleeper: OneShot | None = None
        self._failure: TbusError | None = None
        self._closed = False

    def put_nowait(self, letter: T) -> None:
        """Hand something over; without an effect if it is closed."""
        if not self._closed:
            self._letters.append(letter)
            self._wake()

    async def take(self) -> T:
        """Wait for the next; only one task at a time may. Cancelled, it has taken none.

        Raises:
            EndOfFeed: it is closed, and everything was taken.
            TbusError: the same, and it was closed because of this.
        """
        if self._letters or self._closed:
            await self._runtime.checkpoint()
        while not self._letters:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise EndOfFeed
            self._sleeper = self._runtime.parking()
            try:
                await self._sleeper.wait()
            finally:
                self._sleeper = None
        return self._letters.pop(0)

    def take_rest(self) -> list[T]:
        """All that can be taken without waiting."""
        rest, self._letters = self._letters, []
        return rest

    def close(self, failure: TbusError | None = None) -> None:
        """Take no more; what was put can still be taken. The first failure is what is told."""
        if self._failure is None:
            self._failure = failure
        self._closed = True
        self._wake()

    def clear(self) -> None:
        """Nobody takes any more: forget what is left."""
        self.close()
        self._letters.clear()

    def _wake(self) -> None:
        if self._sleeper is not None:
            self._sleeper.set()
