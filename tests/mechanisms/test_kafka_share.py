"""What a process holds of a Kafka partition, and what of it may be committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tbus._marks import Mark, decode, encode
from tbus.transports.kafka._share import Commit, Share


def opened(share: Share, *offsets: int) -> list[int]:
    """Those that are to be handed over."""
    if offsets and share.open_all(offsets):
        return list(offsets)
    opens = share.opener()
    return [offset for offset in offsets if opens(offset)]


def test_nothing_is_due_where_the_broker_has_it_all():
    share = Share(0, 1, 5, committed=5)
    opened(share, 5, 6)
    assert share.due() is None


def test_a_partition_in_which_nothing_was_committed_is_due_at_once():
    assert Share(0, 1, 5).due() == Commit(5, (), ())


def test_only_what_lies_before_the_first_unsettled_offset_is_committed():
    share = Share(0, 1, 0, committed=0)
    opened(share, 0, 1, 2, 3, 4)
    share.settle({1})
    share.settle({3})
    assert share.due() == Commit(0, ((1, 1), (3, 3)), ())
    share.settle({0})
    assert share.due() == Commit(2, ((3, 3),), ())


def test_what_was_given_back_holds_the_frontier_for_good():
    share = Share(0, 1, 0, committed=0)
    opened(share, 0, 1)
    assert share.give_back(0)
    assert share.settle({1})
    assert not share.settle({0})
    assert share.due() == Commit(0, ((1, 1),), ())


def test_a_message_is_settled_once():
    share = Share(0, 1, 0, committed=0)
    opened(share, 0)
    assert not share.settle({7})
    assert share.settle({0})
    assert not share.settle({0})
    assert not share.give_back(0)


def test_what_a_mark_says_was_settled_is_not_handed_over_again():
    mark = Mark(10, ((12, 13), (15, 15)))
    share = Share(0, 1, 10, mark, committed=10)
    assert opened(share, *range(10, 18)) == [10, 11, 14, 16, 17]
    assert share.next_offset == 18


def test_a_mark_that_has_not_been_reached_yet_is_committed_again():
    share = Share(0, 1, 10, Mark(10, ((12, 13), (15, 15))), committed=10)
    assert share.due() is None
    opened(share, 10, 11)
    share.settle({10})
    assert share.due() == Commit(11, ((12, 13), (15, 15)), ())
    share.settle({11})
    assert share.due() == Commit(14, ((15, 15),), ())


def test_a_mark_that_was_read_half_is_committed_whole():
    share = Share(0, 1, 10, Mark(10, ((12, 20),)), committed=10)
    opened(share, 10, 11, 12, 13)
    share.settle({11})
    assert share.due() == Commit(10, ((11, 20),), ())
    share.settle({10})
    assert share.due() == Commit(21, (), ())


def test_failures_are_counted_on_by_the_next_owner():
    share = Share(0, 1, 10, Mark(10, (), ((10, 3), (12, 1))), committed=10)
    opened(share, 10, 11, 12)
    assert [share.attempts(offset) for offset in (10, 11, 12)] == [3, 0, 1]
    share.note_attempts(11, 2)
    assert share.due() == Commit(10, (), ((10, 3), (11, 2), (12, 1)))
    share.settle({10})
    assert share.due() == Commit(11, (), ((11, 2), (12, 1)))


def test_failures_of_what_is_not_in_flight_are_not_counted():
    share = Share(0, 1, 0, committed=0)
    opened(share, 0)
    share.settle({0})
    share.note_attempts(0, 1)
    share.note_attempts(99, 1)


def test_what_the_broker_has_heard_is_not_told_again():
    share = Share(0, 1, 0, committed=0)
    opened(share, 0, 1)
    share.settle({0})
    commit = share.due()
    assert commit is not None
    share.settle({1})
    share.committed(commit)
    assert share.due() == Commit(2, (), ())


class Owners(RuleBasedStateMachine):
    """One partition through many owners, some of which die before they have committed.

    The model is the set of offsets that were completed. Nothing that is not completed may
    ever be passed over, and nothing that was completed when it was committed comes again.
    """

    @initialize(gaps=st.lists(st.sampled_from([1, 1, 1, 2, 5]), min_size=1, max_size=30))
    def start(self, gaps: list[int]) -> None:
        self.stored: list[int] = []
        at = 0
        for gap in gaps:  # compaction and control records leave gaps
            self.stored.append(at)
            at += gap
        self.done: set[int] = set()
        self.known: set[int] = set()
        """Of these the broker has heard."""
        self.settled: set[int] = set()
        """What the owner knows of: these, and what it has completed itself."""
        self.failures: dict[int, int] = {}
        self.kept: dict[int, int] = {}
        self.commit: Commit | None = None
        self.epoch = 0
        self._own()

    def _own(self) -> None:
        self.epoch += 1
        if self.commit is None:
            self.share = Share(0, self.epoch, 0)
        else:
            base = self.commit.offset
            text = encode(Mark(base, self.commit.runs, self.commit.attempts), 4096)
            self.share = Share(0, self.epoch, base, decode(text, base), base)
        self.open: set[int] = set()
        self.settled = set(self.known)
        self.failures = dict(self.kept)

    @rule(count=st.integers(1, 10))
    def hand_over(self, count: int) -> None:
        coming = [one for one in self.stored if one >= self.share.next_offset][:count]
        given = opened(self.share, *coming)
        assert not set(given) & self.known, "what was settled and committed came again"
        assert set(coming) - set(given) <= self.done, "a message was passed over"
        self.open |= set(given)
        for offset in given:
            assert self.share.attempts(offset) == self.failures.get(offset, 0)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        offsets = data.draw(st.sets(st.sampled_from(sorted(self.open)), min_size=1))
        stray = data.draw(st.sets(st.sampled_from(sorted(self.stored)))) - self.open
        assert set(self.share.settle(offsets | stray)) == offsets
        self.open -= offsets
        self.done |= offsets
        self.settled |= offsets
        for offset in offsets:
            self.failures.pop(offset, None)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.open)))
        assert self.share.give_back(offset)
        assert not self.share.give_back(offset)
        self.open.discard(offset)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.open)))
        self.failures[offset] = self.failures.get(offset, 0) + 1
        self.share.note_attempts(offset, self.failures[offset])

    @rule(heard=st.booleans())
    def tell_the_broker(self, heard: bool) -> None:
        commit = self.share.due()
        if commit is None or not heard:
            return
        self.commit = commit
        self.share.committed(commit)
        self.known = set(self.settled)
        self.kept = dict(self.failures)

    @rule()
    def another_owner(self) -> None:
        self._own()

    @invariant()
    def the_committed_offset_passes_over_nothing(self) -> None:
        commit = self.share.due()
        if commit is not None:
            assert {one for one in self.stored if one < commit.offset} <= self.done
            for first, last in commit.runs:
                assert {one for one in self.stored if first <= one <= last} <= self.done
                assert first > commit.offset


TestOwners = Owners.TestCase


@given(
    base=st.integers(0, 50),
    length=st.integers(1, 60),
    done=st.sets(st.integers(0, 60)),
)
def test_every_commit_can_be_written_as_a_mark(base, length, done):
    share = Share(0, 1, base, committed=base)
    opened(share, *range(base, base + length))
    share.settle({base + offset for offset in done})
    commit = share.due()
    if commit is not None:
        mark = Mark(commit.offset, commit.runs, commit.attempts)
        assert decode(encode(mark, 4096), commit.offset) == mark


# --- a partition that was lost and is had again --------------------------------------------


def test_what_was_settled_before_a_partition_was_lost_is_not_handed_over_again():
    first = Share(0, 1, 10, committed=10)
    opened(first, *range(10, 20))
    first.settle({10, 11, 12, 15})
    again = Share(0, 2, 10, committed=10, before=first)
    assert opened(again, *range(10, 20)) == [13, 14, 16, 17, 18, 19]
    assert again.due() == Commit(13, ((15, 15),), ())


def test_what_was_settled_after_a_partition_was_lost_is_not_handed_over_again():
    first = Share(0, 1, 10, committed=10)
    opened(first, 10, 11)
    first.settle({11})
    again = Share(0, 2, 10, committed=10, before=first)
    assert again.due() == Commit(10, ((11, 11),), ())
    assert opened(again, 10, 11) == [10]


def test_what_another_owner_has_settled_meanwhile_counts_as_well():
    first = Share(0, 1, 10, committed=10)
    opened(first, *range(10, 20))
    first.settle({10, 14, 15})
    again = Share(0, 3, 12, Mark(12, ((16, 17),), ((13, 2),)), committed=12, before=first)
    assert opened(again, *range(12, 20)) == [12, 13, 18, 19]
    assert again.attempts(13) == 2


def test_a_group_that_was_set_back_reads_again():
    first = Share(0, 1, 10, committed=10)
    opened(first, 10, 11)
    first.settle({10, 11})
    commit = first.due()
    assert commit is not None
    first.committed(commit)
    again = Share(0, 3, 5, committed=5, before=first)
    assert opened(again, *range(5, 12)) == [5, 6, 7, 8, 9, 10, 11]


def test_a_group_that_has_committed_nothing_begins_where_it_is_told():
    first = Share(0, 1, 0, committed=0)
    opened(first, 0, 1)
    first.settle({0, 1})
    again = Share(0, 2, 0, before=first)
    assert opened(again, 0, 1) == [0, 1]


def test_failures_of_what_was_settled_here_are_forgotten():
    first = Share(0, 1, 10, committed=10)
    opened(first, 10, 11)
    first.settle({11})
    again = Share(0, 2, 10, Mark(10, (), ((10, 1), (11, 3))), committed=10, before=first)
    assert again.due() == Commit(10, ((11, 11),), ((10, 1),))


def test_what_is_known_is_handed_on_from_share_to_share():
    first = Share(0, 1, 10, committed=10)
    opened(first, 10, 11, 12)
    first.settle({12})
    second = Share(0, 2, 10, committed=10, before=first)
    third = Share(0, 3, 10, committed=10, before=second)
    assert opened(third, 10, 11, 12) == [10, 11]
