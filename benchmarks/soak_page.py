"""The part of the page about a soak. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .soak_record import NEVER, clock, figure
from .tables import table

MEMORY = "memory, MiB"

TRIFLE = 1.0
"""MiB an hour."""

TRUSTED = 300
"""Seconds from which on a slope says something."""


def soak_part(entry: Mapping[str, Any]) -> str:
    """What became of every figure."""
    rows = [
        [
            name,
            *(figure(found[of]) for of in ("first", "last", "median", "min", "max")),
            f"{found['per_hour']:+,.2f} ± {found['error']:,.2f}" if "per_hour" in found else "",
        ]
        for name, found in entry["figures"].items()
    ]
    sums = "".join(f", {figure(number)} {name}" for name, number in entry["sums"].items())
    return "\n\n".join(
        [
            f"## Soak: {entry['title']}",
            f"{clock(entry['seconds'])} (h:mm:ss or m:ss), {entry['rounds']:,} rounds{sums}. Slopes"
            " are of straight lines through the second half of the rounds, with their standard"
            " errors.",
            table(["figure", "first", "last", "median", "least", "most", "by hour"], rows),
        ]
    )


def soak_laws(entry: Mapping[str, Any]) -> dict[str, bool]:
    """What is promised of every round, and whether it held."""
    figures = entry["figures"]
    laws = {f"never: {name}": figures[name]["max"] == 0 for name in NEVER if name in figures}
    memory = figures.get(MEMORY, {})
    if "per_hour" in memory and entry["seconds"] >= TRUSTED:
        laws[f"memory is flat: at most three standard errors, or {TRIFLE:g} MiB an hour"] = memory[
            "per_hour"
        ] <= max(TRIFLE, 3 * memory["error"])
    return laws
