"""confluent-kafka beside tbus: librdkafka, whose own threads speak to the broker.

Set up as its documentation shows, with the guarantees of the others: `acks=all` and an idempotent
producer; a consumer that commits what was handled as often as tbus does. Where each event is waited
for, a thread polls and sets its future, as in its long-standing example for asyncio. Where one task
does not wait, once `produce` and `poll(0)` in a plain function, and once its `AIOProducer`, which
collects events into batches (a publisher that waits for each would wait for its timer). Its
consumer is a plain function too, a `consume(500)` loop: a handler blocks its thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tbus import Envelope

from .kafka_consuming import BATCH, Needed
from .kafka_publishing import Event, clocked, events, from_asyncio
from .kafka_workload import GROUP, OPTIONS, Timed, servers
from .workload import Figures, Job

POLL = 0.1
"""Seconds that the polling thread waits for a report at most."""

PRODUCER = {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random"}
"""The partitioner is that of the others, and of Java's clients; its own default is another."""


def _settings(job: Job, **more: Any) -> dict[str, Any]:
    return {"bootstrap.servers": servers(job), **more}


# --- publish -----------------------------------------------------------------------------


async def kafka_publish_confluent(job: Job) -> Figures:
    return await _futures(job)


async def kafka_publish_confluent_eager(job: Job) -> Figures:
    return await _futures(job, **{"linger.ms": 0})


async def _futures(job: Job, **more: Any) -> Figures:
    import confluent_kafka  # noqa: PLC0415 - comes with the extra `bench` alone

    loop = asyncio.get_running_loop()
    producer = confluent_kafka.Producer(_settings(job, **PRODUCER, **more))
    ended = False

    def poll() -> None:
        while not ended:
            producer.poll(POLL)

    async def publish(event: Event) -> None:
        outcome = loop.create_future()

        def report(error: Any, _: Any) -> None:
            if error is None:
                loop.call_soon_threadsafe(outcome.set_result, None)
            else:
                failed = confluent_kafka.KafkaException(error)
                loop.call_soon_threadsafe(outcome.set_exception, failed)

        producer.produce(job.topic, event[2], event[1].encode(), on_delivery=report)
        await outcome

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        return await from_asyncio(events(job), publish)
    finally:
        ended = True
        thread.join()


async def kafka_publish_confluent_pipelined(job: Job) -> Figures:
    import confluent_kafka  # noqa: PLC0415 - comes with the extra `bench` alone

    producer = confluent_kafka.Producer(_settings(job, **PRODUCER))
    stored = 0

    def report(error: Any, _: Any) -> None:
        nonlocal stored
        if error is not None:
            raise confluent_kafka.KafkaException(error)
        stored += 1

    def produce(event: Event) -> None:
        while True:
            try:
                producer.produce(job.topic, event[2], event[1].encode(), on_delivery=report)
            except BufferError:  # its queue is full
                producer.poll(POLL)
            else:
                return

    async def send_all(part: Sequence[Event]) -> None:
        for event in part:
            produce(event)
            producer.poll(0)
        producer.flush()

    found = await clocked(events(job), send_all)
    if stored != job.count:
        raise SystemExit(f"{stored} of {job.count} events were reported as stored")
    return found


async def kafka_publish_confluent_aio(job: Job) -> Figures:
    from confluent_kafka.aio import AIOProducer  # noqa: PLC0415 - see above

    producer = AIOProducer(_settings(job, **PRODUCER))

    async def produce(event: Event) -> asyncio.Future[Any]:
        found: asyncio.Future[Any] = await producer.produce(job.topic, event[2], event[1].encode())
        return found

    async def send_all(part: Sequence[Event]) -> None:
        outcomes = [await produce(event) for event in part]
        await producer.flush()
        await asyncio.gather(*outcomes)

    found = await clocked(events(job), send_all)
    await producer.close()
    return found


# --- consume -----------------------------------------------------------------------------


async def kafka_consume_confluent(job: Job) -> Figures:
    """Decodes what tbus decodes, as it does."""
    return _consume(job, Envelope.from_bytes)


async def kafka_consume_confluent_needed(job: Job) -> Figures:
    return _consume(job, msgspec.json.Decoder(Needed).decode)


def _consume(job: Job, decode: Callable[[bytes], Any]) -> Figures:
    import confluent_kafka  # noqa: PLC0415 - comes with the extra `bench` alone

    seen = Timed(job)
    consumer = confluent_kafka.Consumer(
        _settings(
            job,
            **{
                "group.id": GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": round(OPTIONS.fetch_wait * 1000),
            },
        )
    )
    consumer.subscribe([job.topic])

    def handle(message: Any) -> None:
        event = decode(message.value())
        seen.see(event.aggregate_id, event.event_version)

    committed = time.perf_counter()
    while seen.count < job.count:
        for message in consumer.consume(BATCH, POLL):
            if message.error() is not None:
                raise confluent_kafka.KafkaException(message.error())
            handle(message)
        if seen.count and time.perf_counter() - committed >= OPTIONS.commit_interval:
            consumer.commit(asynchronous=True)
            committed = time.perf_counter()
    consumer.commit(asynchronous=False)
    consumer.close()
    return seen.figures()
