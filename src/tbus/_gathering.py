"""Lists of messages for one run of a handler: several keys, each in order, all of them locked.

The laws:

1. A list is due when `size` messages can be handled, or `within` seconds after the first of
   them could be.
2. Of each key a list holds the first messages, in order and without a gap. The key is the list's
   until these are finished, or held.
3. What is to be handled alone, or not at all, is a list of one, due at once. What stands behind
   it in its key waits.
4. A list that has failed as a whole can be locked again as a whole, less what has gone from it.

No clock but the one that is given, no I/O, no event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from math import inf

import attrs

from ._dispatch import KeyedDispatcher, Lane, LaneState
from ._message import Message
from ._rules import number, whole


@attrs.frozen
class Batch:
    """A handler takes lists of messages instead of one at a time.

    Attributes:
        size: messages of one list, at most.
        within: seconds that the first of them waits for others, at most. With 0 the handler
            gets what is there.

    Raises:
        ConfigurationError: a value is out of range; the message names it.
    """

    size: int = attrs.field(validator=whole(1))
    within: float = attrs.field(validator=number(least=0))


@attrs.define(eq=False)
class Bundle:
    """What one run of a handler is for.

    Attributes:
        topic: of all its messages.
        parts: the messages of each key, in order, with the lane they stand in.
    """

    topic: str
    parts: list[tuple[Lane[Message], list[Message]]]

    @property
    def messages(self) -> list[Message]:
        """All of them, key by key; a new list each time."""
        return [message for _, messages in self.parts for message in messages]


class Gathering(KeyedDispatcher[Message]):
    """A dispatcher of which lists are taken, with several messages of a lane.

    Args:
        batch: when a list is due.
        last: the attempt from which on a message is handled alone.
        doomed: messages that are not to be handled at all, each dealt with by itself.
        clock: the time.
    """

    __slots__ = ("_batch", "_clock", "_deadlines", "_doomed", "_last", "_widths", "alone")

    def __init__(
        self, batch: Batch, last: int, doomed: Collection[Message], clock: Callable[[], float]
    ) -> None:
        super().__init__(limit=2**31)  # keys may be in lists, as many as there are
        self.alone: set[Message] = set()
        """What is to be handled alone."""
        self._batch = batch
        self._last = last
        self._doomed = doomed
        self._clock = clock
        self._widths: dict[Lane[Message], int] = {}
        self._deadlines: dict[Lane[Message], float] = {}

    # Lists

    def due_at(self) -> float:
        """When a list may be taken: -inf if it is full, or of one that is alone; inf if nothing
        can be handled."""
        if not self._ready:
            return inf
        if self._find_alone() is not None or self._is_enough():
            return -inf
        # They became ready in this order, and wait equally long.
        return self._deadlines[self._ready[0]]

    def take_list(self) -> Bundle:
        """Take what is there, at most a full list; something must be ready. Its lanes are running
        until each is finished, message by message, or held."""
        lane = self._find_alone()
        if lane is not None:
            self._ready.remove(lane)
            return Bundle(lane.head.topic, [self._lock(lane, [lane.head])])
        parts = []
        room = self._batch.size
        while room and self._ready:
            lane = self._ready.popleft()
            messages = self._front(lane, room)
            room -= len(messages)
            parts.append(self._lock(lane, messages))
        return Bundle(parts[0][1][0].topic, parts)

    def peek(self) -> Message | None:
        """The first message of the list that would be taken next."""
        lane = self._find_alone()
        return super().peek() if lane is None else lane.head

    def take_again(self, bundle: Bundle) -> Bundle | None:
        """Take a list of which every lane was held, or what is left of it; None if nothing is."""
        parts = []
        for lane, messages in bundle.parts:
            if lane.state is not LaneState.HELD:
                continue
            left = [
                m for m, here in zip(messages, lane.front(len(messages)), strict=False) if m is here
            ]
            if left:
                parts.append(self._lock(lane, left))
        return Bundle(bundle.topic, parts) if parts else None

    def keep_alone(self, message: Message) -> None:
        """It is handled alone from now on, if its attempt is one of the last."""
        if message.attempt >= self._last:
            self.alone.add(message)

    def _lock(
        self, lane: Lane[Message], messages: list[Message]
    ) -> tuple[Lane[Message], list[Message]]:
        self._deadlines.pop(lane, None)
        self._widths[lane] = len(messages)
        lane.state = LaneState.RUNNING
        self.running += 1
        return lane, messages

    def _is_alone(self, message: Message) -> bool:
        return message in self.alone or message in self._doomed

    def _find_alone(self) -> Lane[Message] | None:
        if not self.alone and not self._doomed:
            return None
        return next((lane for lane in self._ready if self._is_alone(lane.head)), None)

    def _front(self, lane: Lane[Message], room: int) -> list[Message]:
        """The messages of a ready lane that one list may hold."""
        front = lane.front(room)
        if self.alone or self._doomed:
            for index, message in enumerate(front):
                if self._is_alone(message):
                    return front[:index]
        return front

    def _is_enough(self) -> bool:
        room = self._batch.size
        if len(self) < room:
            return False
        for lane in self._ready:
            room -= len(self._front(lane, room))
            if room <= 0:
                return True
        return False

    # Lanes: what is ready has a time from which on it waits no longer

    def push(self, key: Hashable | None, item: Message) -> Lane[Message]:
        """Add a message behind all others of its key; returns the key's lane."""
        lane = super().push(key, item)
        self.keep_alone(item)
        if len(lane) == 1:
            self._note_ready(lane)
        return lane

    def finish(self, lane: Lane[Message]) -> Message:
        """The head is done with; the lane stays running if more of it is in the same list."""
        width = self._widths.pop(lane, 1)
        if width > 1:
            self._widths[lane] = width - 1
            item = lane.head
            lane.advance()
            self._size -= 1
        else:
            item = super().finish(lane)
            if len(lane):
                self._note_ready(lane)
        self.alone.discard(item)
        return item

    def hold(self, lane: Lane[Message]) -> None:
        """What is left of the lane in a list must wait before it is handled again."""
        super().hold(lane)
        self._widths.pop(lane, None)

    def release(self, lane: Lane[Message]) -> bool:
        """A held head may be handled again. False if the lane is not held any more."""
        released = super().release(lane)
        if released:
            self._note_ready(lane)
        return released

    def withdraw(self, lane: Lane[Message]) -> bool:
        """A ready lane is held from now on. False if it is not ready."""
        withdrawn = super().withdraw(lane)
        if withdrawn:
            del self._deadlines[lane]
        return withdrawn

    def taken(self, lane: Lane[Message]) -> int:
        """How many messages of a lane, from its head on, are in a list that runs."""
        return self._widths.get(lane, 0)

    def split(self, lane: Lane[Message], at: int) -> list[Message]:
        """Take out the messages of one lane from the `at`-th on."""
        taken = super().split(lane, at)
        if not len(lane):
            self._deadlines.pop(lane, None)
        self.alone.difference_update(taken)
        return taken

    def drop(self, wanted: Callable[[Message], bool]) -> list[Message]:
        """Take out what is not running and is `wanted`; the rest keeps its order."""
        taken = super().drop(wanted)
        if taken:
            known, self._deadlines = self._deadlines, {}
            for lane in self._ready:
                self._note_ready(lane)
                self._deadlines[lane] = known.get(lane, self._deadlines[lane])
        self.alone.difference_update(taken)
        return taken

    def clear(self) -> list[Message]:
        """Take out everything that is not running."""
        taken = super().clear()
        self._deadlines.clear()
        self.alone.difference_update(taken)
        return taken

    def _note_ready(self, lane: Lane[Message]) -> None:
        self._deadlines[lane] = self._clock() + self._batch.within
