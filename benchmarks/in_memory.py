"""The memory transport alone: how fast is tbus where no broker is."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import trio

from tbus import Bus, Message, open_bus

from .workload import Figures, Job, Observer, envelopes

BLOCKS = 3

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
