"""What this process takes: memory, tasks, threads. Linux tells memory; elsewhere it is 0.

Nothing is waited for before it is counted, and nothing collected but by `kept`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tbus import Bus
from tbus.cli._beside import running_beside

from .workload import Figures

_PAGE = os.sysconf("SC_PAGE_SIZE")

_PEAK = "VmHWM:"

EVERY = 0.02
"""Seconds between two looks at the tasks."""


def resident() -> int:
    """Bytes of this process that are in memory now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def kept() -> int:
    """The same without garbage, which is collected first."""
    gc.collect()
    return resident()


def forget_peak() -> None:
    """Have `peak` count from now on."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak() -> int:
    """The most bytes that were in memory at once, to the system's own knowledge."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(_PEAK)), 0)


def tasks_now(bus: Bus | None = None) -> int:
    """Tasks of the Trio run that this is called in, and of a bus's loop of clients."""
    return trio.lowlevel.current_statistics().tasks_living + (
        0 if bus is None else tasks_in_the_loop(bus)
    )


def tasks_in_the_loop(bus: Bus) -> int:
    """Those of the clients, counted as asyncio does; 0 where there is no such loop."""
    bridge: Any = getattr(bus.transport, "_bridge", None)
    return 0 if bridge is None else len(asyncio.all_tasks(bridge.loop))


def footprint(bus: Bus | None = None) -> Figures:
    """All of it, now."""
    return {
        "tasks": tasks_now(bus),
        "threads": threading.active_count(),
        "memory": resident(),
    }


@asynccontextmanager
async def watch_tasks(bus: Bus, less: Callable[[], int]) -> AsyncIterator[Callable[[], int]]:
    """The most tasks that were seen at once inside the block.

    Args:
        bus: whose loop is counted.
        less: tasks that are the benchmark's own, to be left out.
    """
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, tasks_now(bus) - less())

    async def look_on() -> None:
        while True:
            look()
            await trio.sleep(EVERY)

    async with running_beside(look_on, "count of tasks"):
        yield lambda: most
