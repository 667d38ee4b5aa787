"""Who consumes from Kafka: a filled topic, from the first event handled to the last.

All commit as often as tbus does (`KafkaOptions.commit_interval`), what was handled and nothing
else. The peers are set up as their documentation shows. aiokafka: `getmany`, a handler called for
one record after another, `commit`. FastStream: a subscriber that acknowledges after its handler.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio
from aiokafka import AIOKafkaConsumer, ConsumerRecord

from tbus import Envelope, Message, open_bus

from .kafka_workload import GROUP, OPTIONS, Timed, open_consumer, servers
from .workload import Figures, Job

BATCH = 500
"""Records that a peer takes at once."""

WORK = 0.002
"""Seconds for which a handler waits that has something to wait for."""

Handle = Callable[[ConsumerRecord], Awaitable[None]]

# --- tbus --------------------------------------------------------------------------------


async def kafka_consume_tbus(job: Job) -> Figures:
    return await _consume_tbus(job, max_in_flight=1000)


async def kafka_consume_tbus_more_in_flight(job: Job) -> Figures:
    return await _consume_tbus(job, max_in_flight=4000)


async def _consume_tbus(job: Job, max_in_flight: int) -> Figures:
    seen = Timed(job)
    done = trio.Event()

    async def handle(message: Message) -> None:
        event = message.envelope
        if seen.see(event.aggregate_id, event.event_version):
            done.set()

    async with open_bus(job.url, max_in_flight=max_in_flight) as bus:
        await bus.subscribe(job.topic, handle, group=GROUP)
        await done.wait()
    return seen.figures()


async def kafka_consume_tbus_waiting(job: Job) -> Figures:
    seen = Timed(job)
    done = trio.Event()

    async def handle(message: Message) -> None:
        seen.begin()
        await trio.sleep(WORK)
        event = message.envelope
        if seen.see(event.aggregate_id, event.event_version):
            done.set()

    async with open_bus(job.url) as bus:
        await bus.subscribe(job.topic, handle, group=GROUP)
        await done.wait()
    return seen.figures()


# --- aiokafka ----------------------------------------------------------------------------


class Needed(msgspec.Struct):
    """What the handler needs of an envelope."""

    aggregate_id: str
    event_version: int


async def kafka_consume_aiokafka(job: Job) -> Figures:
    """Decodes what tbus decodes, as it does."""
    seen = Timed(job)
    decode = Envelope.from_bytes

    async def handle(record: ConsumerRecord) -> None:
        event = decode(record.value)
        seen.see(event.aggregate_id, event.event_version)

    return await _getmany(job, seen, handle)


async def kafka_consume_aiokafka_needed(job: Job) -> Figures:
    seen = Timed(job)
    decode = msgspec.json.Decoder(Needed).decode

    async def handle(record: ConsumerRecord) -> None:
        event = decode(record.value)
        seen.see(event.aggregate_id, event.event_version)

    return await _getmany(job, seen, handle)


async def kafka_consume_aiokafka_json(job: Job) -> Figures:
    seen = Timed(job)

    async def handle(record: ConsumerRecord) -> None:
        event = json.loads(record.value)
        seen.see(event["aggregate_id"], event["event_version"])

    return await _getmany(job, seen, handle)


async def kafka_consume_aiokafka_waiting(job: Job) -> Figures:
    seen = Timed(job)
    decode = Envelope.from_bytes

    async def handle(record: ConsumerRecord) -> None:
        seen.begin()
        await asyncio.sleep(WORK)
        event = decode(record.value)
        seen.see(event.aggregate_id, event.event_version)

    return await _getmany(job, seen, handle)


async def _getmany(job: Job, seen: Timed, handle: Handle) -> Figures:
    async with open_consumer(job) as consumer:
        await commit_now_and_then(consumer, handle, lambda: seen.count == job.count)
    return seen.figures()


async def commit_now_and_then(
    consumer: AIOKafkaConsumer, handle: Handle, is_done: Callable[[], bool]
) -> None:
    """Handle one record after another, and commit what was handled as often as tbus does."""
    committed = time.perf_counter()
    while not is_done():
        found = await consumer.getmany(timeout_ms=100, max_records=BATCH)
        for records in found.values():
            for record in records:
                await handle(record)
        if time.perf_counter() - committed >= OPTIONS.commit_interval:
            await consumer.commit()
            committed = time.perf_counter()
    await consumer.commit()


# --- FastStream --------------------------------------------------------------------------


async def kafka_consume_faststream(job: Job) -> Figures:
    seen = Timed(job)
    done = asyncio.Event()

    async def handle(event: dict[str, Any]) -> None:
        if seen.see(event["aggregate_id"], event["event_version"]):
            done.set()

    return await _faststream(job, seen, done, handle, batch=False)


async def kafka_consume_faststream_batch(job: Job) -> Figures:
    seen = Timed(job)
    done = asyncio.Event()

    async def handle(events: list[dict[str, Any]]) -> None:
        for event in events:
            if seen.see(event["aggregate_id"], event["event_version"]):
                done.set()

    return await _faststream(job, seen, done, handle, batch=True)


async def _faststream(
    job: Job, seen: Timed, done: asyncio.Event, handle: Callable[[Any], Any], *, batch: bool
) -> Figures:
    from faststream import AckPolicy  # noqa: PLC0415 - slow, only here
    from faststream.kafka import KafkaBroker  # noqa: PLC0415

    broker = KafkaBroker(servers(job), logger=None)
    batching: dict[str, Any] = {"batch": True, "max_records": BATCH} if batch else {}
    broker.subscriber(
        job.topic,
        group_id=GROUP,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        **batching,
    )(handle)
    await broker.start()
    await done.wait()
    await asyncio.sleep(0.2)  # the last acknowledgement is still under way: it ends cleanly
    await broker.stop()
    return seen.figures()
