"""Whether two sets of rounds differ by more than they do among themselves. Pure.

The rule, for the rounds of one figure in two result files:

1. the exact two-sided rank test of Mann and Whitney ("On a test of whether one of two random
   variables is stochastically larger than the other", Annals of Mathematical Statistics 18, 1947)
   says that rounds so far apart come by chance at most once in a hundred times (`ALPHA`); it
   knows of no distribution, which rounds on a machine that others use do not have. Ties get the
   mean of their ranks, and the distribution is counted out over all ways to deal the ranks;
2. the change, by the estimate of Hodges and Lehmann ("Estimates of location based on rank tests",
   Annals of Mathematical Statistics 34, 1963), here the median of all ratios of a round after to
   a round before, is larger than a tolerance: what is certain and tiny is nobody's concern.

Both must hold. Five rounds in each file can satisfy the first, if all of one lie beyond all of the
other; four cannot, and then nothing is said. What the rule does not see is what differs from run to
run and not from round to round; so figures that have a peer are judged by their ratio to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import comb
from statistics import median
from typing import Literal

import attrs

ALPHA = 0.01
"""How often two equal sets of rounds may be taken for different ones."""

TOLERANCE = 0.05
"""The part by which a figure must have changed to be told."""

Verdict = Literal["better", "worse", "same", "cannot tell"]
Better = Literal["more", "less"]


@attrs.frozen
class Change:
    """What became of one figure.

    Attributes:
        verdict: by the rule.
        ratio: after over before; None where a round is 0 or less.
        low: of the ratios that the test does not rule out, the least.
        high: and the greatest.
        p: how likely rounds so far apart are, if nothing has changed.
    """

    verdict: Verdict
    ratio: float | None
    low: float | None
    high: float | None
    p: float


def judge(
    before: Sequence[float],
    after: Sequence[float],
    better: Better,
    *,
    tolerance: float = TOLERANCE,
    alpha: float = ALPHA,
) -> Change:
    """What became of a figure.

    Args:
        before: one value for each round.
        after: the same, later.
        better: whether more of it is better, or less.
        tolerance: the part that does not matter, e.g. 0.05.
        alpha: how unlikely it must be.

    Raises:
        ValueError: there is no round.
    """
    if not before or not after:
        raise ValueError("there is nothing to compare: no round")
    p = rank_test(before, after)
    ratio = low = high = None
    if min(*before, *after) > 0:
        ratio, low, high = _shift(before, after, alpha)
        moved = abs(ratio - 1) > tolerance
        up = ratio > 1
    else:
        was, now = median(before), median(after)
        moved = abs(now - was) > tolerance * abs(was)
        up = now > was
    verdict: Verdict = "same"
    if 2 / comb(len(before) + len(after), len(after)) > alpha:
        verdict = "cannot tell"
    elif p <= alpha and moved:
        verdict = "better" if up == (better == "more") else "worse"
    return Change(verdict, ratio, low, high, p)


def rank_test(before: Sequence[float], after: Sequence[float]) -> float:
    """The exact two-sided p of Mann and Whitney's test, with ties."""
    ranks = _doubled_ranks([*before, *after])
    taken = len(after)
    reached = sum(ranks[len(before) :])
    middle = taken * (len(ranks) + 1)  # the mean of sums of doubled ranks
    ways = _ways(ranks, taken)
    far = sum(n for total, n in ways.items() if abs(total - middle) >= abs(reached - middle))
    return far / comb(len(ranks), taken)


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each, equal ones sharing theirs: whole numbers all the same."""
    ordered = sorted(values)
    first = {value: place for place, value in reversed(list(enumerate(ordered, 1)))}
    last = {value: place for place, value in enumerate(ordered, 1)}
    return [first[value] + last[value] for value in values]


def _ways(ranks: Sequence[int], taken: int) -> dict[int, int]:
    """How many ways to take so many of the ranks have which sum."""
    found: list[dict[int, int]] = [{} for _ in range(taken + 1)]
    found[0][0] = 1
    for rank in ranks:
        for size in range(taken, 0, -1):
            for total, ways in found[size - 1].items():
                found[size][total + rank] = found[size].get(total + rank, 0) + ways
    return found[taken]


def _shift(
    before: Sequence[float], after: Sequence[float], alpha: float
) -> tuple[float, float, float]:
    """The median of all ratios, and the least and greatest that the test does not rule out."""
    found = sorted(b / a for a, b in product(before, after))
    untied = _ways(range(1, len(before) + len(after) + 1), len(after))
    least = len(after) * (len(after) + 1) // 2
    left_out = likely = 0
    for beyond in range(len(found) // 2):
        likely += untied.get(least + beyond, 0)
        if likely / comb(len(before) + len(after), len(after)) > alpha / 2:
            break
        left_out = beyond
    return median(found), found[left_out], found[-1 - left_out]
