"""The memory transport alone: how fast is tbus where no broker is."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import trio

from tbus import Bus, Message, open_bus

from .workload import Figures, Job, Observer, envelopes

BLOCKS = 3

WAIT = 0.002
"""Seconds for which a handler waits that has something to wait for."""

WORKERS = 256
"""Handlers at once, of those that wait."""

IN_FLIGHT = 5000
"""Events between sender and handler at most; for both."""


async def memory_tbus(job: Job) -> Figures:
    def counting(seen: Observer) -> Callable[[Message], bool]:
        def see(_: Message) -> bool:
            seen.count += 1
            return seen.count == seen.expected

        return see

    return await _blocks(job, counting)


async def memory_tbus_checked(job: Job) -> Figures:
    def checking(seen: Observer) -> Callable[[Message], bool]:
        def see(message: Message) -> bool:
            event = message.envelope
            return seen.see(event.aggregate_id, event.event_version)

        return see

    return await _blocks(job, checking)


async def memory_tbus_waiting(job: Job) -> Figures:
    """The topic is filled before; the clock runs from `subscribe` to the last handler's end."""
    seen = Observer(job.count)
    done = trio.Event()

    async def handle(_: Message) -> None:
        await trio.sleep(WAIT)
        seen.count += 1
        if seen.count == job.count:
            done.set()

    # Enough is at hand for every worker, whenever it asks.
    async with open_bus("memory://", max_in_flight=IN_FLIGHT, concurrency=WORKERS) as bus:
        async with bus.open_publisher() as publisher:
            for envelope in envelopes(job.count):
                await publisher.send(job.topic, envelope)
        start = time.perf_counter()
        await bus.subscribe(job.topic, handle, group="bench")
        await done.wait()
        seconds = time.perf_counter() - start
    return {"rate": job.count / seconds, "handled": seen.count}


async def memory_bare_waiting(job: Job) -> Figures:
    """What Trio itself can do on this core: as many tasks, which take from one list."""
    queue = iter(list(envelopes(job.count)))
    handled = 0

    async def work() -> None:
        nonlocal handled
        for _ in queue:
            await trio.sleep(WAIT)
            handled += 1

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(WORKERS):
            nursery.start_soon(work)
    return {"rate": job.count / (time.perf_counter() - start), "handled": handled}


async def _blocks(job: Job, see: Callable[[Observer], Callable[[Message], bool]]) -> Figures:
    async with open_bus("memory://", max_in_flight=IN_FLIGHT) as bus:
        await _block(bus, "warm-up", min(10_000, job.count), see)
        found = [
            await _block(bus, f"{job.topic}-{number}", job.count, see) for number in range(BLOCKS)
        ]
    return {
        "rate": median(rate for rate, _ in found),
        "blocks": [rate for rate, _ in found],
        "handled": sum(seen.count for _, seen in found) // BLOCKS,
        "violations": sum(seen.violations for _, seen in found),
    }


async def _block(
    bus: Bus, topic: str, count: int, see: Callable[[Observer], Callable[[Message], bool]]
) -> tuple[float, Observer]:
    seen = Observer(count)
    done = trio.Event()
    see_one = see(seen)

    async def handle(message: Message) -> None:
        if see_one(message):
            done.set()

    subscription = await bus.subscribe(topic, handle, group="bench")
    prepared = list(envelopes(count))
    start = time.perf_counter()
    async with bus.open_publisher(max_in_flight=IN_FLIGHT) as publisher:
        for envelope in prepared:
            await publisher.send(topic, envelope)
    await done.wait()
    seconds = time.perf_counter() - start
    await subscription.close()
    await bus.remove_topic(topic)
    return count / seconds, seen
