"""One handler at a time, where one of them may be what kills the process.

Suspects of all subscriptions of a bus take turns: whoever dies then has died of the one that was
stored as begun, or of one that is not suspect yet. Neither a worker nor a handler's time is
spent by waiting.

Pure: no clock, no I/O, no event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from ._message import Message


class Turns:
    """Who is careful now; one of all that are."""

    def __init__(self) -> None:
        self._holder: Careful | None = None
        self._waiting: deque[Careful] = deque()

    def take(self, who: Careful) -> bool:
        """Whether it is the turn of this one; if not, its `step` is called when it is."""
        if self._holder is None:
            self._holder = who
        elif self._holder is not who and who not in self._waiting:
            self._waiting.append(who)
        return self._holder is who

    def give_up(self, who: Careful) -> None:
        """It is done, or does not wait any more."""
        if who in self._waiting:
            self._waiting.remove(who)
        if self._holder is who:
            self._holder = self._waiting.popleft() if self._waiting else None
            if self._holder is not None:
                self._holder.step()


class Limited(Protocol):
    """What heads are taken from."""

    limit: int
    running: int

    def peek(self) -> Message | None:
        """What would be taken next, were there no limit."""


class Careful:
    """Lets one message of a subscription at a time be handled, while some of it are suspect.

    Args:
        turns: of the bus.
        begin: has it stored that a message is begun, and calls back.
        on_ready: called when there is one to be taken.
    """

    def __init__(
        self,
        turns: Turns,
        source: Limited,
        begin: Callable[[Message, Callable[[], None]], None],
        on_ready: Callable[[], None],
    ) -> None:
        self.suspects: set[Message] = set()
        self.over = False
        self._turns = turns
        self._source = source
        self._begin = begin
        self._on_ready = on_ready
        self._limit = source.limit
        self._begun: Message | None = None
        self._is_stored = False
        source.limit = 0

    def step(self) -> None:
        """Something is ready, has ended, or was stored; or it is this one's turn."""
        source = self._source
        if source.running or self.over:
            return
        source.limit = 0
        if not self.suspects:
            self.end()
            self._on_ready()
            return
        message = source.peek()
        if message is None:
            self._turns.give_up(self)
            self._on_ready()  # there may be something to wait for
        elif self._turns.take(self):
            if message in self.suspects and not self._was_stored(message):
                return
            source.limit = 1
            self._on_ready()

    def _was_stored(self, message: Message) -> bool:
        if self._begun is not message:
            self._begun, self._is_stored = message, False
            self._begin(message, lambda: self._stored(message))
        return self._is_stored

    def _stored(self, message: Message) -> None:
        if self._begun is message:
            self._is_stored = True
            self.step()

    def ended(self) -> None:
        """What was handled is not any more."""
        if not self._source.running and not self.over:
            self._source.limit = 0
            self._begun = None
            self._turns.give_up(self)
            self.step()

    def end(self) -> None:
        """Be careful no more."""
        self.over = True
        self._source.limit = self._limit
        self._turns.give_up(self)
