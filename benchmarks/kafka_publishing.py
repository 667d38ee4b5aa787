"""Who publishes to Kafka: every contestant waits until all replicas have every event.

aiokafka is set up as its documentation advises for producers that must not repeat: `acks="all"`
and `enable_idempotence=True`. An event has the key that it is ordered by.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from tbus import Envelope, open_bus

from .kafka_workload import open_producer, servers
from .workload import PUBLISHERS, Figures, Job, envelopes

T = TypeVar("T")

Event = tuple[str, str, bytes]
"""Id, key and encoding."""

TUNED = {"max_batch_size": 512 * 1024, "max_request_size": 1024 * 1024}
"""The batches that tbus makes; aiokafka's default is 16 KiB."""


def events(job: Job) -> list[Event]:
    return [(one.event_id, one.aggregate_id, one.encode()) for one in envelopes(job.count)]


# --- at once -----------------------------------------------------------------------------


async def kafka_publish_tbus(job: Job) -> Figures:
    async with open_bus(job.url) as bus:

        async def publish(event: Event) -> None:
            await bus.publish(job.topic, event[2], key=event[1])

        return await _from_trio(events(job), publish)


async def kafka_publish_tbus_envelopes(job: Job) -> Figures:
    async with open_bus(job.url) as bus:

        async def publish(envelope: Envelope) -> None:
            await bus.publish(job.topic, envelope)

        return await _from_trio(list(envelopes(job.count)), publish)


async def _from_trio(all_events: Sequence[T], publish: Callable[[T], Awaitable[None]]) -> Figures:
    queue = iter(all_events)

    async def publisher() -> None:
        for event in queue:
            await publish(event)

    await publish(next(queue))
    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(PUBLISHERS):
            nursery.start_soon(publisher)
    return rate(len(all_events) - 1, start)


async def kafka_publish_aiokafka(job: Job) -> Figures:
    async with open_producer(job) as producer:

        async def publish(event: Event) -> None:
            await (await producer.send(job.topic, event[2], key=event[1].encode()))

        return await from_asyncio(events(job), publish)


async def kafka_publish_aiokafka_with_id(job: Job) -> Figures:
    async with open_producer(job) as producer:

        async def publish(event: Event) -> None:
            event_id, key, body = event
            headers = [("X-Event-ID", event_id.encode())]
            await (await producer.send(job.topic, body, key=key.encode(), headers=headers))

        return await from_asyncio(events(job), publish)


async def kafka_publish_faststream(job: Job) -> Figures:
    from faststream.kafka import KafkaBroker  # noqa: PLC0415 - slow, and only this needs it

    async with KafkaBroker(
        servers(job), logger=None, acks="all", enable_idempotence=True
    ) as broker:

        async def publish(event: Event) -> None:
            await broker.publish(event[2], job.topic, key=event[1].encode())

        return await from_asyncio(events(job), publish)


async def from_asyncio(
    queued: Sequence[Event], publish: Callable[[Event], Awaitable[None]]
) -> Figures:
    queue = iter(queued)

    async def publisher() -> None:
        for event in queue:
            await publish(event)

    await publish(next(queue))
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(PUBLISHERS):
            group.create_task(publisher())
    return rate(len(queued) - 1, start)


# --- pipelined ---------------------------------------------------------------------------


async def kafka_publish_tbus_pipelined(job: Job) -> Figures:
    queue = events(job)
    async with open_bus(job.url) as bus:
        _, key, body = queue[0]
        await bus.publish(job.topic, body, key=key)
        start = time.perf_counter()
        async with bus.open_publisher() as publisher:
            for _, key, body in queue[1:]:
                await publisher.send(job.topic, body, key=key)
        return rate(len(queue) - 1, start)


async def kafka_publish_aiokafka_pipelined(job: Job) -> Figures:
    return await _pipelined(job)


async def kafka_publish_aiokafka_pipelined_tuned(job: Job) -> Figures:
    return await _pipelined(job, **TUNED)


async def _pipelined(job: Job, **more: int) -> Figures:
    queue = events(job)
    async with open_producer(job, **more) as producer:
        _, key, body = queue[0]
        await producer.send_and_wait(job.topic, body, key=key.encode())
        start = time.perf_counter()
        outcomes = [
            await producer.send(job.topic, body, key=key.encode()) for _, key, body in queue[1:]
        ]
        await asyncio.gather(*outcomes)
        return rate(len(queue) - 1, start)


def rate(count: int, start: float) -> Figures:
    """Events a second since then. The first event went before: by it the clients connect."""
    return {"rate": count / (time.perf_counter() - start)}
