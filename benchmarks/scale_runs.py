"""Every point of every curve, as plain data."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tbus import open_bus

from .rounds import in_a_process
from .scale import contestant_name, count_of
from .scale_plans import AXES, Axis
from .tables import spread
from .workload import Failed, Figures, Job

LIMIT = 900.0
"""Seconds that one point may take."""

LONGEST = 300
"""Characters of what is kept of an error."""

QUICK = 0.02
"""Share of the messages, for a look."""


async def measure_scale(
    urls: Mapping[str, str],
    axes: Sequence[str],
    transports: Sequence[str],
    rounds: int,
    keep: Callable[[dict[str, Any]], Awaitable[None]],
    *,
    quick: bool = False,
) -> dict[str, Any]:
    """One entry for the results.

    Args:
        urls: where each broker is.
        axes: names of `AXES`.
        transports: over which.
        rounds: how often each point is measured.
        keep: called with what there is after each point, in case of an end.
        quick: few messages, and the first points alone.
    """
    points = [
        (axis, value, transport)
        for axis in axes
        for value in (AXES[axis].values[:3] if quick else AXES[axis].values)
        for transport in transports
        if value in AXES[axis].values_over(transport)
    ]
    taken: dict[tuple[str, int, str], list[Figures]] = {point: [] for point in points}
    for number in range(rounds):
        for point in points:
            axis, value, transport = point
            print(
                f"  round {number + 1} of {rounds}: {axis}, {value:,}, {transport}",
                file=sys.stderr,
                flush=True,
            )
            share = QUICK if quick else 1.0
            count = count_of(axis, value, int(AXES[axis].count * share))
            job = Job(urls[transport], f"scale-{uuid.uuid4().hex}", count)
            taken[point].append({"count": count, **await _point(axis, value, job)})
            await remove_topics(job)
            await keep(_entry(axes, taken))
    return _entry(axes, taken)


async def _point(axis: str, value: int, job: Job) -> Figures:
    """One point's figures, or why there are none: that is a figure, too."""
    try:
        return await in_a_process(contestant_name(axis, value), job, LIMIT)
    except Failed as error:
        why = str(error)
        print(f"    {why}", file=sys.stderr, flush=True)
        return {"failed": error_of(why)[:LONGEST]}


def error_of(text: str) -> str:
    """The line that names the error, of what a process printed: the first one behind the last
    line of the traceback. Notes come after it."""
    lines = text.strip().splitlines()
    inner = [number for number, line in enumerate(lines[:-1]) if line.startswith(" ")]
    return lines[inner[-1] + 1 if inner else -1]


def _entry(
    axes: Sequence[str], taken: Mapping[tuple[str, int, str], Sequence[Figures]]
) -> dict[str, Any]:
    rounds = max(map(len, taken.values()))
    found = {axis: summed(AXES[axis], taken) for axis in axes}
    series = [
        {
            "name": f"{AXES[axis].title.lower()} {point['value']:,}, {point['transport']}: CPU",
            "unit": "us/message",
            "better": "less",
            "values": [one["cpu_us"] for one in point["rounds"]],
        }
        for axis, points in found.items()
        for point in points
        if point["rounds"]
    ]
    return {"rounds": rounds, "axes": found, "series": series}


def summed(
    axis: Axis, taken: Mapping[tuple[str, int, str], Sequence[Figures]]
) -> list[dict[str, Any]]:
    """The points of one axis, with the spread of every figure. Pure."""
    return [
        {
            "value": value,
            "transport": transport,
            "count": rounds[0]["count"],
            "failed": [one["failed"] for one in rounds if "failed" in one],
            "figures": _spreads([one for one in rounds if "failed" not in one]),
            "rounds": [one for one in rounds if "failed" not in one],
        }
        for (name_of_axis, value, transport), rounds in taken.items()
        if name_of_axis == axis.name and rounds
    ]


def _spreads(rounds: Sequence[Figures]) -> dict[str, dict[str, float]]:
    names = [name for name in rounds[0] if name != "count"] if rounds else []
    return {name: spread([one[name] for one in rounds]) for name in names}


async def remove_topics(job: Job) -> None:
    """Remove all topics of a point."""
    if job.url.startswith("memory"):
        return
    async with open_bus(job.url) as bus:
        for name in await bus.list_topics():
            if name.startswith(job.topic):
                await bus.remove_topic(name)
