"""Which messages may be what kills the processes that handle them: one partition's record.

An owner that ends in order says so. One that does not has died, maybe of a message: of one that
it was handling, so of one from the first that is not settled on. The laws:

1. Each owner that has died while the same message was the first counts against that message; a
   third of the limit, and all that may have been in flight is suspect: it is handled alone,
   one after another, and before each it is stored which one it is.
2. Whoever dies from then on tells by that which message it was; only this one is counted. So what
   stood beside a killer is handled and gone before the killer has reached the limit.
3. Ending in order clears everybody but those that were handled alone when somebody died.
4. It is bounded: of many counts the highest are kept.

As text: `o` or `e` (owned, or ended in order), then `POSITION:COUNT` for each that is counted,
with commas between. Whatever else is read is nobody's record, and no error.

Pure: no clock, no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Container

MOST = 16
"""Counts that are stored."""

_NOBODY: frozenset[int] = frozenset()  # one for all: each would take 216 bytes

_TEXT = re.compile(r"([oe])((?:[0-9]{1,19}:[0-9]{1,9}(?:,|$)){0,64})")


class Suspects:
    """The record of one partition, for one time of owning it.

    Args:
        limit: how often a message may be delivered; None: any number, so nobody is suspect.
        in_flight: messages that an owner has in flight, at most.
        text: what the last owner has stored.
        base: the first position that is not settled.
    """

    __slots__ = ("_begun", "_counts", "_left", "_limit", "_third", "died")

    def __init__(self, limit: int | None, in_flight: int, text: str = "", base: int = 0) -> None:
        self._limit = limit
        self._third = 1 if limit is None else max(1, limit // 3)
        self._begun = _NOBODY
        owned, counts = _read(text)
        self._counts = {position: n for position, n in counts.items() if position >= base}
        self.died = owned and limit is not None
        """The last owner has not ended in order."""
        if self.died and not self._is_careful():
            self._counts[base] = self._counts.get(base, 0) + 1
        self._left = in_flight if self._is_careful() else 0

    def _is_careful(self) -> bool:
        return self._limit is not None and max(self._counts.values(), default=0) >= self._third

    def __bool__(self) -> bool:
        """Whether anything is to be asked of what is handed over, or told of what is settled."""
        return bool(self._left or self._counts)

    def judge(self, position: int) -> tuple[int, bool]:
        """For each position that is handed over, in order: how often it counts as delivered before,
        and whether it is suspect."""
        count = self._counts.get(position, 0)
        if not self._left:
            return count, False
        self._left -= 1
        return max(count, 1), True

    def begin(self, position: int) -> bool:
        """A suspect is about to be handled alone; whether that is to be stored first."""
        if position in self._begun:
            return False
        self._begun |= {position}
        self._counts[position] = max(self._counts.get(position, 0), self._third) + 1
        return True

    def settle(self, positions: Container[int]) -> None:
        """These did no harm."""
        for position in [position for position in self._counts if position in positions]:
            del self._counts[position]

    def text(self, *, owned: bool = True) -> str:
        """What is to be stored while it is owned; or when it was, and nothing runs any more."""
        if self._limit is None:
            return ""
        counts = self._counts
        if not owned:
            counts = {
                position: count - (position in self._begun)
                for position, count in self._counts.items()
                if count - (position in self._begun) > self._third
            }
        kept = sorted(counts.items(), key=lambda pair: -pair[1])[:MOST]
        told = ",".join(f"{position}:{count}" for position, count in sorted(kept))
        return f"{'o' if owned else 'e'}{told}"


def _read(text: str) -> tuple[bool, dict[int, int]]:
    found = _TEXT.fullmatch(text)
    if found is None:
        return False, {}
    pairs = (pair.split(":") for pair in found[2].split(",") if pair)
    return found[1] == "o", {int(position): int(count) for position, count in pairs}
