"""One partition: an append-only row of messages with offsets from 1 up, cut off at its old end."""

from __future__ import annotations

from typing import Final

from ..._message import Delivery

FIRST_EPOCH: Final = 1
"""What stored messages say: that of a partition's first owner in its group."""

_KEEP_GONE: Final = 256
"""Rows that may be gone and still in the list: moving the rest down is worth it beyond."""


class PartitionLog:
    """What one partition holds. Offsets below `first` are gone, `end` is the next one.

    A message is stored as what its readers are handed the first time they get it, so that
    reading makes nothing: one object for all of them, which nobody changes, but that an
    envelope gives way to its bytes when somebody asks for those.

    Attributes:
        rows: the messages; who stores one appends it, with `end` as its position.
        base: the offset of the first of them, which may be gone.
    """

    __slots__ = ("base", "first", "partition", "rows")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.first = 1
        self.rows: list[Delivery] = []
        self.base = 1

    def __len__(self) -> int:
        return self.end - self.first

    @property
    def end(self) -> int:
        """The offset of the next message."""
        return self.base + len(self.rows)

    def at(self, offset: int) -> Delivery:
        """The message at an offset that is stored."""
        return self.rows[offset - self.base]

    def stored_at(self, offset: int) -> float:
        """When that message was stored, in seconds since 1970."""
        return self.rows[offset - self.base].timestamp

    def span(self, start: int, count: int) -> list[Delivery]:
        """Up to `count` messages from `start` on, which is not below `first`."""
        index = start - self.base
        return self.rows[index : index + count]

    def take_older_than(self, instant: float) -> tuple[int, int]:
        """Remove what was stored before `instant`; returns how many messages, and bytes."""
        before = first = self.first
        end = self.end
        size = 0
        while first < end:
            row = self.rows[first - self.base]
            if row.timestamp > instant:
                break
            size += row.size
            first += 1
        self.first = first
        gone = first - self.base
        if gone > _KEEP_GONE and gone * 2 > len(self.rows):
            del self.rows[:gone]
            self.base = first
        return first - before, size

    def count_bytes(self) -> int:
        """What its messages count together."""
        return sum([row.size for row in self.rows[self.first - self.base :]])

    def oldest(self) -> float | None:
        """When the oldest message was stored."""
        return self.stored_at(self.first) if self.first < self.end else None

    def first_since(self, instant: float) -> int:
        """Offset of the first message stored at `instant` or later, or `end`."""
        low, high = self.first, self.end
        while low < high:
            middle = (low + high) // 2
            if self.stored_at(middle) < instant:
                low = middle + 1
            else:
                high = middle
        return low
