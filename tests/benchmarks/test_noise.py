"""What is noise and what is not: the rule, held against figures worked out elsewhere."""

from itertools import combinations
from math import comb
from statistics import median

import pytest

from benchmarks.noise import judge, rank_test

SLOW = [100.0, 101, 102, 103, 104]
FAST = [120.0, 121, 122, 123, 124]


def counted_out(before, after):
    """The p of the definition: over every way to deal the values into two sets."""
    values = [*before, *after]
    ordered = sorted(values)
    ranks = [median([p for p, v in enumerate(ordered, 1) if v == value]) for value in values]
    middle = len(after) * (len(values) + 1) / 2
    reached = abs(sum(ranks[len(before) :]) - middle)
    far = sum(
        abs(sum(ranks[place] for place in places) - middle) >= reached
        for places in combinations(range(len(values)), len(after))
    )
    return far / comb(len(values), len(after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (SLOW, FAST),
        ([1, 2, 3], [4, 5, 6]),
        ([1, 4, 2, 8], [5, 7, 1.5]),
        ([1, 1, 2, 2], [2, 2, 3, 3]),
        ([5, 5, 5], [5, 5, 5]),
    ],
)
def test_the_rank_test_counts_what_its_definition_counts(before, after):
    assert rank_test(before, after) == pytest.approx(counted_out(before, after))


def test_two_sets_of_five_without_any_overlap_are_the_least_likely_of_252_deals():
    assert rank_test(SLOW, FAST) == pytest.approx(2 / 252)
    assert rank_test(SLOW, SLOW) == 1


def test_more_of_what_should_be_more_is_better_and_of_what_should_be_less_is_worse():
    assert judge(SLOW, FAST, "more").verdict == "better"
    assert judge(FAST, SLOW, "more").verdict == "worse"
    assert judge(SLOW, FAST, "less").verdict == "worse"
    assert judge(FAST, SLOW, "less").verdict == "better"


def test_a_change_is_told_as_the_median_of_all_ratios_with_those_that_are_not_ruled_out():
    found = judge([100, 200, 400], [200, 400, 800], "more")
    assert found.ratio == 2
    change = judge(SLOW, FAST, "more")
    assert change.low == pytest.approx(120 / 104)
    assert change.high == pytest.approx(124 / 100)


def test_what_is_certain_and_tiny_is_the_same():
    before = [100.0, 100.1, 100.2, 100.3, 100.4]
    after = [value * 1.04 for value in before]
    assert judge(before, after, "less").verdict == "same"
    assert judge(before, after, "less", tolerance=0.03).verdict == "worse"


def test_what_is_large_and_may_be_chance_is_the_same():
    after = [*FAST[1:], 100.5]  # one of them lies among those before
    assert judge(SLOW, after, "more").verdict == "same"


def test_with_fewer_than_five_rounds_nothing_is_said():
    assert judge(SLOW[:4], FAST[:4], "more").verdict == "cannot tell"
    assert judge(SLOW[:2], FAST, "more").verdict == "cannot tell"
    assert judge([100] * 4, [100] * 4, "more").verdict == "cannot tell"


def test_figures_that_can_be_nothing_are_judged_without_a_ratio():
    found = judge([0.0] * 5, [1.0, 2, 3, 4, 5], "less")
    assert (found.verdict, found.ratio) == ("worse", None)
    assert judge([0.0] * 5, [0.0] * 5, "less").verdict == "same"


def test_equal_rounds_are_taken_for_different_ones_no_more_often_than_told():
    # All 252 ways to deal ten different values into two sets of five.
    values = [100 * 1.1**number for number in range(10)]
    wrong = 0
    for places in combinations(range(10), 5):
        before = [values[place] for place in places]
        after = [value for value in values if value not in before]
        wrong += judge(before, after, "more").verdict != "same"
    assert wrong == 2
    assert wrong / 252 <= 0.01


def test_without_a_round_there_is_nothing_to_compare():
    with pytest.raises(ValueError, match="no round"):
        judge([], [1.0], "more")
