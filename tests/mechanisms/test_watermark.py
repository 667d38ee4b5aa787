"""The settlement watermark against a model that knows only which positions are open."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tbus._watermark import Watermark

POSITIONS = st.integers(0, 60)


class AgainstANaiveModel(RuleBasedStateMachine):
    """The model keeps the open positions and the highest one; all else is worked out anew
    from those by looking at every number."""

    @initialize(floor=st.integers(0, 30))
    def start(self, floor: int) -> None:
        self.mark = Watermark(floor)
        self.highest = floor
        self.open: set[int] = set()
        self.was_open: set[int] = set()

    @rule(gap=st.sampled_from([0, 0, 0, 1, 5]))
    def open_the_next(self, gap: int) -> None:
        position = self.highest + 1 + gap
        assert self.mark.open(position)
        self.highest = position
        self.open.add(position)
        self.was_open.add(position)

    @rule(gaps=st.lists(st.sampled_from([0, 0, 1, 5]), min_size=1, max_size=9))
    def open_some_together(self, gaps: list[int]) -> None:
        positions = []
        for gap in gaps:
            self.highest += 1 + gap
            positions.append(self.highest)
        assert self.mark.open_all(positions)
        assert not self.mark.open_all(positions)
        self.open |= set(positions)
        self.was_open |= set(positions)

    @rule(positions=st.sets(POSITIONS))
    def complete_some_together(self, positions: set[int]) -> None:
        assert set(self.mark.complete_all(positions)) == positions & self.open
        self.open -= positions

    @rule(position=POSITIONS)
    def open_what_was_delivered_before(self, position: int) -> None:
        if position <= self.highest:
            assert not self.mark.open(position)

    @rule(position=POSITIONS)
    def complete_anything(self, position: int) -> None:
        assert self.mark.complete(position) is (position in self.open)
        self.open.discard(position)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def complete_one(self, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(sorted(self.open)))
        assert self.mark.complete(position)
        assert not self.mark.complete(position)
        self.open.discard(position)

    @precondition(lambda self: self.was_open - self.open)
    @rule(data=st.data())
    def reopen_one(self, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(sorted(self.was_open - self.open)))
        assert self.mark.reopen(position)
        assert not self.mark.reopen(position)
        self.open.add(position)

    @rule(beyond=st.integers(1, 3))
    def reopen_one_that_was_never_delivered(self, beyond: int) -> None:
        position = self.highest + beyond
        assert self.mark.reopen(position)
        self.highest = position
        self.open.add(position)
        self.was_open.add(position)

    @invariant()
    def the_frontier_is_the_highest_position_with_nothing_open_up_to_it(self) -> None:
        expected = self.highest
        while any(position <= expected for position in self.open):
            expected -= 1
        assert self.mark.frontier == expected
        assert self.mark.highest == self.highest
        assert len(self.mark) == len(self.open)

    @invariant()
    def the_runs_hold_exactly_what_is_settled_beyond_the_frontier(self) -> None:
        runs = self.mark.runs()
        settled = [n for first, last in runs for n in range(first, last + 1)]
        expected = [
            n for n in range(self.mark.frontier + 1, self.highest + 1) if n not in self.open
        ]
        assert settled == expected
        assert all(first <= last for first, last in runs)
        assert len(runs) <= len(self.open)

    @invariant()
    def every_position_is_open_settled_or_yet_to_come(self) -> None:
        for position in range(self.highest + 3):
            assert self.mark.is_open(position) is (position in self.open)
            settled = position <= self.highest and position not in self.open
            assert self.mark.is_settled(position) is settled


TestAgainstANaiveModel = AgainstANaiveModel.TestCase


def test_a_gap_is_nobodys_to_wait_for() -> None:
    mark = Watermark(10)
    for position in (14, 15, 40):
        mark.open(position)
    assert mark.frontier == 13
    mark.complete(14)
    mark.complete(15)
    assert mark.frontier == 39
    mark.complete(40)
    assert mark.frontier == 40


def test_the_oldest_open_position_holds_the_frontier_however_much_is_done_beyond_it() -> None:
    mark = Watermark()
    for position in range(1, 2001):
        mark.open(position)
    for position in range(2, 2001):
        mark.complete(position)
    assert mark.frontier == 0
    assert mark.runs() == [(2, 2000)]
    mark.complete(1)
    assert mark.frontier == 2000
    assert mark.runs() == []


def test_completing_in_order_keeps_no_trace_of_what_is_done() -> None:
    mark = Watermark()
    most = 0
    for position in range(1, 10_001):
        mark.open(position)
        mark.complete(position)
        most = max(most, len(mark._open))
    assert mark.frontier == 10_000
    assert most < 2000


def test_reopening_after_thousands_were_done_takes_the_frontier_back() -> None:
    mark = Watermark()
    for position in range(1, 701):
        mark.open(position)
        mark.complete(position)
    assert mark.reopen(600)
    assert mark.frontier == 599
    assert mark.runs() == [(601, 700)]
    assert mark.complete(600)
    assert mark.frontier == 700
