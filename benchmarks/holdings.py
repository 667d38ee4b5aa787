"""What a bus holds while it is open and idle, and what is left when it was closed.

Tasks are counted twice: as `Bus.census` tells them, and from outside, as Trio and asyncio do.
"""

from __future__ import annotations

import asyncio
from typing import Any

import trio

from tbus import Bus, Envelope, Message, open_bus
from tbus.testing import ProcessCensus, take_census

from .workload import Figures, Job

SUBSCRIPTIONS = 5

MESSAGES = (100, 10_000, 100_000)


async def holdings(job: Job) -> Figures:
    """Tasks by subscriptions and messages, then what is left after `job.count` cycles."""
    return {"tasks": await _tasks(job), **await _cycles(job)}


async def _tasks(job: Job) -> dict[str, dict[str, int]]:
    before = len(take_census().tasks)
    counted: dict[str, dict[str, int]] = {}
    handled = expected = 0
    done = trio.Event()

    async def handle(_: Message) -> None:
        nonlocal handled
        handled += 1
        if handled == expected:
            done.set()

    async with open_bus(job.url, nats={"storage": "memory"}) as bus:

        async def count(moment: str) -> None:
            await _wait_idle(bus)
            counted[moment] = {
                "census": bus.census().count("task"),
                "outside": len(take_census().tasks) - before + _tasks_in_the_loop(bus),
            }

        await count("open")
        topics = [f"{job.topic}-{number}" for number in range(SUBSCRIPTIONS)]
        for number, topic in enumerate(topics):
            await bus.subscribe(topic, handle, group="bench")
            if number in (0, SUBSCRIPTIONS - 1):
                await count(f"{number + 1} subscribed")
        for messages in MESSAGES:
            if messages > job.count * 1000:
                continue
            done = trio.Event()
            expected = handled + messages
            async with bus.open_publisher() as publisher:
                for number in range(messages):
                    envelope = Envelope.new(f"k-{number % 500}", "E", {})
                    await publisher.send(topics[number % SUBSCRIPTIONS], envelope)
            await done.wait()
            await count(f"after {messages:,}")
    return counted


async def _wait_idle(bus: Bus) -> None:
    """Until no worker is left; those that have just handled the last message are going."""
    with trio.fail_after(5):
        while bus.census().roles()["worker"]:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)


def _tasks_in_the_loop(bus: Bus) -> int:
    bridge: Any = getattr(bus.transport, "_bridge", None)
    return 0 if bridge is None else len(asyncio.all_tasks(bridge.loop))


async def _cycles(job: Job) -> Figures:
    """Open, use and close a bus many times; what is held before and after."""
    await _cycle(job)  # what is imported and cached once is not a leak
    before = take_census()
    for _ in range(job.count):
        await _cycle(job)
    after = take_census()
    return {
        "cycles": job.count,
        "before": _counts(before),
        "after": _counts(after),
        "difference": after.difference(before),
    }


async def _cycle(job: Job) -> None:
    """Publish one event and handle it."""
    async with open_bus(job.url, nats={"storage": "memory"}) as bus:
        done = trio.Event()

        async def handle(_: Message) -> None:
            done.set()

        await bus.subscribe(job.topic, handle)
        await bus.publish(job.topic, Envelope.new("k", "E", {}))
        await done.wait()


def _counts(census: ProcessCensus) -> dict[str, int]:
    return {
        "tasks": len(census.tasks),
        "threads": len(census.threads),
        "files": len(census.files),
        "processes": len(census.processes),
    }
