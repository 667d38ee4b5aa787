"""What the members have written, and what it proves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs

Event = tuple[str, str, int]
"""Topic, key, and the number of the event among those of its key."""


@attrs.frozen
class Completion:
    """One line of the book: somebody has handled an event.

    Attributes:
        event: which.
        member: who, by the number that only one member of a run ever has.
        partition: of the topic.
        epoch: of the member's ownership.
        when: by the clock that all who write, and the observer, share.
        repeated: it was in the book already.
    """

    event: Event
    member: int
    partition: int
    epoch: int
    when: float
    repeated: bool


def line(event: Event, member: int, partition: int, epoch: int, when: float) -> bytes:
    """A line as members append it, in one write: what was written survives a kill."""
    topic, key, number = event
    return f"{topic} {key} {number} {member} {partition} {epoch} {when:.4f}\n".encode()


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
    """The file of completions, read as it grows.

    Args:
        path: the file; the order of its lines is the order of completions over all members.
        tell: called with each completion that is read.
    """

    def __init__(self, path: Path, tell: Callable[[Completion], object] | None = None) -> None:
        self.path = path
        self.completions: Counter[Event] = Counter()
        self.inversions: list[Event] = []
        self._tell = tell
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
        for text in data[:whole].decode().splitlines():
            self._read(text)
        return len(self.completions)

    def _read(self, text: str) -> None:
        topic, key, number, member, partition, epoch, when = text.split(" ")
        event = (topic, key, int(number))
        self.completions[event] += 1
        repeated = self.completions[event] > 1
        if not repeated:
            lane = (topic, key)
            last = self._last.get(lane, -1)
            if event[2] < last:
                self.inversions.append(event)
            self._last[lane] = max(event[2], last)
        if self._tell is not None:
            self._tell(
                Completion(event, int(member), int(partition), int(epoch), float(when), repeated)
            )

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
