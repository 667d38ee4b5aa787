"""Who publishes: every contestant waits for the acknowledgement of every event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

import trio

from tbus import Bus, Envelope, open_bus

from .workload import PUBLISHERS, Figures, Job, bodies, connect, envelopes, percentile

# --- at once -----------------------------------------------------------------------------


async def publish_tbus(job: Job) -> Figures:
    async with open_bus(job.url) as bus:
        return await _from_trio(bus, job, [body for _, body in bodies(job.count)])


async def publish_tbus_envelopes(job: Job) -> Figures:
    async with open_bus(job.url) as bus:
        return await _from_trio(bus, job, list(envelopes(job.count)))


async def _from_trio(bus: Bus, job: Job, events: Iterable[bytes | Envelope]) -> Figures:
    await bus.ping()
    queue = iter(events)

    async def publisher() -> None:
        for event in queue:
            await bus.publish(job.topic, event)

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(PUBLISHERS):
            nursery.start_soon(publisher)
    return {"rate": job.count / (time.perf_counter() - start)}


async def publish_tbus_pipelined(job: Job) -> Figures:
    async with open_bus(job.url) as bus:
        await bus.ping()
        events = bodies(job.count)
        start = time.perf_counter()
        async with bus.open_publisher() as publisher:
            for _, body in events:
                await publisher.send(job.topic, body)
        return {"rate": job.count / (time.perf_counter() - start)}


async def publish_nats_py(job: Job) -> Figures:
    client, js = await connect(job.url)

    async def publish(_: str, body: bytes) -> None:
        await js.publish(job.topic, body)

    figures = await _from_asyncio(job, publish)
    await client.close()
    return figures


async def publish_nats_py_with_id(job: Job) -> Figures:
    client, js = await connect(job.url)

    async def publish(event_id: str, body: bytes) -> None:
        await js.publish(job.topic, body, headers={"Nats-Msg-Id": event_id})

    figures = await _from_asyncio(job, publish)
    await client.close()
    return figures


async def publish_faststream(job: Job) -> Figures:
    from faststream.nats import NatsBroker  # noqa: PLC0415 - slow, and only this needs it

    broker = NatsBroker(job.url, logger=None)
    await broker.connect()

    async def publish(_: str, body: bytes) -> None:
        await broker.publish(body, job.topic, stream=job.topic)

    figures = await _from_asyncio(job, publish)
    await broker.stop()
    return figures


async def _from_asyncio(job: Job, publish: Callable[[str, bytes], Awaitable[None]]) -> Figures:
    queue = iter(bodies(job.count))

    async def publisher() -> None:
        for event_id, body in queue:
            await publish(event_id, body)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(PUBLISHERS):
            group.create_task(publisher())
    return {"rate": job.count / (time.perf_counter() - start)}


# --- one after another -------------------------------------------------------------------


async def latency_tbus(job: Job) -> Figures:
    async with open_bus(job.url) as bus:

        async def publish(_: str, body: bytes) -> None:
            await bus.publish(job.topic, body)

        return await _latency(job, publish)


async def latency_nats_py(job: Job) -> Figures:
    client, js = await connect(job.url)

    async def publish(event_id: str, body: bytes) -> None:
        await js.publish(job.topic, body, headers={"Nats-Msg-Id": event_id})

    figures = await _latency(job, publish)
    await client.close()
    return figures


async def _latency(job: Job, publish: Callable[[str, bytes], Awaitable[None]]) -> Figures:
    """Percentiles, in microseconds."""
    took = []
    for event_id, body in bodies(job.count):
        start = time.perf_counter()
        await publish(event_id, body)
        took.append((time.perf_counter() - start) * 1e6)
    return {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99)}
