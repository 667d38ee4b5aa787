"""Rounds, medians, ratios, and the tables made of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Ours over theirs, round by round: each pair was measured one after the other, so what
    the machine did meanwhile is in both."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned."""
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(headings), f"| {' | '.join(rule)} |", *map(line, rows)])


def shown(figure: dict[str, float], digits: int = 0) -> str:
    """Median and, in brackets, smallest and largest."""
    return "{:,.{d}f} ({:,.{d}f}-{:,.{d}f})".format(
        figure["median"], figure["min"], figure["max"], d=digits
    )


def versus(result: dict[str, Any]) -> str:
    """The table of one comparison: rates, and ratios against the named peer."""
    rows = []
    for name, contestant in result["contestants"].items():
        row = [contestant["label"], shown(contestant["figure"])]
        ratio = result["ratios"].get(name)
        row.append("" if ratio is None else shown(ratio, 2))
        rows.append(row)
    return table([result["title"], result["unit"], f"tbus / this ({result['ours']})"], rows)
