"""Cycles on every transport, and what an open bus holds meanwhile, as plain data."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from .holdings import SUBSCRIPTIONS, holdings
from .pressure_plans import LOADS, MEDIA
from .pressure_runs import measure_pressure
from .rounds import in_a_process
from .workload import Job

SHARES: Mapping[str, float] = {
    "memory": 1.0,
    "nats": 1.0,
    "nats+embedded": 1.0,
    "kafka": 1.0,
    "kafka+embedded": 0.02,
}
"""Of the cycles; Kafka takes three seconds to start and to stop."""

TRAFFIC = (LOADS["Low"], LOADS["Extreme"])
"""Messages of two runs that may not differ in their tasks."""

FEWEST = 3
"""Cycles where a cycle takes long, unless even fewer are asked for."""

SECONDS_A_CYCLE = 10.0
"""At most."""


async def measure_leaks(
    urls: Mapping[str, str],
    transports: Sequence[str],
    cycles: int,
    keep: Callable[[dict[str, Any]], Awaitable[None]],
) -> dict[str, Any]:
    """One entry for the results.

    Args:
        urls: where each broker is.
        transports: names of `SHARES`.
        cycles: of each, less where a cycle takes long.
        keep: called with what there is after each transport, in case of an end.
    """
    entry: dict[str, Any] = {"subscriptions": SUBSCRIPTIONS, "backends": {}, "traffic": []}
    for name in transports:
        share = min(cycles, max(FEWEST, int(cycles * SHARES[name])))
        print(f"  {name}: {share:,} cycles", file=sys.stderr, flush=True)
        job = Job(urls[name], "held", share)
        limit = 120 + share * SECONDS_A_CYCLE
        entry["backends"][name] = await in_a_process(holdings.__name__, job, limit)
        await keep(entry)
    media = [name for name in MEDIA if MEDIA[name].broker in transports]

    async def keep_traffic(found: dict[str, Any]) -> None:
        entry["traffic"] = found["runs"]
        await keep(entry)

    # Once: counts do not vary.
    await measure_pressure(urls, media, TRAFFIC, 1, keep_traffic, workloads=["envelopes"])
    return entry
