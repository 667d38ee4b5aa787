"""Whether a series of figures rises, and how sure that is. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

import attrs

BLOCKS = 20


@attrs.frozen
class Slope:
    """A straight line through a series, by least squares.

    Attributes:
        per_step: how much it rises from one value to the next.
        error: the standard error of that.
    """

    per_step: float
    error: float


def slope(values: Sequence[float], blocks: int = BLOCKS) -> Slope:
    """The slope of a series, and its standard error.

    Neighbours in a series of memory figures are no independent values: an allocator keeps a page
    for many cycles. So the line is drawn through the means of blocks, and the error
    is that of so few independent points, which is larger and more honest than one of all.

    Args:
        values: in the order in which they were taken; at least three.
        blocks: of about equal length that are averaged; fewer where there are fewer values.

    Raises:
        ValueError: there are fewer than three.
    """
    count = len(values)
    if count < 3:
        raise ValueError(f"a slope with an error takes three values at least, not {count}")
    blocks = min(blocks, count)
    edges = [round(number * count / blocks) for number in range(blocks + 1)]
    ranges = list(pairwise(edges))
    xs = [(begin + end - 1) / 2 for begin, end in ranges]
    ys = [fmean(values[begin:end]) for begin, end in ranges]
    x_mean, y_mean = fmean(xs), fmean(ys)
    spread = sum((x - x_mean) ** 2 for x in xs)
    rise = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread
    left = sum((y - y_mean - rise * (x - x_mean)) ** 2 for x, y in zip(xs, ys, strict=True))
    return Slope(rise, math.sqrt(left / (blocks - 2) / spread))
