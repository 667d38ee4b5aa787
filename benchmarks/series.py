"""The figures of a result file as rows of rounds that can be held against another's. Pure.

A comparison with peers is judged by the ratio of ours to each peer, round by round, in which the
machine's own speed is not contained; its plain figures are told and not judged. One without
peers has nothing but its plain figures. Any other benchmark says itself what of it can be
compared: its entry has `series`, a list of objects with `name`, `unit`, `better` ("more" or "less")
and `values`, one for each round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from .comparisons import COMPARISONS
from .noise import Better
from .plans import Comparison


@attrs.frozen
class Series:
    """One figure, round after round.

    Attributes:
        benchmark: its name on the command line.
        name: of the figure, unique in its benchmark.
        unit: of the values.
        better: whether more is better, or less.
        values: of the rounds.
        kind: "ratio" and "figure" are judged; "plain" is told, for it has a ratio beside it;
            "peer" is another's: what the machine did meanwhile.
    """

    benchmark: str
    name: str
    unit: str
    better: Better
    values: tuple[float, ...]
    kind: str = "figure"


def series_of(results: Mapping[str, Any]) -> dict[tuple[str, str], Series]:
    """All figures of a result file, by benchmark and name."""
    found: dict[tuple[str, str], Series] = {}
    for benchmark, entry in results["results"].items():
        for one in _of_entry(benchmark, entry):
            found[benchmark, one.name] = one
    return found


def better_of(unit: str) -> Better:
    """Whether more of a figure is better: of a rate it is (events/s); of a time it is not, nor of
    what is sent for nothing (messages a second)."""
    return "more" if unit.endswith("/s") else "less"


def _of_entry(benchmark: str, entry: Mapping[str, Any]) -> Iterator[Series]:
    if benchmark in COMPARISONS:
        yield from _of_comparison(COMPARISONS[benchmark], entry)
    if benchmark == "kafka-kills":
        for name, taken in entry["contestants"].items():
            values = tuple(float(round_["repeats"]) for round_ in taken["rounds"])
            kind = "figure" if is_ours(name) else "plain"
            yield Series(benchmark, f"repeats: {name}", "events", "less", values, kind)
    for one in entry.get("series", ()):
        yield Series(benchmark, one["name"], one["unit"], one["better"], tuple(one["values"]))


def _of_comparison(comparison: Comparison, entry: Mapping[str, Any]) -> Iterator[Series]:
    taken = entry["contestants"]
    labels = {one.name: one.label for one in comparison.contestants if one.name in taken}
    ours = comparison.ours.name
    peers = [name for name in labels if name != ours and not is_ours(name)]
    for figure, unit in comparison.figures.items():
        better = better_of(unit)
        for name, label in labels.items():
            values = tuple(float(round_[figure]) for round_ in taken[name]["rounds"])
            kind = "peer" if name in peers else "plain" if peers else "figure"
            yield Series(comparison.name, f"{figure}: {label}", unit, better, values, kind)
            if name in peers:
                pairs = zip(taken[ours]["rounds"], taken[name]["rounds"], strict=True)
                yield Series(
                    comparison.name,
                    f"{figure} over {label}",
                    "x",
                    better,
                    tuple(our[figure] / their[figure] for our, their in pairs),
                    "ratio",
                )


def is_ours(name: str) -> bool:
    """Whether a contestant is tbus."""
    return "tbus" in name
