"""How far a group has come in what one consumer reads.

The laws:

1. **No repeats.** What was settled here, and is delivered again, is settled again and not handed
   over again. What a group shares without order may come back from another process, so only who
   reads alone knows that.
2. **What was settled out of order is remembered.** What is settled beyond the ack floor, or is
   below it and the server may have forgotten, and how often handling has failed for what is
   not, is a mark that the next owner is given.
   Who reads next goes back to the floor like after any other end, recognises those messages, and
   settles them again without handing them over. (Giving back by nak is no way to keep an
   order: the server may put what it takes from its queue of redeliveries back at the end of it.)
3. The positions of one stream mean nothing in the next that has its name.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from ..._marks import Mark, decode, encode, joined
from ..._suspects import Suspects
from ..._watermark import Watermark

MARK_SIZE = 4096
"""Characters of a mark, at most."""


class Arrival(Enum):
    """What a message is that has arrived."""

    NEW = "to be handed over"
    SETTLED = "settled already"
    BEYOND = "behind others that did not come"


class Progress:
    """What is settled, and how often handling has failed for what is not.

    Args:
        ordered: nobody else settles anything meanwhile.
        mark: what an earlier owner has left.
        known: marks of what this process has settled, when it had the partition before.

    Attributes:
        incarnation: counts the streams that the topic has had.
        has_begun: it is known where reading has begun.
        gapless: every position of the stream is one of its own.
        origin: names the consumer; a mark of another one is nobody's.
        attempts: how often handling has failed for what is not settled.
        watched: which messages earlier owners may have died of, if any.
    """

    __slots__ = (
        "_before",
        "_idle_mark",
        "_known",
        "_left",
        "_mark",
        "_ordered",
        "attempts",
        "gapless",
        "has_begun",
        "incarnation",
        "origin",
        "watched",
    )

    def __init__(self, *, ordered: bool, mark: str = "", known: tuple[str, ...] = ()) -> None:
        self.incarnation = 0
        self.has_begun = False
        self.gapless = False
        self.origin = ""
        self.attempts: dict[int, int] = {}
        self.watched: Suspects | None = None
        self._ordered = ordered
        self._left = mark
        self._known = known
        self._mark = Watermark(0)
        self._before: list[tuple[int, int]] = []
        """Settled by earlier owners, and not read yet."""
        self._idle_mark = (-1, "", "")
        """The last one that was made with nothing open: up to where, whose, and the text."""

    def begin(self, floor: int) -> None:
        """Everything up to the floor is settled: read on behind it."""
        self.has_begun = True
        self._mark = Watermark(floor)
        marks = (*self._known, self._left)
        self._before = joined([run for mark in marks for run in self._read(mark, floor)])

    def begin_stream(self) -> None:
        """The stream is another one: its positions have nothing to do with the old ones."""
        self.incarnation += 1
        self._mark = Watermark(0)
        self._before = []
        self.attempts.clear()
        self.watched = None

    @property
    def frontier(self) -> int | None:
        """Everything up to here is settled here; None: nothing was read yet."""
        return self._mark.frontier if self.has_begun else None

    @property
    def base(self) -> int:
        """The first position that nobody has settled."""
        base = self._mark.frontier + 1
        if self._before and self._before[0][0] <= base:
            base = self._before[0][1] + 1
        return base

    @property
    def next(self) -> int:
        """What comes after everything that has arrived."""
        return self._mark.highest + 1

    def arrive_next(self, position: int) -> bool:
        """A message was delivered that is new and comes where it should, as nearly all do; False:
        `arrive` tells what it is."""
        mark = self._mark
        beyond = position - mark.highest
        if beyond < 1 or self._before or (beyond > 1 and self.gapless):
            return False
        return mark.open(position)

    def arrive(self, position: int) -> Arrival:
        """A message that is not in flight was delivered."""
        mark = self._mark
        before = bool(self._before) and self._is_before(position)
        if self.gapless and not before and position > mark.highest + 1:
            return Arrival.BEYOND
        if not mark.open(position):
            if self._ordered and mark.is_settled(position):
                return Arrival.SETTLED
            mark.reopen(position)
        elif before:
            mark.complete(position)
            return Arrival.SETTLED
        return Arrival.NEW

    def _is_before(self, position: int) -> bool:
        runs = self._before
        while runs and runs[0][1] < position:
            runs.pop(0)
        return bool(runs) and runs[0][0] <= position

    def skip(self, incarnation: int, last: int) -> None:
        """Nothing up to here comes any more: the server has it settled."""
        if incarnation == self.incarnation and self._mark.open(last):
            self._mark.complete(last)

    def settle(self, positions: Collection[int]) -> None:
        """Messages were handled, none of them twice."""
        self._mark.complete_all(dict.fromkeys(positions))
        if self.attempts:
            for position in positions:
                self.attempts.pop(position, None)
        if self.watched is not None:
            self.watched.settle(positions)

    def note_attempts(self, position: int, attempts: int) -> None:
        """Handling a message has failed so often."""
        if attempts:
            self.attempts[position] = attempts
        else:
            self.attempts.pop(position, None)

    # The mark

    def mark(self) -> str:
        """What is settled, for the next owner."""
        if not self.has_begun:
            return self._left
        highest = self._mark.highest
        if len(self._mark) or self._before or self.attempts:
            return self._make_mark()
        # Every heartbeat asks, and an idle topic's answer stays the same.
        if self._idle_mark[:2] != (highest, self.origin):
            self._idle_mark = (highest, self.origin, self._make_mark())
        return self._idle_mark[2]

    def _make_mark(self) -> str:
        base = self._mark.frontier + 1
        runs: list[tuple[int, int]] = []
        highest = self._mark.highest
        before = [(max(first, highest + 1), last) for first, last in self._before]
        for first, last in (*self._mark.runs(), *(run for run in before if run[0] <= run[1])):
            if runs and first == runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], last)
            elif not runs and first <= base:
                base = last + 1
            else:
                runs.append((first, last))
        attempts = tuple(sorted(pair for pair in self.attempts.items() if pair[0] >= base))
        return f"{self.origin} {encode(Mark(base, tuple(runs), attempts), MARK_SIZE)}"

    def known(self) -> tuple[str, ...]:
        """Marks that say what this process has settled here, now or before."""
        return (self.mark(),) if self.has_begun else self._known

    def _read(self, mark: str, floor: int) -> list[tuple[int, int]]:
        """The runs beyond the floor that a mark has settled, and the attempts of what is not. What
        was settled below its own base counts, too: a server that was killed has forgotten its
        latest acknowledgements, and not the mark."""
        origin, _, text = mark.partition(" ")
        base = text.split(":")[1] if text.count(":") > 1 else ""
        found = decode(text, int(base)) if base.isdecimal() else None
        if found is None or origin != self.origin:
            return []  # there is none, or somebody has removed the consumer, to read again
        self.attempts |= {at: failed for at, failed in found.attempts if at > floor}
        runs = [(floor + 1, found.base - 1), *found.runs]
        return [(max(first, floor + 1), last) for first, last in runs if last > floor]
