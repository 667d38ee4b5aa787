"""Medians, ratios, and the tables made of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Ours over theirs, round by round: the two of a pair ran within the same seconds, so a
    machine that was slower then was so for both.

    Raises:
        ValueError: there are not as many of one as of the other.
    """
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


SMALL = ("ms", "messages a second")
"""Units of figures that are a few of them."""


def digits_of(unit: str) -> int:
    """How many digits behind the point a figure is told with."""
    return 1 if unit in SMALL else 0


def shown(figure: Mapping[str, float], digits: int = 0) -> str:
    """Median and, in brackets, smallest and largest."""
    return "{:,.{d}f} ({:,.{d}f}-{:,.{d}f})".format(
        figure["median"], figure["min"], figure["max"], d=digits
    )


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned; the first to the left, figures to the right."""
    widths = [max(3, *(len(row[i]) for row in (headings, *rows))) for i in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(headings), f"| {' | '.join(rule)} |", *map(line, rows)])
