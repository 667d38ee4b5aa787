"""Backpressure, and nobody who starves."""

from __future__ import annotations

import anyio

from ..._events import KeyBacklog
from ..._message import Message
from ..harness import Harness
from ._case import case
from ._kit import Gate, Seen, publish_pairs, settle_down, watching


@case()
async def no_more_than_max_in_flight_is_handed_over(harness: Harness) -> None:
    topic = harness.topic()
    gate = Gate()
    async with harness.open_bus() as bus:
        subscription = await bus.subscribe(topic, gate, group="g", max_in_flight=10)
        await publish_pairs(bus, topic, [(None, "x")] * 50)
        await gate.wait(10)
        await settle_down(bus)
        assert subscription.statistics().in_flight == 10
        gate.open()
        while (await bus.lag(topic, "g")).messages:
            pass
    assert gate.peak == 10


@case()
async def no_more_than_max_in_flight_bytes_is_handed_over(harness: Harness) -> None:
    topic = harness.topic()
    gate = Gate()
    body = "x" * 10_000
    async with harness.open_bus(max_in_flight_bytes=64_000) as bus:
        await bus.subscribe(topic, gate, group="g", max_in_flight=10)
        await publish_pairs(bus, topic, [(None, body)] * 20)
        await gate.wait(3)
        await settle_down(bus)
        gate.open()
        while (await bus.lag(topic, "g")).messages:
            pass
    assert 30_000 <= gate.peak_bytes <= 64_000


@case()
async def one_message_may_be_larger_than_max_in_flight_bytes(harness: Harness) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus(max_in_flight_bytes=1000) as bus:
        await bus.subscribe(topic, seen, group="g", max_in_flight=10)
        bodies = ["small", "large" * 1000, "small", "larger" * 1000]
        await publish_pairs(bus, topic, [("k", body) for body in bodies])
        await seen.wait(4)
    assert [body.decode() for body in seen.bodies] == bodies


@case()
async def a_key_that_holds_half_of_what_may_be_in_flight_is_reported(harness: Harness) -> None:
    topic = harness.topic()
    gate = Gate()
    async with harness.open_bus() as bus, watching(bus) as watch:
        await bus.subscribe(topic, gate, group="g", max_in_flight=10)
        await publish_pairs(bus, topic, [("busy", "x")] * 8)
        event = await watch.wait(KeyBacklog)
        gate.open()
    assert (event.topic, event.group, event.key) == (topic, "g", "busy")
    assert (event.waiting, event.max_in_flight) == (5, 10)


@case(limit=50)
async def a_flood_on_one_subscription_does_not_starve_another(harness: Harness) -> None:
    flooded, quiet = harness.topic(), harness.topic()
    passed: list[int] = []
    flood = 30_000
    handled = 0
    arrived = anyio.Event()

    async def count(_: Message) -> None:
        nonlocal handled
        handled += 1

    async def arrive(_: Message) -> None:
        arrived.set()

    async with harness.open_bus() as bus, anyio.create_task_group() as tasks:
        await bus.subscribe(flooded, count, group="g")
        await bus.subscribe(quiet, arrive, group="g")

        async def pour() -> None:
            async with bus.open_publisher(max_in_flight=5000) as publisher:
                for _ in range(flood):
                    await publisher.send(flooded, b"drop")

        tasks.start_soon(pour)
        while handled < flood:
            arrived = anyio.Event()
            before = handled
            await bus.publish(quiet, b"me", timeout=30)
            await arrived.wait()
            passed.append(handled - before)
            await anyio.sleep(0.01)
    # Who starves waits for the end of the flood. Counted in messages, not in seconds: a machine
    # that is busy otherwise makes everything slow alike.
    assert len(passed) >= 3
    assert max(passed) < flood * 2 // 3, passed
