"""A group's place in one partition: what was handed over, to whom, and what is settled.

The laws of this room:

* What was settled as done stays so, whoever reads: all below the floor, and a set beyond.
* A share has at most one owner. Its successor has a higher epoch and begins at the first
  offset that is not done. A share without owners is read by everybody in its group.
* How often handling has failed is kept for what is not settled, whoever reads next.
* Nothing is handed to a reader beyond its credit, nor what it has in flight.
* After a reset the cursor runs again over what it has passed, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

import attrs

from ..._message import Delivery
from ..._transport import Verdict
from ._log import FIRST_EPOCH, PartitionLog

_DONE = Verdict.DONE  # looking a member up in its class takes as long as a call


@attrs.frozen
class Loss:
    """Messages that retention took before they were read."""

    first: int
    last: int


class Reader:
    """Who reads shares: its credit, what it has in flight, and how it is woken.

    Args:
        max_in_flight: messages.
        max_in_flight_bytes: of these, but one message may exceed it.
        wake: called when `is_waiting` and there is something to read.
    """

    __slots__ = (
        "_bytes",
        "_messages",
        "held",
        "held_bytes",
        "is_blocked",
        "is_waiting",
        "wake",
    )

    def __init__(
        self, max_in_flight: int, max_in_flight_bytes: int, wake: Callable[[], None]
    ) -> None:
        self._messages = max_in_flight
        self._bytes = max_in_flight_bytes
        self.held: dict[Delivery, Share] = {}
        self.held_bytes = 0
        self.is_blocked = False  # there was more than its credit
        self.is_waiting = False
        self.wake = wake

    def room(self) -> int:
        """How many messages more its credit allows."""
        return self._messages - len(self.held)

    def bytes_room(self) -> int:
        """How many bytes more its credit allows."""
        return self._bytes - self.held_bytes

    def has_room_for(self, size: int) -> bool:
        """Whether its credit allows a message of so many bytes; any size if it holds none."""
        if self.held and size > self.bytes_room():
            self.is_blocked = True
            return False
        return True

    def owns(self, share: Share) -> None:
        """A share is its own from now on."""

    def owned(self, share: Share, *, lost: bool) -> None:
        """A share that was its own is another's; `lost`: with what it had in flight of it."""

    def within_credit(self, rows: list[Delivery]) -> list[Delivery]:
        """Those of these messages, from the first on, that its credit allows, though not all."""
        room = self.bytes_room()
        for index, row in enumerate(rows):
            room -= row.size
            if room < 0 and (index or self.held):
                self.is_blocked = True
                return rows[:index]
        return rows


