"""What the members have written, and what it proves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import attrs

Event = tuple[str, str, int]
"""Topic, key, and the number of the event among those of its key."""


@attrs.frozen
class Verdict:
    """What became of the events.

    Attributes:
        stored: acknowledged to the publisher.
        handled: distinct events that were handled.
        lost: acknowledged, and handled by nobody.
        repeated: completions beyond the first.
        inversions: first completions that came behind a later event of their key.
    """

    stored: int
    handled: int
    lost: int
    repeated: int
    inversions: int


class Book:
    """The file of completions, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.completions: Counter[Event] = Counter()
        self.inversions: list[Event] = []
        self._last: dict[tuple[str, str], int] = {}
        self._offset = 0
        path.touch(mode=0o600)

    def read_on(self) -> int:
        """Read what was written since; returns how many distinct events were handled by now."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for line in data[:whole].decode().splitlines():
            topic, key, number, *_ = line.split(" ")
            event = (topic, key, int(number))
            self.completions[event] += 1
            if self.completions[event] == 1:
                lane = (topic, key)
                if event[2] < self._last.get(lane, -1):
                    self.inversions.append(event)
                self._last[lane] = max(event[2], self._last.get(lane, -1))
        return len(self.completions)

    def judge(self, stored: set[Event]) -> Verdict:
        """Compare with what was acknowledged."""
        self.read_on()
        return Verdict(
            stored=len(stored),
            handled=len(self.completions),
            lost=len(stored - self.completions.keys()),
            repeated=self.completions.total() - len(self.completions),
            inversions=len(self.inversions),
        )
