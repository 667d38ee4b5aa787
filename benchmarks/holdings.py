"""What a bus holds while it is open and idle, and what is left when it was closed."""

from __future__ import annotations

from typing import Any

import trio

from tbus import Bus, Envelope, open_bus
from tbus.testing import ProcessCensus, take_census


async def tasks_of(bus: Bus) -> int:
    """The bus's tasks, in both loops, once nothing runs any more."""
    with trio.move_on_after(5):
        while any(holding.role == "worker" for holding in bus.census().holdings):  # noqa: ASYNC110
            await trio.sleep(0.01)
    return bus.census().count("task")


async def tasks(url: str, subscriptions: int = 5) -> dict[str, Any]:
    """Tasks while open and idle, by messages sent before."""
    counted: dict[str, int] = {}
    async with open_bus(url, nats={"storage": "memory"}) as bus:
        counted["open"] = await tasks_of(bus)
        handled = 0
        expected = 0
        done = trio.Event()

        async def handle(message: object) -> None:  # noqa: ARG001
            nonlocal handled
            handled += 1
            if handled == expected:
                done.set()

        for number in range(subscriptions):
            await bus.remove_topic(f"tasks-{number}")
            await bus.subscribe(f"tasks-{number}", handle, group="g")
        counted[f"{subscriptions} subscriptions"] = await tasks_of(bus)
        for count in (100, 10_000, 100_000):
            done = trio.Event()
            expected = handled + count
            async with bus.open_publisher() as publisher:
                for number in range(count):
                    envelope = Envelope.new(f"k-{number % 500}", "E", {})
                    await publisher.send(f"tasks-{number % subscriptions}", envelope)
            await done.wait()
            counted[f"after {count} messages"] = await tasks_of(bus)
    return counted


async def cycles(url: str, count: int = 100) -> dict[str, Any]:
    """Open, use and close a bus many times; what is held before and after."""
    await one_cycle(url)  # what is imported and cached once is not a leak
    before = take_census()
    for _ in range(count):
        await one_cycle(url)
    after = take_census()
    return {
        "cycles": count,
        "before": counts(before),
        "after": counts(after),
        "equal": before == after,
    }


def counts(census: ProcessCensus) -> str:
    """How many there are of each kind."""
    kinds = ("tasks", "threads", "files", "processes")
    return ", ".join(f"{len(getattr(census, kind))} {kind}" for kind in kinds)


async def one_cycle(url: str) -> None:
    """Publish one event and handle it."""
    async with open_bus(url, nats={"storage": "memory"}) as bus:
        done = trio.Event()

        async def handle(message: object) -> None:  # noqa: ARG001
            done.set()

        await bus.subscribe("cycles", handle)
        await bus.publish("cycles", Envelope.new("k", "E", {}))
        await done.wait()
