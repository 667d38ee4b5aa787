"""Every run of the pressure workloads, round after round, as plain data."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from .pressure import contestant_name, remove_topics
from .pressure_plans import LOADS, MEDIA, WORKLOADS, published
from .rounds import in_a_process
from .tables import spread
from .workload import Figures, Job

SPREAD = ("rate", "publish_rate", "duplicates")

LATENCIES = ("send_ms", "end_to_end_ms")

MOMENTS = ("start", "open", "peak", "end")


async def measure_pressure(
    urls: Mapping[str, str],
    media: Sequence[str],
    counts: Sequence[int],
    rounds: int,
    keep: Callable[[dict[str, Any]], Awaitable[None]],
    workloads: Collection[str] = WORKLOADS,
) -> dict[str, Any]:
    """One entry for the results; workloads, media and sizes take turns in each round.

    Args:
        urls: where each broker is.
        media: names of `MEDIA`.
        counts: messages of a run.
        rounds: how often each runs.
        keep: called with what there is after each run, in case of an end.
        workloads: names of `WORKLOADS`.
    """
    runs = [(workload, medium, n) for workload in workloads for medium in media for n in counts]
    taken: dict[tuple[str, str, int], list[Figures]] = {run: [] for run in runs}
    for number in range(rounds):
        for run in runs:
            workload, medium, count = run
            print(
                f"  round {number + 1} of {rounds}: {workload}, {medium}, {count:,}",
                file=sys.stderr,
                flush=True,
            )
            job = Job(urls[MEDIA[medium].broker], f"press-{uuid.uuid4().hex}", count)
            taken[run].append(await in_a_process(contestant_name(workload, medium), job))
            if MEDIA[medium].broker != "memory":
                await remove_topics(job)
            await keep(_entry(taken))
    return _entry(taken)


def _entry(taken: Mapping[tuple[str, str, int], Sequence[Figures]]) -> dict[str, Any]:
    rounds = max(map(len, taken.values()))
    runs = [summed(*run, found) for run, found in taken.items() if found]
    series = [
        {
            "name": f"{run['workload']}, {run['medium']}, {run['load']}",
            "unit": "messages/s",
            "better": "more",
            "values": [one["rate"] for one in run["rounds"]],
        }
        for run in runs
    ]
    return {"rounds": rounds, "runs": runs, "series": series}


def summed(workload: str, medium: str, count: int, rounds: Sequence[Figures]) -> dict[str, Any]:
    """Medians and spreads of one run's rounds, beside what the original published. Pure."""
    figures: dict[str, Any] = {name: spread([one[name] for one in rounds]) for name in SPREAD}
    for latency in LATENCIES:
        figures[latency] = {
            of: spread([one[latency][of] for one in rounds]) for of in ("p50", "p99", "max")
        }
    figures["unique"] = spread([one["handled"] / count for one in rounds])
    figures["violations"] = spread([one["violations"] for one in rounds])
    for what in ("tasks", "memory"):
        figures[what] = {
            moment: spread([one[moment][what] for one in rounds]) for moment in MOMENTS
        }
    return {
        "workload": workload,
        "medium": medium,
        "count": count,
        "load": next((name for name, size in LOADS.items() if size == count), f"{count:,}"),
        "figures": figures,
        "published": published(MEDIA[medium], workload, count),
        "rounds": list(rounds),
    }
