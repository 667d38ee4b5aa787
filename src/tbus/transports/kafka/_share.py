"""What this process holds of one partition, for as long as it owns it.

Pure: no clock, no I/O. The laws:

1. A share has an epoch. What is settled for another epoch is not settled here.
2. What may be committed is the first offset that is not settled, and beside it a mark: the runs
   that are settled beyond, and how often handling has failed for what is not. Who owns the
   partition next reads both, and repeats nothing of them.
3. A mark that does not belong to the committed offset is ignored: something else has committed.
4. What this process has settled it knows, also if it lost the partition before it could commit, and
   has it again now: it repeats nothing of that, unless the group was set back meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from ..._marks import Mark, joined
from ..._suspects import Suspects
from ..._watermark import Watermark


class Commit(NamedTuple):
    """What is to be committed for a partition."""

    offset: int
    runs: tuple[tuple[int, int], ...]
    attempts: tuple[tuple[int, int], ...]
    record: str = ""
    """Of the owner; see `_suspects`."""


class Share:
    """One partition, owned.

    Args:
        partition: its number.
        epoch: of the ownership.
        base: the first offset that is not settled.
        mark: what an earlier owner has left beyond it, if anything.
        committed: the offset that the broker has, or None: none.
        before: the share of the partition that this process had last, if it had one.
        suspects: which messages earlier owners may have died of.
        record: what the broker has of that.

    Attributes:
        draining: nothing more of it is handed over.
        held: nothing of it is handed over yet.
        owned: until nothing of it runs any more, and the partition goes.
        watermark: what was handed over, and what of it is settled.
    """

    __slots__ = (
        "_attempts",
        "_before",
        "_committed",
        "_given_back",
        "base",
        "draining",
        "epoch",
        "held",
        "owned",
        "partition",
        "suspects",
        "watermark",
    )

    def __init__(
        self,
        partition: int,
        epoch: int,
        base: int,
        mark: Mark | None = None,
        committed: int | None = None,
        before: Share | None = None,
        suspects: Suspects | None = None,
        record: str = "",
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self.base = base
        self.draining = False
        self.held = False
        self.owned = True
        self.suspects = Suspects(None, 0) if suspects is None else suspects
        self.watermark = Watermark(base - 1)
        runs = () if mark is None else tuple(mark.runs)
        self._attempts = {} if mark is None else dict(mark.attempts)
        self._given_back: set[int] | None = None  # made when it is needed
        self._committed = (
            None
            if committed is None
            else Commit(committed, runs, tuple(self._attempts.items()), record)
        )
        if before is not None and self._goes_on_from(before):
            runs = tuple(joined([*runs, *before._settled_from(base)]))
            settled = {o for o in self._attempts for run in runs if run[0] <= o <= run[1]}
            self._attempts = {o: n for o, n in self._attempts.items() if o not in settled}
        self._before = list(reversed(runs))

    def _goes_on_from(self, before: Share) -> bool:
        """Whether the group stands where it stood, or beyond."""
        if self._committed is None or before._committed is None:
            return False
        return self._committed.offset >= before._committed.offset

    def _settled_from(self, base: int) -> Iterator[tuple[int, int]]:
        """What is settled from there on, as runs."""
        for first, last in ((base, self.watermark.frontier), *self._beyond()):
            if last >= base:
                yield max(first, base), last

    @property
    def next_offset(self) -> int:
        """What comes after everything that was handed over."""
        return self.watermark.highest + 1

    # Handing over

    def open_all(self, offsets: Sequence[int]) -> bool:
        """Hand over all of these, in order, if none is to be looked at by itself; else False."""
        if self._before or self._attempts or self.suspects:
            return False
        return self.watermark.open_all(offsets)

    def opener(self) -> Callable[[int], bool]:
        """What says of each offset, in order, whether it is to be handed over: False if it was,
        or is settled already."""
        return self._open_behind_a_mark if self._before else self.watermark.open

    def _open_behind_a_mark(self, offset: int) -> bool:
        if not self.watermark.open(offset):
            return False
        before = self._before
        while before and before[-1][1] < offset:
            before.pop()
        if before and before[-1][0] <= offset:
            self.watermark.complete(offset)
            return False
        return True

    def attempts(self, offset: int) -> int:
        """How often handling it has failed so far."""
        return self._attempts.get(offset, 0)

    def note_attempts(self, offset: int, attempts: int) -> None:
        """Handling it has failed so often."""
        if not attempts:
            self._attempts.pop(offset, None)
        elif self.watermark.is_open(offset):
            self._attempts[offset] = attempts

    # Settling

    def settle(self, offsets: Collection[int]) -> Collection[int]:
        """Messages are done with; returns those that were in flight.

        Args:
            offsets: quick to look into: a set, or a dict.
        """
        given_back = self._given_back
        if given_back:
            offsets = {offset for offset in offsets if offset not in given_back}
        settled = self.watermark.complete_all(offsets)
        if self._attempts:
            self._attempts = {o: n for o, n in self._attempts.items() if o not in settled}
        if self.suspects:
            self.suspects.settle(settled)
        return settled

    def give_back(self, offset: int) -> bool:
        """A message is not done with, and no more in flight; False if it was not."""
        given_back = self._given_back
        if (given_back and offset in given_back) or not self.watermark.is_open(offset):
            return False
        if given_back is None:
            given_back = self._given_back = set()
        given_back.add(offset)
        return True

    # Committing

    def due(self) -> Commit | None:
        """What is to be committed, or None: the broker has it."""
        offset = self.watermark.frontier + 1
        runs: list[tuple[int, int]] = []
        for first, last in self._beyond():
            if runs and first == runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], last)
            elif not runs and first <= offset:
                offset = last + 1
            else:
                runs.append((first, last))
        attempts = tuple(sorted(pair for pair in self._attempts.items() if pair[0] >= offset))
        record = self.suspects.text(owned=self.owned)
        commit = Commit(offset, tuple(runs), attempts, record)
        return None if commit == self._committed else commit

    def committed(self, commit: Commit) -> None:
        """The broker has it."""
        self._committed = commit

    def _beyond(self) -> Iterator[tuple[int, int]]:
        """The runs that are settled beyond the frontier, whoever has settled them."""
        yield from self.watermark.runs()
        yield from self._left_over()

    def _left_over(self) -> Iterator[tuple[int, int]]:
        """What an earlier owner had settled beyond what has been read so far."""
        highest = self.watermark.highest
        for first, last in reversed(self._before):
            if last > highest:
                yield max(first, highest + 1), last
