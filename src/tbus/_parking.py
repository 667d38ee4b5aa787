"""Keys that the handler does not get, and what waits of them.

The laws:

1. What waits of a parked key waits in its lane, held; nothing of it is settled, so nothing of
   it is lost. It counts against `max_in_flight`, so it is bounded: what comes when the bound
   is reached is doomed, and goes to the dead-letter topic from a lane beside the key's, which
   keeps its order. A key that has begun to overflow goes on to, until it is released.
2. With "dead_letter", all that comes of the key is doomed, and stays in the key's own lane.
3. Releasing hands the key back as if it came for the first time: what waits, in order, with
   attempts that begin anew. What was doomed and is not yet being stored comes back, too.
4. A parked key is known to this process alone, and as long as it reads the partition.

Pure: no clock but the one it is given, no I/O, no event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

import attrs

from ._dispatch import KeyedDispatcher, Lane, LaneState
from ._message import Message
from ._quarantine import ParkedKey, Quarantine

MOST_KEYS = 10_000
"""Parked keys of one subscription. Beyond that, a key is not parked any more: its message alone
is dead-lettered. It bounds what is remembered of keys of which nothing waits."""


@attrs.frozen
class _Overflow:
    """The key of the lane beside a parked key's."""

    key: str


@attrs.define(eq=False)
class Ward:
    """A parked key.

    Attributes:
        dooms: what comes of it from now on goes to the dead-letter topic.
        beside: the key of the lane in which that stands; None: in the key's own.
        partition: where its messages come from, once that is known.
    """

    key: str
    since: datetime
    reason: str
    dooms: bool = False
    beside: _Overflow | None = None
    partition: int | None = None

    @property
    def waits(self) -> bool:
        """Whether the key's own lane is held, rather than doomed."""
        return not self.dooms or self.beside is not None


class Parking:
    """The parked keys of one subscription.

    Args:
        dispatcher: where the messages are.
        quarantine: what happens to a key that is parked.
        limit: messages that wait in place, all parked keys together; None: any number.
        doom: has a message dead-lettered when its turn comes, for a reason.
        renew: makes a message one that was never tried.
        calm: calls off what a held lane waits for.
        now: the time of day.
    """

    def __init__(
        self,
        dispatcher: KeyedDispatcher[Message],
        quarantine: Quarantine,
        limit: int | None,
        *,
        doom: Callable[[Message, str], None],
        renew: Callable[[Message], None],
        calm: Callable[[Lane[Message]], None],
        now: Callable[[], datetime],
    ) -> None:
        self.wards: dict[str, Ward] = {}
        self._dispatcher = dispatcher
        self._action = quarantine.action
        self._limit = limit
        self._doom = doom
        self._renew = renew
        self._calm = calm
        self._now = now

    def parked(self) -> tuple[ParkedKey, ...]:
        """Every parked key, the one that was parked first before all others."""
        return tuple(
            ParkedKey(ward.key, ward.since, self.waiting(ward), ward.reason)
            for ward in self.wards.values()
        )

    def waiting(self, ward: Ward) -> int:
        """Messages of a parked key that are here and not settled."""
        return sum(len(lane) for lane in self._lanes_of(ward))

    def park(self, key: str, reason: str) -> Ward | None:
        """Park a key. A lane that is running stays so: whoever runs it holds it afterwards.
        Returns None if there are too many."""
        if len(self.wards) >= MOST_KEYS:
            return None
        room = None if self._limit is None else max(0, self._limit - self._in_place())
        ward = self.wards[key] = Ward(key, self._now(), reason)
        lane = self._dispatcher.lane(key)
        if lane is not None:
            ward.partition = lane.head.position.partition
        if self._action == "dead_letter" or room == 0:
            ward.dooms = True
            if lane is not None:
                self._doom_lane(lane, ward)
        elif lane is not None:
            self._calm(lane)
            self._dispatcher.withdraw(lane)
            if room is not None:
                room = max(room, self._dispatcher.taken(lane))
                if len(lane) > room:
                    self._overflow(ward, self._dispatcher.split(lane, room))
        return ward

    def push(self, ward: Ward, message: Message) -> None:
        """A message of a parked key has come."""
        ward.partition = message.position.partition
        if not ward.dooms and (self._limit is None or self._in_place() < self._limit):
            self._dispatcher.withdraw(self._dispatcher.push(ward.key, message))
        elif ward.dooms:
            self._doom_one(ward, message)
        else:
            self._overflow(ward, [message])

    def finished(self, lane: Lane[Message]) -> None:
        """The head of a lane was handled, which may be a parked key's: parked while it ran."""
        ward = self.wards.get(lane.key) if isinstance(lane.key, str) else None
        if ward is not None and ward.waits:
            self._dispatcher.withdraw(lane)

    def release(self, key: str) -> Ward | None:
        """Hand a key back; returns what was known of it, or None if it was not parked."""
        ward = self.wards.pop(key, None)
        if ward is None:
            return None
        dispatcher = self._dispatcher
        beside = dispatcher.lane(ward.beside) if ward.beside is not None else None
        if beside is not None:
            for message in self._take_out(beside):
                dispatcher.push(key, message)
        lane = dispatcher.lane(key)
        if lane is not None:
            self._calm(lane)
            for message in lane.items[dispatcher.taken(lane) :]:
                self._renew(message)
            dispatcher.release(lane)
        return ward

    def discard(self, ward: Ward) -> list[Message]:
        """Take out what waits of a parked key; what is being handled, or stored in the
        dead-letter topic, stays."""
        return [message for lane in self._lanes_of(ward) for message in self._take_out(lane)]

    def forget(self, partitions: Collection[int]) -> list[Ward]:
        """Partitions are somebody else's: their keys are not parked here any more."""
        gone = [ward for ward in self.wards.values() if ward.partition in partitions]
        for ward in gone:
            del self.wards[ward.key]
            lane = self._dispatcher.lane(ward.key)
            if lane is not None:  # of a later ownership
                self._dispatcher.release(lane)
        return gone

    def _in_place(self) -> int:
        lanes = [self._dispatcher.lane(ward.key) for ward in self.wards.values() if ward.waits]
        return sum(len(lane) for lane in lanes if lane is not None)

    def _lanes_of(self, ward: Ward) -> list[Lane[Message]]:
        lanes = [self._dispatcher.lane(ward.key)]
        if ward.beside is not None:
            lanes.append(self._dispatcher.lane(ward.beside))
        return [lane for lane in lanes if lane is not None]

    def _overflow(self, ward: Ward, messages: list[Message]) -> None:
        ward.dooms, ward.beside = True, _Overflow(ward.key)
        for message in messages:
            self._doom_one(ward, message)

    def _doom_one(self, ward: Ward, message: Message) -> None:
        self._doom(message, f"its key is parked: {ward.reason}")
        self._dispatcher.push(ward.beside or ward.key, message)

    def _doom_lane(self, lane: Lane[Message], ward: Ward) -> None:
        for message in lane.items[self._dispatcher.taken(lane) :]:
            self._doom(message, f"its key is parked: {ward.reason}")
        self._calm(lane)
        self._dispatcher.release(lane)

    def _take_out(self, lane: Lane[Message]) -> list[Message]:
        if lane.state is not LaneState.RUNNING:
            self._calm(lane)
        taken = self._dispatcher.split(lane, self._dispatcher.taken(lane))
        for message in taken:
            self._renew(message)
        return taken
