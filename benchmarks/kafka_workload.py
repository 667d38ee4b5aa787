"""What the Kafka contestants share: plain clients, and the questions to the broker at the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from tbus import KafkaOptions

from .workload import Figures, Job, Observer

GROUP = "bench"

PARTITIONS = 3

OPTIONS = KafkaOptions()
"""What tbus does unless told otherwise: its peers commit as often, and wait as long."""


def servers(job: Job) -> str:
    """Where the broker of a job is, as a plain client wants it."""
    return urlsplit(job.url).netloc


@asynccontextmanager
async def open_producer(job: Job, **more: Any) -> AsyncIterator[AIOKafkaProducer]:
    """A plain producer with the guarantees that tbus gives."""
    producer = AIOKafkaProducer(
        bootstrap_servers=servers(job), acks="all", enable_idempotence=True, **more
    )
    await producer.start()
    try:
        await producer.partitions_for(job.topic)  # it is known before the clock starts
        yield producer
    finally:
        await producer.stop()  # noqa: ASYNC102 - the process ends soon


@asynccontextmanager
async def open_consumer(
    job: Job, group: str = GROUP, **more: Any
) -> AsyncIterator[AIOKafkaConsumer]:
    """A plain consumer of the job's topic, which commits when it is told to."""
    consumer = AIOKafkaConsumer(
        job.topic,
        bootstrap_servers=servers(job),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=round(OPTIONS.fetch_wait * 1000),
        **more,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()  # noqa: ASYNC102 - the process ends soon


class Timed:
    """An observer, and the time from its first event to its last: joining a group takes as
    long as the group's other members, and the broker, like."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._seen = Observer(job.count)
        self._began = self._ended = 0.0

    @property
    def count(self) -> int:
        return self._seen.count

    def begin(self) -> None:
        """A handler has been called, and takes a while."""
        if not self._began:
            self._began = time.perf_counter()

    def see(self, key: str, version: int) -> bool:
        """Take one event; whether it was the last."""
        self.begin()
        last = self._seen.see(key, version)
        if last:
            self._ended = time.perf_counter()
        return last

    def figures(self) -> Figures:
        return {
            "rate": self._job.count / (self._ended - self._began),
            "handled": self._seen.count,
            "violations": self._seen.violations,
        }


async def kafka_stored(job: Job) -> int:
    """How many events the broker has in the topic."""
    async with open_questions(job) as (consumer, partitions):
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
    return sum(ends[one] - begins[one] for one in partitions)


async def kafka_standing(job: Job) -> Figures:
    """How much of the topic the group has not committed."""
    async with open_questions(job) as (consumer, partitions):
        ends = await consumer.end_offsets(partitions)
        committed = {one: await consumer.committed(one) or 0 for one in partitions}
    return {"num_pending": sum(ends[one] - committed[one] for one in partitions)}


@asynccontextmanager
async def open_questions(
    job: Job,
) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
    """A consumer that joins no group and reads nothing, and the topic's partitions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers(job))
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers(job), group_id=GROUP, enable_auto_commit=False
    )
    await admin.start()
    await consumer.start()
    try:
        [found] = await admin.describe_topics([job.topic])
        numbers = sorted(one["partition"] for one in found["partitions"])
        yield consumer, [TopicPartition(job.topic, number) for number in numbers]
    finally:
        await consumer.stop()  # noqa: ASYNC102 - the process ends soon
        await admin.close()  # noqa: ASYNC102 - the process ends soon
