"""How long a crossing waits while one side is busy, and what the cure costs.

One side burns CPU in slices of fixed work and gives its loop a pass between them. A probe
crosses from the program into the clients' loop and back, again and again, and each way is
timed apart: one has to get the interpreter from the busy side, the other to get through to
its loop. Once with the bridge's rests, once without. Without them a run is either undisturbed or
stuck for seconds, as it happens (other work on the machine pushes the busy side off its core, and
so lets the other one in): one run says little, and the worst of several is told.

What the rests cost is measured apart: how many slices the busy side gets done, nobody probing,
with and without in turn, in many short pairs.
"""

from __future__ import annotations

import asyncio
import math
import time

import trio

from tbus._bridge import open_bridge

from .tables import spread
from .workload import Figures, Job, percentile

LIMIT = 4.0
"""Seconds after which fewer probes have to do: without the cure one may take that long."""

COST_SECONDS = 0.1

PROBES_PER_COST_PAIR = 15
"""Pairs of a cost are as many as probes, less by so much."""


def burn(steps: int) -> None:
    """Use the interpreter for a while."""
    for _ in range(steps):
        pass


def steps_in(seconds: float) -> int:
    """How much of `burn` takes so long where nobody disturbs it."""
    tried = 100_000
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        burn(tried)
        best = min(best, time.perf_counter() - start)
    return max(1, round(tried * seconds / best))


async def crossing(job: Job, busy: str, milliseconds: float, fair: bool) -> Figures:
    """Both ways of a crossing, in milliseconds, while one side is busy.

    Args:
        job: its count is the number of probes.
        busy: "program" or "clients".
        milliseconds: of work between two passes of the busy loop.
        fair: with the cure.
    """
    steps = steps_in(milliseconds / 1e3)
    stopped = False
    ways: dict[str, list[float]] = {"there": [], "back": []}

    async def burn_here() -> None:
        while True:
            burn(steps)
            await trio.lowlevel.checkpoint()

    async def burn_there() -> None:
        while not stopped:
            burn(steps)
            await asyncio.sleep(0)

    async with open_bridge(fair=fair) as bridge, trio.open_nursery() as nursery:

        async def cross() -> None:
            arrived = trio.Event()
            left = time.perf_counter()
            turned = 0.0

            def in_the_loop() -> None:
                nonlocal turned
                turned = time.perf_counter()
                bridge.post(arrived.set)

            bridge.submit(in_the_loop)
            with trio.move_on_after(LIMIT):
                await arrived.wait()
            now = time.perf_counter()
            # One that did not get through in time has waited for at least so long.
            ways["there"].append((turned or now) - left)
            if turned:
                ways["back"].append(now - turned)

        if busy == "program":
            nursery.start_soon(burn_here)
        else:
            nursery.start_soon(bridge.call, burn_there)
        await trio.sleep(0.05)
        begun = time.perf_counter()
        while len(ways["there"]) < job.count and time.perf_counter() - begun < LIMIT:
            await cross()
        stopped = True
        nursery.cancel_scope.cancel()
    figures: Figures = {"probes": len(ways["there"])}
    for way, took in ways.items():
        # None: not one has arrived.
        figures[f"{way}_p50"] = percentile(took, 0.5) * 1e3 if took else None
        figures[f"{way}_p99"] = percentile(took, 0.99) * 1e3 if took else None
        figures[f"{way}_max"] = max(took) * 1e3 if took else None
    return figures


async def cost(job: Job, busy: str, milliseconds: float) -> Figures:
    """The share of its throughput, in percent, that a busy side loses to the rests."""
    steps = steps_in(milliseconds / 1e3)
    lost = []
    for number in range(max(4, job.count // PROBES_PER_COST_PAIR)):
        order = (True, False) if number % 2 else (False, True)
        rate = {fair: await _slices_per_second(steps, busy, COST_SECONDS, fair) for fair in order}
        lost.append(100 * (1 - rate[True] / rate[False]))
    return {"percent": spread(lost)["median"], "all": lost}


async def _slices_per_second(steps: int, busy: str, seconds: float, fair: bool) -> float:
    done = 0
    took = 0.0

    async def burn_here() -> None:
        nonlocal done, took
        start = time.perf_counter()
        while took < seconds:
            burn(steps)
            done += 1
            await trio.lowlevel.checkpoint()
            took = time.perf_counter() - start

    async def burn_there() -> None:
        nonlocal done, took
        start = time.perf_counter()
        while took < seconds:
            burn(steps)
            done += 1
            await asyncio.sleep(0)
            took = time.perf_counter() - start

    async with open_bridge(fair=fair) as bridge:
        if busy == "program":
            await burn_here()
        else:
            await bridge.call(burn_there)
    return done / took
