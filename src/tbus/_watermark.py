"""Which positions of one partition are settled: a frontier, and runs beyond it.

Positions are opened as they are delivered, in ascending order, and completed in any
order. The frontier is the highest position such that every *delivered* position up to it
is complete: compaction, control records and removed messages leave gaps in the numbers,
and a gap is nobody's to wait for.

Beyond the frontier the completed positions are kept as runs. A run ends only at a
position that is still open, so there is never more than one run more than there are open
positions, however long the oldest one takes: the memory is bounded by what is in flight.

Pure: no clock, no I/O. `open` is O(1); `complete` is O(log n) in the open positions, and
O(1) for the oldest; of many at once, each costs less.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Sequence


class Watermark:
    """Opened and completed positions of one partition, in one epoch.

    Args:
        floor: everything up to here is settled already.
    """

    __slots__ = ("_highest", "_open", "_start")

    def __init__(self, floor: int = 0) -> None:
        self._highest = floor
        self._open: list[int] = []
        self._start = 0  # entries of _open before it are spent; trimmed now and then

    @property
    def highest(self) -> int:
        """The highest position that was ever opened, or the floor."""
        return self._highest

    @property
    def frontier(self) -> int:
        """Everything up to here is settled: what may be committed."""
        if self._start < len(self._open):
            return self._open[self._start] - 1
        return self._highest

    def __len__(self) -> int:
        """How many positions are open."""
        return len(self._open) - self._start

    def open(self, position: int) -> bool:
        """A position was delivered. False if it was delivered before."""
        if position <= self._highest:
            return False
        self._highest = position
        self._open.append(position)
        return True

    def open_all(self, positions: Sequence[int]) -> bool:
        """Positions in ascending order were delivered; False, and nothing is opened, if the first
        was delivered before."""
        if positions[0] <= self._highest:
            return False
        self._highest = positions[-1]
        self._open += positions
        return True

    def complete(self, position: int) -> bool:
        """A position is settled. False if it was not open."""
        start = self._start
        if start < len(self._open) and self._open[start] == position:
            self._start = start + 1
            if start > 512 and start * 2 > len(self._open):
                del self._open[: start + 1]
                self._start = 0
            return True
        index = bisect_left(self._open, position, self._start)
        if index == len(self._open) or self._open[index] != position:
            return False
        del self._open[index]
        return True

    def complete_all(self, positions: Collection[int]) -> Collection[int]:
        """Positions are settled, none of them twice; returns those that were open.

        Args:
            positions: quick to look into: a set, or a dict.
        """
        if len(positions) * 16 < len(self):
            return [position for position in positions if self.complete(position)]
        spots = self._open[self._start :]
        left = [position for position in spots if position not in positions]
        self._open = left
        self._start = 0
        if len(spots) - len(left) == len(positions):
            return positions
        return [position for position in spots if position in positions]

    def reopen(self, position: int) -> bool:
        """A settled position turned out not to be: it is open again. False if it is."""
        if self.is_open(position):
            return False
        if position > self._highest:
            return self.open(position)
        del self._open[: self._start]
        self._start = 0
        insort(self._open, position)
        return True

    def is_open(self, position: int) -> bool:
        """Whether it was delivered and is not settled."""
        index = bisect_left(self._open, position, self._start)
        return index < len(self._open) and self._open[index] == position

    def is_settled(self, position: int) -> bool:
        """Whether there is nothing left to do for it: delivered or skipped, and not open."""
        return position <= self._highest and not self.is_open(position)

    def runs(self) -> list[tuple[int, int]]:
        """The settled positions beyond the frontier, as inclusive runs in order."""
        result: list[tuple[int, int]] = []
        spots = self._open[self._start :]
        for index, position in enumerate(spots):
            end = spots[index + 1] - 1 if index + 1 < len(spots) else self._highest
            if position + 1 <= end:
                result.append((position + 1, end))
        return result
