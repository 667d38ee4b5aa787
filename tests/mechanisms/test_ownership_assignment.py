"""Partitions are shared evenly, and no more of them move than must."""

from __future__ import annotations

from collections import Counter
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from tbus._ownership._assignment import assign

NAMES = [f"m{number}" for number in range(8)]
members = st.sets(st.sampled_from(NAMES))
current = st.lists(st.sampled_from(["", "gone", *NAMES]), max_size=20)


def count_moved(before: list[str] | tuple[str, ...], after: tuple[str, ...]) -> int:
    return sum(one != other for one, other in zip(before, after, strict=True))


@given(members, current)
def test_sizes_differ_by_one_at_most(members: set[str], current: list[str]) -> None:
    result = assign(members, current)
    assert len(result) == len(current)
    if not members:
        assert set(result) <= {""}
        return
    sizes = Counter(result)
    assert sizes.keys() <= members
    assert max(sizes[member] for member in members) - min(sizes[one] for one in members) <= 1


@given(st.sets(st.sampled_from(NAMES[:3])), st.lists(st.sampled_from(["", *NAMES[:3]]), max_size=6))
def test_no_even_sharing_moves_fewer(members: set[str], current: list[str]) -> None:
    if not members:
        return
    even = (
        other
        for other in product(sorted(members), repeat=len(current))
        if max(other.count(one) for one in members) - min(other.count(one) for one in members) <= 1
    )
    assert count_moved(current, assign(members, current)) == min(
        count_moved(current, other) for other in even
    )


@given(members, current, st.randoms())
def test_whoever_works_it_out_gets_the_same(members: set[str], current: list[str], random) -> None:
    listed = [*members, *members]
    random.shuffle(listed)
    assert assign(listed, current) == assign(sorted(members), current)


@given(members, current)
def test_what_is_shared_evenly_stays(members: set[str], current: list[str]) -> None:
    once = assign(members, current)
    assert assign(members, once) == once


@given(st.integers(1, 12), st.integers(1, 40))
def test_a_member_that_comes_moves_no_more_than_its_share(size: int, partitions: int) -> None:
    group = [f"m{number:02}" for number in range(size)]
    before = assign(group, [""] * partitions)
    after = assign([*group, "new"], before)
    assert count_moved(before, after) == after.count("new") <= -(-partitions // (size + 1))


@given(st.integers(2, 12), st.integers(1, 40), st.integers(0, 11))
def test_when_a_member_goes_only_what_it_had_moves(size: int, partitions: int, which: int) -> None:
    group = [f"m{number:02}" for number in range(size)]
    before = assign(group, [""] * partitions)
    gone = group[which % size]
    after = assign([one for one in group if one != gone], before)
    assert count_moved(before, after) == before.count(gone)


def test_a_member_that_is_alone_gets_everything() -> None:
    assert assign(["a"], ["", "b", "a"]) == ("a", "a", "a")


def test_more_members_than_partitions_leave_some_standing_by() -> None:
    assert sorted(assign(["a", "b", "c"], ["c"])) == ["c"]
