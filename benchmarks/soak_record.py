"""What a soak has told so far. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import attrs

from .slopes import slope

SUMS = ("messages", "cycles")
"""Figures of a round that are added up and have no course."""

NEVER = ("missing", "violations", "left behind")
"""Figures that must be 0 in every round."""

AFTERWARDS = {"left behind"}
"""What a look tells that is taken when all is over, and is no round."""

FEWEST = 10
"""Rounds from which on a slope is told."""


@attrs.define
class Record:
    """Every round's figures, and when they came.

    Attributes:
        rounds: how many there were.
        at: seconds from the beginning, for each round, and for the look afterwards.
        courses: the values of each figure, and which round each is of.
        sums: what is added up.
    """

    rounds: int = 0
    at: list[float] = attrs.Factory(list)
    courses: dict[str, list[tuple[int, float]]] = attrs.Factory(dict)
    sums: dict[str, float] = attrs.Factory(dict)

    def add(self, seconds: float, figures: Mapping[str, float]) -> None:
        """One round more, or the look that is taken afterwards."""
        self.rounds += figures.keys() != AFTERWARDS
        for name, value in figures.items():
            if name in SUMS:
                self.sums[name] = self.sums.get(name, 0) + value
            else:
                self.courses.setdefault(name, []).append((len(self.at), value))
        self.at.append(seconds)

    def values(self, name: str) -> list[float]:
        """The course of one figure."""
        return [value for _, value in self.courses[name]]

    def summary(self) -> dict[str, dict[str, Any]]:
        """Every figure from first to last, with its slope by hour; the first half of the rounds
        warms up and has no part in that."""
        found: dict[str, dict[str, Any]] = {}
        for name in self.courses:
            values = self.values(name)
            one: dict[str, Any] = {
                "first": values[0],
                "last": values[-1],
                "median": median(values),
                "min": min(values),
                "max": max(values),
                "rounds": len(values),
            }
            warm = values[len(values) // 2 :]
            hours = (self.at[-1] - self.at[0]) / 3600
            if len(warm) >= FEWEST and hours > 0:
                line = slope(warm)
                rounds_per_hour = (len(self.at) - 1) / hours
                one["per_hour"] = line.per_step * rounds_per_hour
                one["error"] = line.error * rounds_per_hour
            found[name] = one
        return found

    def entry(self, title: str, what: str) -> dict[str, Any]:
        """For the results; courses are thinned to a readable length."""
        return {
            "title": title,
            "what": what,
            "seconds": self.at[-1] if self.at else 0.0,
            "rounds": self.rounds,
            "sums": self.sums,
            "figures": self.summary(),
            "courses": {
                name: [
                    [round(self.at[number], 3), value]
                    for number, value in course[:: max(1, len(course) // 500)]
                ]
                for name, course in self.courses.items()
            },
        }


def figure(value: float) -> str:
    """A figure with as many digits as say something."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:,.2f}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