class Share:
    """A group's place in one partition.

    Args:
        log: the partition.
        start: the first offset to be read.
        wake_one: wakes one of those who read it, where it has no owner.
    """

    __slots__ = (
        "_attempts",
        "_done",
        "_floor",
        "_forgotten",
        "_in_flight",
        "_redeliveries",
        "_reread_until",
        "_returned",
        "_skip",
        "_wake_one",
        "cursor",
        "epoch",
        "log",
        "owner",
        "target",
    )

    def __init__(
        self, log: PartitionLog, start: int, wake_one: Callable[[], None] | None = None
    ) -> None:
        self.log = log
        self.owner: Reader | None = None
        self.target: Reader | None = None
        self._wake_one = wake_one
        self.epoch = 0
        self.cursor = start  # the next offset to hand over
        self._floor = start  # all below is settled
        self._done: set[int] = set()  # settled at or above the floor
        self._forgotten: set[int] = set()  # settled by this owner, and lost by the broker
        self._returned: list[int] = []  # given back, below the cursor: a heap
        self._redeliveries: dict[int, int] = {}
        self._attempts: dict[int, int] = {}  # of what is not settled: how often it has failed
        # After a reset the cursor runs again over what was handed over before it. What is
        # still in flight with the owner is not for it to get again.
        self._reread_until = start
        self._skip: frozenset[int] = frozenset()
        self._in_flight = 0

    # --- reading ---

    def find_loss(self) -> Loss | None:
        """What retention took before it was read; the share then goes on behind it."""
        self._pass_settled()
        first = self.log.first
        if self.cursor >= first and not (self._returned and self._returned[0] < first):
            return None
        lost = [
            offset
            for offset in range(self.cursor, first)
            if offset not in self._done and offset not in self._skip
        ]
        while self._returned and self._returned[0] < first:
            lost.append(heappop(self._returned))
        self.cursor = max(self.cursor, first)
        for offset in lost:
            self._mark_done(offset)
        return Loss(min(lost), max(lost)) if lost else None

    def has_more(self) -> bool:
        """Whether a reader would get anything (or nearly: a reset may leave only repeats)."""
        return self.cursor < self.log.end or bool(self._returned)

    def count_unread(self) -> int:
        """How many messages wait to be handed over, at most."""
        return max(0, self.log.end - self.cursor) + len(self._returned)

    def read(self, reader: Reader, limit: int, before: float, batch: list[Delivery]) -> None:
        """Hand over up to `limit` messages stored before `before`, as far as there is credit."""
        start = len(batch)
        self._pass_settled()
        while self._returned and len(batch) - start < limit:
            if not self._hand_over(reader, self._returned[0], batch):
                return
            heappop(self._returned)
        while self.cursor < self._reread_until and len(batch) - start < limit:
            offset = self.cursor
            is_wanted = offset not in self._done and offset not in self._skip
            if is_wanted and not self._hand_over(reader, offset, batch):
                return
            self.cursor += 1
        # Everything from here on is read for the first time: the hot path.
        rows = self.log.span(self.cursor, limit - (len(batch) - start))
        if not rows:
            return
        if rows[-1].timestamp > before:
            rows = [row for row in rows if row.timestamp <= before]
        taken = sum([row.size for row in rows])
        if taken > reader.bytes_room():
            rows = reader.within_credit(rows)
            taken = sum([row.size for row in rows])
        epoch = self.epoch
        if epoch != FIRST_EPOCH:
            rows = [
                Delivery(r.position, r.body, r.headers, r.timestamp, r.key, True, epoch, 0, r.size)
                for r in rows
            ]
        reader.held.update(dict.fromkeys(rows, self))
        reader.held_bytes += taken
        batch += rows
        self.cursor += len(rows)
        self._in_flight += len(rows)

    def _pass_settled(self) -> None:
        """After a reset the floor may overtake the cursor, and what is below it is no longer
        in the set of what is done."""
        if self.cursor < self._floor:
            self.cursor = self._floor

    def _hand_over(self, reader: Reader, offset: int, batch: list[Delivery]) -> bool:
        row = self.log.at(offset)
        size = row.size
        if not reader.has_room_for(size):
            return False
        again = self._redeliveries.get(offset, 0)
        failed = self._attempts.get(offset, 0)
        delivery = Delivery(
            row.position, row.body, row.headers, row.timestamp, row.key, True, self.epoch, again,
            size, 0, failed,
        )  # fmt: skip
        reader.held[delivery] = self
        reader.held_bytes += size
        self._in_flight += 1
        batch.append(delivery)
        return True

    # --- settling ---

    def settled(self, delivery: Delivery, verdict: Verdict) -> None:
        """The owner has settled what it had in flight."""
        self._in_flight -= 1
        offset = delivery.position.offset
        if verdict is not _DONE:
            self._put_back(offset)
        elif self._redeliveries or self._attempts:
            self._mark_done(offset)
        elif offset > self._floor:
            self._done.add(offset)
        elif self._done:
            self._mark_done(offset)
        elif offset == self._floor:
            self._floor = offset + 1  # the hot path
        if self.target is not self.owner and self._in_flight == 0:
            self.hand_over()

    def note_attempts(self, delivery: Delivery, attempts: int) -> None:
        """Handling what is in flight has failed so often."""
        if attempts:
            self._attempts[delivery.position.offset] = attempts
        else:
            self._attempts.pop(delivery.position.offset, None)

    def released(self, delivery: Delivery) -> None:
        """The reader that had it is gone, or no longer the owner."""
        self._in_flight -= 1
        self._put_back(delivery.position.offset)

    def _put_back(self, offset: int) -> None:
        self._redeliveries[offset] = self._redeliveries.get(offset, 0) + 1
        if offset >= self.cursor:
            return  # a reset has gone back behind it: the cursor will come by
        heappush(self._returned, offset)
        self.notify()

    def _mark_done(self, offset: int) -> None:
        if self._redeliveries:
            self._redeliveries.pop(offset, None)
        if self._attempts:
            self._attempts.pop(offset, None)
        if offset != self._floor:
            if offset > self._floor:
                self._done.add(offset)
            return
        floor = offset + 1
        done = self._done
        while done and floor in done:
            done.remove(floor)
            floor += 1
        self._floor = floor

    def forget(self, count: int) -> None:
        """Forget that the last `count` messages below the floor were settled."""
        floor = min(self._floor, max(self.log.first, self._floor - count))
        self._forgotten.update(range(floor, self._floor))
        self._redeliveries.update(dict.fromkeys(range(floor, self._floor), 1))
        self._floor = floor

    # --- ownership ---

    def hand_over(self, *, lost: bool = False) -> None:
        """Make the target the owner, beginning at what is not settled."""
        former, owner = self.owner, self.target
        if former is owner:
            return
        self.owner = owner
        if former is not None:
            former.owned(self, lost=lost)
        if owner is not None:
            self.epoch += 1
            owner.owns(self)
        self._forgotten.clear()
        self.reset(frozenset())
        self.notify()

    def reset(self, in_flight: frozenset[int]) -> None:
        """Go back to the first message that is not settled, skipping what is in flight."""
        while self._forgotten:  # the owner knows what it has settled, and says so again
            self._mark_done(self._forgotten.pop())
        self._reread_until = max(self._reread_until, self.cursor)
        self._skip = in_flight
        self._returned.clear()
        self.cursor = self._floor

    def is_idle(self) -> bool:
        """Whether nothing of it is in flight."""
        return self._in_flight == 0

    def notify(self) -> None:
        """There is something to read: wake who may read it."""
        owner = self.owner
        if owner is not None:
            if owner.is_waiting:
                owner.wake()
        elif self._wake_one is not None:
            self._wake_one()

    # --- lag ---

    def count_behind(self) -> int:
        """Messages stored and not settled."""
        first = max(self._floor, self.log.first)
        done = sum(1 for offset in self._done if offset >= first)
        return max(0, self.log.end - first - done)

    def oldest_behind(self) -> float | None:
        """When the oldest message that is not settled was stored."""
        offset = max(self._floor, self.log.first)
        while offset in self._done:
            offset += 1
        return self.log.stored_at(offset) if offset < self.log.end else None
