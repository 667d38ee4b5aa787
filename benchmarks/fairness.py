"""How long a crossing waits while the other side is busy, and what the cure costs.

One side burns CPU in slices, giving its loop a pass between them. A probe crosses from the
program into the clients' loop and back, again and again; how long each way took is told
apart, since one of them has to get through to a busy loop and the other has to get the
interpreter from it. Once with the bridge's rests, once without. What the rests cost is
measured apart: how much a busy program gets done in a second, nobody probing.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import trio

from tbus._bridge import open_bridge

from .contestants import percentile

PROBES = 300


def burn(seconds: float) -> None:
    """Use the interpreter for a while."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def measure(busy: str, slice_seconds: float, fair: bool, limit: float) -> dict[str, Any]:
    """Round trips while one side is busy.

    Args:
        busy: "program" or "clients".
        slice_seconds: for how long it burns between two passes of its loop.
        fair: with the cure.
        limit: seconds after which fewer probes than `PROBES` have to do.
    """
    stopped = False
    there: list[float] = []
    back: list[float] = []
    async with open_bridge(fair=fair) as bridge, trio.open_nursery() as nursery:

        async def burn_here() -> None:
            while True:
                burn(slice_seconds)
                await trio.lowlevel.checkpoint()

        async def burn_there() -> None:
            while not stopped:
                burn(slice_seconds)
                await asyncio.sleep(0)

        async def cross() -> None:
            arrived = trio.Event()
            start = time.perf_counter()

            def in_the_loop() -> None:
                there.append(time.perf_counter() - start)
                bridge.post(in_the_program, time.perf_counter())

            def in_the_program(posted: float) -> None:
                back.append(time.perf_counter() - posted)
                arrived.set()

            bridge.submit(in_the_loop)
            await arrived.wait()

        if busy == "program":
            nursery.start_soon(burn_here)
        else:
            nursery.start_soon(bridge.call, burn_there)
        await trio.sleep(0.05)
        begun = time.perf_counter()
        while len(back) < PROBES and time.perf_counter() - begun < limit:
            with trio.move_on_after(limit):
                await cross()
        stopped = True
        nursery.cancel_scope.cancel()
    return {
        "there_p99": percentile(there, 0.99) * 1e3,
        "back_p99": percentile(back, 0.99) * 1e3,
        "max": max(*there, *back) * 1e3,
        "probes": len(back),
    }


async def cost(slice_seconds: float, fair: bool, seconds: float = 1.0) -> float:
    """The share of the time in which a busy program does its work, nobody probing."""
    async with open_bridge(fair=fair):
        done = 0
        end = time.perf_counter() + seconds
        start = time.perf_counter()
        while time.perf_counter() < end:
            burn(slice_seconds)
            done += 1
            await trio.lowlevel.checkpoint()
        return done * slice_seconds / (time.perf_counter() - start)
