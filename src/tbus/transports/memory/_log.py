"""One partition: an append-only row of messages with offsets from 1 up, cut off at its old end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..._message import Headers, Position

Row = tuple[Position, float, int, bytes, str | None, Headers]
"""A stored message: where it stands, when it was stored, size, body, key, headers.

A plain tuple of what the garbage collector need not look at, since it stops looking at those:
with 100 000 messages stored, objects instead of tuples doubled the cost of storing one.
"""

_STORED: Final = 1
_SIZE: Final = 2

_KEEP_GONE: Final = 256
"""Rows that may be gone and still in the list: moving the rest down is worth it beyond."""


class PartitionLog:
    """What one partition holds. Offsets below `first` are gone, `end` is the next one."""

    __slots__ = ("_base", "_rows", "bytes", "end", "first", "partition")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.first = 1
        self.end = 1
        self.bytes = 0
        self._base = 1
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return self.end - self.first

    def append(self, row: Row) -> None:
        """Store a message whose position is `end`."""
        self._rows.append(row)
        self.end += 1
        self.bytes += row[_SIZE]

    def at(self, offset: int) -> Row:
        """The message at an offset that is stored."""
        return self._rows[offset - self._base]

    def stored_at(self, offset: int) -> float:
        """When that message was stored, in seconds since 1970."""
        return self._rows[offset - self._base][_STORED]

    def span(self, start: int, count: int) -> Sequence[Row]:
        """Up to `count` messages from `start` on, which is not below `first`."""
        index = start - self._base
        return self._rows[index : index + count]

    def take_older_than(self, instant: float) -> int:
        """Remove what was stored before `instant`; returns how many."""
        before = self.first
        while self.first < self.end:
            row = self._rows[self.first - self._base]
            if row[_STORED] > instant:
                break
            self.bytes -= row[_SIZE]
            self.first += 1
        gone = self.first - self._base
        if gone > _KEEP_GONE and gone * 2 > len(self._rows):
            del self._rows[:gone]
            self._base = self.first
        return self.first - before

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
