"""A subscription whose handler takes lists: the bus's workers run it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ._batches import BatchIntake, Unreadable
from ._dispatch import Lane
from ._errors import InvalidEnvelope
from ._gathering import Bundle
from ._intake import Intake
from ._message import Message
from ._subscription import HandlerSource


class _DoomedLists:
    """Those of a message that is only to be dead-lettered, which is alone in its list."""

    def __init__(self, graves: Collection[Message]) -> None:
        self._graves = graves

    def __len__(self) -> int:
        return len(self._graves)

    def __contains__(self, bundle: object) -> bool:
        return isinstance(bundle, Bundle) and bundle.parts[0][1][0] in self._graves


class BatchSource(HandlerSource):
    """Connects an intake that gathers with a handler and the workers."""

    intake: BatchIntake

    def attach(self, intake: Intake) -> None:
        """Take the intake whose messages the handler gets."""
        assert isinstance(intake, BatchIntake)
        self.handle = self._handle_list
        super().attach(intake)
        self.dispatcher = intake.lists
        self.done = self._list_done
        self.doomed = _DoomedLists(intake.graves)
        intake.evict = lambda wanted: self._pool.evict(
            self, lambda bundle: any(map(wanted, bundle.messages))
        )

    def on_ready(self) -> None:
        """The intake has something to handle, or to wait with for more."""
        if self.dispatcher.ready:
            self._pool.offer(self)
        else:
            self.intake.lists.arm()

    async def _handle_list(self, bundle: Bundle) -> None:
        messages = bundle.messages
        if self._decode is None:
            await self._handler(messages)
            return
        pairs: list[tuple[Any, Message]] = []
        unreadable: list[Message] = []
        for message in messages:
            try:
                pairs.append((self._decoded(message), message))
            except InvalidEnvelope:
                if len(messages) == 1:
                    raise
                unreadable.append(message)
        if unreadable:
            raise Unreadable(unreadable)
        await self._handler(pairs)

    def _list_done(self, lane: Lane[Bundle]) -> None:
        self.intake.list_done(lane.head)
        self.intake.lists.arm()

    async def failed(self, lane: Lane[Any], error: Exception) -> None:
        """The handler raised, or ran out of time."""
        await self.intake.list_failed(lane.head, error)
        self.intake.lists.arm()
        if self.dispatcher.ready and not self.queued:
            self._pool.enqueue(self)

    def interrupted(self, lane: Lane[Any]) -> None:
        """The handler was cancelled from outside."""
        self.intake.list_interrupted(lane.head)
