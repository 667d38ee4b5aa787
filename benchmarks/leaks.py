"""What is left after a bus was opened, used and closed many times in one process.

Held things are compared by identity after every cycle, in the statement after the block, with no
sleep and no collection of garbage. Memory has no identity: it is read after every cycle, and what
counts is whether it rises once the process is warm. Garbage is collected before it is read, and
after everything else was compared: Python collects what is old after thousands of cycles only, so
that memory would tell when it does, not what is kept.
"""

from __future__ import annotations

import gc
import sys
import time
from array import array
from collections.abc import Callable

import trio

from tbus import Envelope, Message, open_bus
from tbus.testing import ProcessCensus, take_census

from .footprint import resident
from .slopes import slope
from .workload import Figures, Job

MOMENTS = (1, 10, 100, 1000, 10_000)
"""Cycles after which what is held is compared."""

EVENTS = 10
"""That are published and handled in a cycle, by each of two subscriptions."""

WARM_UP = 0.2
"""Share of the cycles that do not count for memory: caches fill, the allocator finds its size."""


async def cycles(job: Job, tell: Callable[[int], None] | None = None) -> Figures:
    """Open, use and close a bus many times; what is held before, after and in between.

    Args:
        job: its count is the number of cycles.
        tell: called after each, with how many are done.
    """
    await cycle(job)  # what is imported and cached once is not a leak
    after = before = take_census()
    residue: dict[str, dict[str, int]] = {}
    memory, blocks = array("q"), array("q")
    different = 0
    begun = time.perf_counter()
    for number in range(1, job.count + 1):
        await cycle(job)
        after = take_census()
        different += after != before
        if number in MOMENTS:
            residue[str(number)] = _beyond(after, before)
        gc.collect()
        memory.append(resident())
        blocks.append(sys.getallocatedblocks())
        if tell is not None:
            tell(number)
    seconds = time.perf_counter() - begun
    return {
        "cycles": job.count,
        "different": different,
        "seconds": seconds,
        "before": counts(before),
        "after": counts(after),
        "difference": after.difference(before),
        "residue": residue,
        "memory": _trend(memory),
        "blocks": _trend(blocks),
    }


async def cycle(job: Job) -> None:
    """Publish some events and handle them, in a group and without one."""
    async with open_bus(job.url, nats={"storage": "memory"}) as bus:
        wanted = 2 * EVENTS
        done = trio.Event()

        async def handle(_: Message) -> None:
            nonlocal wanted
            wanted -= 1
            if wanted == 0:
                done.set()

        await bus.subscribe(job.topic, handle)
        await bus.subscribe(job.topic, handle, group="cycles")
        async with bus.open_publisher() as publisher:
            for number in range(EVENTS):
                await publisher.send(job.topic, Envelope.new(f"k-{number % 3}", "E", {}))
        await done.wait()


def counts(census: ProcessCensus) -> dict[str, int]:
    """How much of each kind is held."""
    return {
        "tasks": len(census.tasks),
        "threads": len(census.threads),
        "files": len(census.files),
        "processes": len(census.processes),
    }


def _beyond(now: ProcessCensus, before: ProcessCensus) -> dict[str, int]:
    """How much is held that was not held before."""
    return {
        "tasks": len(now.tasks - before.tasks),
        "threads": len(now.threads - before.threads),
        "files": len(now.files - before.files),
        "processes": len(now.processes - before.processes),
    }


def _trend(values: array[int]) -> Figures:
    """The series, thinned to a readable length, and its slope once warm."""
    warm = values[int(len(values) * WARM_UP) :]
    found: Figures = {
        "every": max(1, len(values) // 200),
        "values": list(values[:: max(1, len(values) // 200)]),
        "warm": warm[0],
        "last": warm[-1],
    }
    if len(warm) >= 3:
        line = slope(warm)
        found |= {"per_cycle": line.per_step, "error": line.error}
    return found
