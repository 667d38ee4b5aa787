"""Which message may be handled next: order per key, and no waiting between keys.

The laws:

1. The messages of one key are finished in the order in which they were pushed.
2. At any moment a key is in exactly one state: ready (in the ready deque), running (with
   one worker), held (its head waits for a retry), or unknown (it has no messages).
3. A message stays at the head of its lane from the moment it is taken until it is
   finished; a retry therefore never loses its place.
4. Two keys never wait for each other, except for the limit on running handlers. There is
   no hashing into a fixed number of lanes.
5. A message without a key is alone in a lane of its own.

Pure: no clock, no I/O, no event loop. Every call but `split`, `drop` and `clear` is O(1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from enum import Enum
from itertools import islice
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class LaneState(Enum):
    READY = "ready"
    RUNNING = "running"
    HELD = "held"
    GONE = "gone"


# Looking a member up in its class costs a third of a push.
_READY, _RUNNING, _GONE = LaneState.READY, LaneState.RUNNING, LaneState.GONE


LONG = 32
"""Messages from which on what stands behind a head is a deque: one costs more than all else that is
done with a message."""


# One is made for each key anew, so not for the garbage collector: it leads to messages only. Nor
# does it hold a list unless there are two of them: thousands in flight would be thousands of lists,
# which the collector looks through again and again.
class Lane(msgspec.Struct, Generic[T], eq=False, gc=False):
    """The messages of one key, in order.

    Attributes:
        head: the one that is handled or next; of a lane that is gone, the last one.
        rest: those behind it, if there are or were any.
    """

    key: Hashable
    head: T
    state: LaneState
    rest: list[T] | deque[T] | None = None

    def __len__(self) -> int:
        if self.state is _GONE:
            return 0
        return 1 + len(self.rest) if self.rest else 1

    @property
    def items(self) -> list[T]:
        """All of them; a new list each time."""
        return self.front(len(self))

    def front(self, count: int) -> list[T]:
        """The first `count` of them, as far as there are so many."""
        if count < 1 or self.state is _GONE:
            return []
        return [self.head, *islice(self.rest, count - 1)] if self.rest else [self.head]

    def advance(self) -> None:
        """The next one is the head; there must be one."""
        rest = self.rest
        assert rest
        self.head = rest.pop(0) if isinstance(rest, list) else rest.popleft()

    def refill(self, items: list[T]) -> None:
        """These are all there are; without any the lane is gone."""
        if items:
            self.head = items[0]
            self.rest = deque(items[1:])
        else:
            self.state = _GONE
            self.rest = None


class KeyedDispatcher(Generic[T]):
    """Hands out the heads of ready lanes, at most `limit` at a time.

    Args:
        limit: how many lanes may be running at once.
    """

    __slots__ = ("_keyless", "_lanes", "_ready", "_size", "limit", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._lanes: dict[Hashable, Lane[T]] = {}
        self._keyless: dict[Lane[T], None] = {}  # an empty set takes three times as much
        self._ready: deque[Lane[T]] = deque()
        self._size = 0

    def __len__(self) -> int:
        """Messages that were pushed and are not finished."""
        return self._size

    def __iter__(self) -> Iterator[T]:
        """Every message that is not finished; those of one key in order."""
        for lane in (*self._lanes.values(), *self._keyless):
            yield from lane.items

    @property
    def ready(self) -> int:
        """How many lanes could be taken now, were there no limit."""
        return len(self._ready)

    def push(self, key: Hashable | None, item: T) -> Lane[T]:
        """Add a message behind all others of its key; returns the key's lane."""
        self._size += 1
        if key is None:
            lane = Lane(None, item, _READY)
            self._keyless[lane] = None
            self._ready.append(lane)
            return lane
        found = self._lanes.get(key)
        if found is not None:
            rest = found.rest
            if rest is None:
                found.rest = [item]
                return found
            if len(rest) == LONG and type(rest) is list:
                rest = found.rest = deque(rest)
            rest.append(item)
            return found
        lane = self._lanes[key] = Lane(key, item, _READY)
        self._ready.append(lane)
        return lane

    def take(self) -> Lane[T] | None:
        """The lane whose head is to be handled now, or None: nothing is ready, or the
        limit is reached. It is running until `finish` or `hold`."""
        if not self._ready or self.running >= self.limit:
            return None
        lane = self._ready.popleft()
        lane.state = _RUNNING
        self.running += 1
        return lane

    def peek(self) -> T | None:
        """The head that `take` would give next, were there no limit; None: nothing is ready."""
        return self._ready[0].head if self._ready else None

    def finish(self, lane: Lane[T]) -> T:
        """The head is done with, whatever became of it: the next of its key is ready."""
        if lane.state is not _RUNNING:
            raise RuntimeError(f"lane of key {lane.key!r} is {lane.state.value}, not running")
        self.running -= 1
        self._size -= 1
        item = lane.head
        rest = lane.rest
        if not rest:
            lane.state = _GONE
            key = lane.key
            if key is None:
                del self._keyless[lane]
            else:
                del self._lanes[key]
            return item
        lane.state = _READY
        self._ready.append(lane)
        lane.head = rest.pop(0) if type(rest) is list else rest.popleft()  # type: ignore[union-attr]  # a deque
        return item

    def hold(self, lane: Lane[T]) -> None:
        """The head must wait before it is handled again: it keeps its place and its key."""
        if lane.state is not _RUNNING:
            raise RuntimeError(f"lane of key {lane.key!r} is {lane.state.value}, not running")
        self.running -= 1
        lane.state = LaneState.HELD

    def release(self, lane: Lane[T]) -> bool:
        """A held head may be handled again. False if the lane is not held any more."""
        if lane.state is not LaneState.HELD:
            return False
        lane.state = LaneState.READY
        self._ready.append(lane)
        return True

    def lane(self, key: Hashable) -> Lane[T] | None:
        """The lane of a key, if it has messages here."""
        return self._lanes.get(key)

    def withdraw(self, lane: Lane[T]) -> bool:
        """A ready lane is held from now on. False if it is not ready. O(1) for the one that
        was made ready last."""
        if lane.state is not _READY:
            return False
        if self._ready[-1] is lane:
            self._ready.pop()
        else:
            self._ready.remove(lane)
        lane.state = LaneState.HELD
        return True

    def split(self, lane: Lane[T], at: int) -> list[T]:
        """Take out the messages of one lane from the `at`-th on; what is being handled of one that
        is running stays."""
        if at < self.taken(lane):
            raise RuntimeError(f"lane of key {lane.key!r} is running: its head stays")
        items = lane.items
        taken = items[at:]
        self._size -= len(taken)
        if not at:
            if lane.state is _READY:
                self._ready.remove(lane)
            self._keyless.pop(lane, None)
            self._lanes.pop(lane.key, None)
        lane.refill(items[:at])
        return taken

    def taken(self, lane: Lane[T]) -> int:
        """How many messages of a lane, from its head on, are being handled."""
        return 1 if lane.state is _RUNNING else 0

    def running_items(self) -> list[T]:
        """What is being handled."""
        return [
            item
            for lane in (*self._lanes.values(), *self._keyless)
            for item in lane.front(self.taken(lane))
        ]

    def drop(self, wanted: Callable[[T], bool]) -> list[T]:
        """Take out what is not running and is `wanted`; the rest keeps its order. O(messages)."""
        taken: list[T] = []
        for lane in (*self._lanes.values(), *self._keyless):
            items = lane.items
            first = self.taken(lane)
            going = [item for index, item in enumerate(items) if index >= first and wanted(item)]
            if not going:
                continue
            taken += going
            head = items[0]
            gone = set(map(id, going))
            lane.refill([item for item in items if id(item) not in gone])
            if lane.state is LaneState.HELD and lane.head is not head:
                lane.state = LaneState.READY  # what it waited for is not its head any more
                self._ready.append(lane)
        if taken:
            self._lanes = {key: lane for key, lane in self._lanes.items() if len(lane)}
            self._keyless = {lane: None for lane in self._keyless if len(lane)}
            self._ready = deque(lane for lane in self._ready if len(lane))
            self._size -= len(taken)
        return taken

    def clear(self) -> list[T]:
        """Take out everything that is not running: ready, waiting and held. What runs may
        still be finished."""
        taken: list[T] = []
        for lane in (*self._lanes.values(), *self._keyless):
            first = self.taken(lane)
            items = lane.items
            taken += reversed(items[first:])
            lane.refill(items[:first])
        self._lanes = {key: lane for key, lane in self._lanes.items() if len(lane)}
        self._keyless = {lane: None for lane in self._keyless if len(lane)}
        self._ready.clear()
        self._size -= len(taken)
        return taken
