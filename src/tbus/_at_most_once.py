"""A subscription that handles each message at most once: settled first, handled then.

A message is settled when its turn has come, immediately before its handler is called. From then
on nothing brings it back: what its handler raises, a run that takes too long, a cancellation
at the end are told as events, and the key goes on. A message whose turn has not come is like
any other: given back, without loss.
"""

from __future__ import annotations

from typing import Any

from ._dispatch import Lane
from ._errors import Discard, describe, text_of
from ._events import Discarded, NotHandled
from ._intake import Intake
from ._message import Message
from ._retry import meant
from ._transport import Verdict


class OnceIntake(Intake):
    """The same with every verdict spoken before the handler runs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._begun: set[Message] = set()

    def begin(self, message: Message) -> None:
        """The handler is about to run for it: it never comes again."""
        self._begun.add(message)
        self.feed.settle(message.delivery, Verdict.DONE)

    def done(self, lane: Lane[Message]) -> None:
        """The head was handled, or dead-lettered while its key was parked."""
        if lane.head not in self._begun:
            super().done(lane)
            return
        message = self.dispatcher.finish(lane)
        self._begun.discard(message)
        if self._wards:
            self._parking.finished(lane)
        if self._gone:
            self._leaving.ended(message)
        if self._watching:
            self._ended(message)

    async def failed(self, lane: Lane[Message], error: Exception) -> None:
        """Handling the head raised: that is told, and nothing follows."""
        message = lane.head
        if message not in self._begun:
            await super().failed(lane, error)
            return
        told = meant(error)
        if isinstance(told, Discard):
            position, reason = str(message.position), text_of(told) or "Discard"
            self._emit(Discarded(self.topic, self.group, message.key, position, reason))
        else:
            self._tell_failure(message, error)
            self._tell(message, describe(error))
        self.done(lane)

    def interrupted(self, lane: Lane[Message]) -> None:
        """Handling the head was cancelled from outside."""
        message = lane.head
        if message not in self._begun:
            super().interrupted(lane)
            return
        self._tell(message, "its handler was cancelled")
        self.done(lane)
        self._go_on()

    def _tell(self, message: Message, error: str) -> None:
        self._emit(NotHandled(self.topic, self.group, message.key, str(message.position), error))
