"""What a bus holds while it is open and idle, and what is left when it was closed.

Tasks are counted twice: as `Bus.census` tells them, and from outside, as Trio and asyncio do.
"""

from __future__ import annotations

from statistics import mode

import trio

from tbus import Bus, Envelope, Message, open_bus
from tbus.testing import take_census

from .footprint import tasks_in_the_loop
from .leaks import cycles
from .workload import Figures, Job

SUBSCRIPTIONS = 5

MESSAGES = (100, 10_000, 100_000)

LOOKS = 10

BETWEEN_LOOKS = 0.03
"""Seconds. A task that attaches, or hears an answer, is not held: what is seen most counts."""


async def holdings(job: Job) -> Figures:
    """What is left after `job.count` cycles, then tasks by subscriptions and messages.

    The cycles come first: what a hundred thousand messages leave to the allocator would blur them.
    """
    left = await cycles(job)
    return {"tasks": await tasks(job), **left}


async def tasks(job: Job) -> dict[str, dict[str, int]]:
    """Tasks of a bus: while it is open, by subscriptions, and after ever more messages."""
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
            looks = []
            for _ in range(LOOKS):
                await trio.sleep(BETWEEN_LOOKS)
                outside = len(take_census().tasks) - before + tasks_in_the_loop(bus)
                looks.append((outside, bus.census().count("task")))
            outside, census = mode(looks)
            counted[moment] = {"census": census, "outside": outside}

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
