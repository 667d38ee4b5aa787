"""What a group's topics cost the clients' loop: tasks, counted while the bus is idle."""

from __future__ import annotations

from collections import Counter

import trio

from tbus import Bus, Message, TopicOptions, open_bus

from .kafka_workload import GROUP, PARTITIONS
from .workload import Figures, Job

TOPICS = (1, 5, 20)

SETTLED = 1.0
"""Seconds after which what only opens a subscription has ended."""


async def kafka_loops(job: Job) -> Figures:
    """Tasks of the clients' loop by the number of topics that one group reads."""
    return {str(topics): await _count(job, topics) for topics in TOPICS}


async def _count(job: Job, topics: int) -> Figures:
    names = [f"{job.topic}-{topics}-{number}" for number in range(topics)]

    async def handle(_: Message) -> None:
        pass

    async with open_bus(job.url) as bus:
        for name in names:
            await bus.configure_topic(name, TopicOptions(partitions=PARTITIONS))
        idle = _in_the_loop(bus)
        for name in names:
            await bus.subscribe(name, handle, group=f"{GROUP}-{topics}")
        await trio.sleep(SETTLED)
        found = _in_the_loop(bus)
    return {
        "idle": idle.total(),
        "loop": found.total(),
        "roles": dict(found),
    }


def _in_the_loop(bus: Bus) -> Counter[str]:
    return Counter(holding.role for holding in bus.transport.holdings() if holding.kind == "task")
