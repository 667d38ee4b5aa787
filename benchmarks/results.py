"""What was measured, as plain data for JSON: one entry for each benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from . import holdings, kafka_kills, kafka_loops
from .comparisons import COMPARISONS
from .contestants import cost_name, crossing_name
from .plans import SIDES, SLICES, Comparison
from .rounds import compare, in_a_process, in_turn
from .tables import ratios, spread
from .workload import Figures, Job

TITLES = {name: comparison.title for name, comparison in COMPARISONS.items()} | {
    "kafka-kills": "Kafka, a consumer that is killed: what is handled again",
    "kafka-loops": "Kafka, one pull loop for a group: tasks by topics",
    "fairness": "Fairness: a crossing while one side is busy",
    "tasks": "What a bus holds: tasks, and what is left after many cycles",
}
"""What each benchmark is about."""

NAMES = tuple(TITLES)

PROBES = 300

CYCLES = 100

WAYS = ("there", "back")


async def measure(name: str, url: str, rounds: int, scale: float) -> dict[str, Any]:
    """One benchmark's entry."""
    if name == "fairness":
        return await _fairness(url, rounds, scale)
    if name == "tasks":
        return await _tasks(url, scale)
    if name == "kafka-kills":
        return await kafka_kills.measure_kills(url, rounds, scale)
    if name == "kafka-loops":
        return await in_a_process(kafka_loops.kafka_loops.__name__, Job(url, "loops", 1))
    comparison = COMPARISONS[name]
    count, taken = await compare(comparison, url, rounds, scale)
    return summary(comparison, count, taken)


def summary(
    comparison: Comparison, count: int, taken: Mapping[str, Sequence[Figures]]
) -> dict[str, Any]:
    """Medians and spreads of all, ratios of ours to each other one, targets. Pure."""
    ours = comparison.ours.name

    def values(name: str, figure: str) -> list[float]:
        return [figures[figure] for figures in taken[name]]

    contestants: dict[str, dict[str, Any]] = {
        name: {
            "figures": {figure: spread(values(name, figure)) for figure in comparison.figures},
            "ratios": {
                figure: ratios(values(ours, figure), values(name, figure))
                for figure in comparison.figures
                if name != ours
            },
            "rounds": list(figures),
        }
        for name, figures in taken.items()
    }
    targets = []
    for target in comparison.targets:
        if target.against is None:
            reached = contestants[ours]["figures"][target.figure]["median"]
        else:
            reached = contestants[target.against]["ratios"][target.figure]["median"]
        targets.append(
            {
                "figure": target.figure,
                "kind": target.kind,
                "value": target.value,
                "against": target.against,
                "fair": target.fair,
                "reached": reached,
                "met": target.is_met(reached),
            }
        )
    return {
        "count": count,
        "rounds": len(taken[ours]),
        "contestants": contestants,
        "targets": targets,
    }


async def _fairness(url: str, rounds: int, scale: float) -> dict[str, Any]:
    probes = max(30, int(PROBES * scale))
    cases = [(busy, slice_) for busy in SIDES for slice_ in SLICES]
    names = []
    for case in cases:
        names += [crossing_name(*case, fair=True), crossing_name(*case, fair=False)]
        names.append(cost_name(*case))

    async def measure_one(name: str) -> Figures:
        return await in_a_process(name, Job(url, "none", probes))

    taken = await in_turn(names, rounds, measure_one)

    def over_rounds(name: str) -> dict[str, float | None]:
        """Medians of the rounds, the worst p99 of a round, and the largest of all."""
        found: dict[str, float | None] = {}
        for way in WAYS:
            for what, combine in (("p50", median), ("p99", median), ("p99", max), ("max", max)):
                values = [figures[f"{way}_{what}"] for figures in taken[name]]
                known = [value for value in values if value is not None]
                worst = "worst_" if (what, combine) == ("p99", max) else ""
                found[f"{way}_{worst}{what}"] = combine(known) if known else None
        return found

    rows = [
        {
            "busy": busy,
            "slice_ms": slice_,
            "with": over_rounds(crossing_name(busy, slice_, fair=True)),
            "without": over_rounds(crossing_name(busy, slice_, fair=False)),
            "cost_percent": spread(
                [figures["percent"] for figures in taken[cost_name(busy, slice_)]]
            ),
        }
        for busy, slice_ in cases
    ]
    return {"probes": probes, "rounds": rounds, "rows": rows, "all": taken}


async def _tasks(url: str, scale: float) -> dict[str, Any]:
    cycles = max(3, int(CYCLES * scale))
    addresses = {"memory": "memory://", "nats": url, "nats+embedded": "nats+embedded://"}

    async def measure_one(backend: str) -> Figures:
        return await in_a_process(
            holdings.holdings.__name__, Job(addresses[backend], "held", cycles)
        )

    # Counts, not times: once is enough.
    taken = await in_turn(list(addresses), 1, measure_one)
    return {
        "subscriptions": holdings.SUBSCRIPTIONS,
        "backends": {name: found for name, (found,) in taken.items()},
    }
