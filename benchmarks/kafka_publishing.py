"""Who publishes to Kafka: every contestant waits until all replicas have every event.

aiokafka is set up as its documentation advises for producers that must not repeat: `acks="all"`
and `enable_idempotence=True`. An event has the key that it is ordered by. The clock starts when the
first of them are stored: see `clocked`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

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
    async def send_all(part: Sequence[T]) -> None:
        queue = iter(part)

        async def publisher() -> None:
            for event in queue:
                await publish(event)

        async with trio.open_nursery() as nursery:
            for _ in range(PUBLISHERS):
                nursery.start_soon(publisher)

    return await clocked(all_events, send_all)


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
    async def send_all(part: Sequence[Event]) -> None:
        queue = iter(part)

        async def publisher() -> None:
            for event in queue:
                await publish(event)

        async with asyncio.TaskGroup() as group:
            for _ in range(PUBLISHERS):
                group.create_task(publisher())

    return await clocked(queued, send_all)


# --- pipelined ---------------------------------------------------------------------------


async def kafka_publish_tbus_pipelined(job: Job) -> Figures:
    async with open_bus(job.url) as bus:

        async def send_all(part: Sequence[Event]) -> None:
            async with bus.open_publisher() as publisher:
                for _, key, body in part:
                    await publisher.send(job.topic, body, key=key)

        return await clocked(events(job), send_all)


async def kafka_publish_aiokafka_pipelined(job: Job) -> Figures:
    return await _pipelined(job)


async def kafka_publish_aiokafka_pipelined_tuned(job: Job) -> Figures:
    return await _pipelined(job, **TUNED)


async def _pipelined(job: Job, **more: int) -> Figures:
    async with open_producer(job, **more) as producer:

        async def send_all(part: Sequence[Event]) -> None:
            outcomes = [
                await producer.send(job.topic, body, key=key.encode()) for _, key, body in part
            ]
            await asyncio.gather(*outcomes)

        return await clocked(events(job), send_all)


# --- the clock ---------------------------------------------------------------------------


async def clocked(all_events: Sequence[T], send_all: Callable[[Sequence[T]], Any]) -> Figures:
    """Events a second, of all but the first twentieth.

    By those the clients connect, and the broker makes a new topic's files: seen, it takes 20 to
    160 ms for the second request to each partition, whoever has sent it. They go in ten waves, so
    that everybody has sent several requests before the clock starts.

    Args:
        all_events: to be published.
        send_all: publishes a part of them, and waits until it is stored.
    """
    ahead = len(all_events) // 20
    wave = max(1, ahead // 10)
    for begin in range(0, ahead, wave):
        await send_all(all_events[begin : min(begin + wave, ahead)])
    start = time.perf_counter()
    await send_all(all_events[ahead:])
    return {"rate": (len(all_events) - ahead) / (time.perf_counter() - start)}
