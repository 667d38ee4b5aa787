"""The work that every contestant does: the same events, the same handler, the same questions
to the server at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import attrs
import nats
from nats.aio.client import Client
from nats.js import JetStreamContext

from tbus import Envelope

SIZE = 256
"""Bytes of one encoded envelope."""

KEYS = 1000

PUBLISHERS = 100

WHEN = datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
"""One time for all, since trailing zeros of a fraction are not written."""

Figures = dict[str, Any]


class Failed(Exception):
    """A run gave no figures, or none that count; its words say why, to people."""


@attrs.frozen
class Job:
    """What a contestant is given.

    Attributes:
        url: of the server.
        topic: its own; what is in it says the comparison.
        count: events.
    """

    url: str
    topic: str
    count: int


def envelopes(count: int, keys: int = KEYS) -> Iterator[Envelope]:
    """Events of `SIZE` bytes, `keys` aggregates in turn, each with versions 1, 2, 3, ..."""
    for number in range(count):
        yield envelope(number % keys, number // keys + 1)


def envelope(key: int, version: int) -> Envelope:
    """One event of `SIZE` bytes."""
    taken = len(str(version)) + len(aggregate(key)) - len(aggregate(0))
    return _envelope(key, version, _room() - taken)


def aggregate(key: int) -> str:
    """The name of a key."""
    return f"order-{key:04}"


@cache
def _room() -> int:
    """Bytes of padding that an event may have whose version takes none."""
    return SIZE + 1 - len(_envelope(0, 1, 0).encode())


def _envelope(key: int, version: int, padding: int) -> Envelope:
    return Envelope.new(
        aggregate(key),
        "OrderPlaced",
        {"x": "y" * padding},
        event_version=version,
        timestamp=WHEN,
    )


def bodies(count: int) -> list[tuple[str, bytes]]:
    """The same, each as its id and its encoding."""
    return [(envelope.event_id, envelope.encode()) for envelope in envelopes(count)]


class Observer:
    """The handler's work: count, and check the order of each key."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.count = 0
        self.violations = 0
        self._last: dict[str, int] = {}

    def see(self, key: str, version: int) -> bool:
        """Take one event; whether it was the last."""
        if version <= self._last.get(key, 0):
            self.violations += 1
        self._last[key] = version
        self.count += 1
        return self.count == self.expected


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def connect(url: str) -> tuple[Client, JetStreamContext]:
    """A plain client. Its buffer for what is to be written is larger than its default, so
    that it is never throttled."""
    client = await nats.connect(url, pending_size=64 << 20)
    return client, client.jetstream()


async def wait_acked(js: JetStreamContext, topic: str, consumer: str) -> None:
    """Wait until the server has heard every acknowledgement."""
    while (await js.consumer_info(topic, consumer)).num_ack_pending:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)


async def stored(job: Job) -> int:
    """How many events the server has in the topic."""
    client, js = await connect(job.url)
    try:
        return (await js.stream_info(job.topic)).state.messages
    finally:
        await client.close()


async def standing(job: Job, consumer: str) -> Figures:
    """What the server says of a consumer once its contestant is done."""
    client, js = await connect(job.url)
    try:
        info = await js.consumer_info(job.topic, consumer)
        return {
            "num_pending": info.num_pending,
            "num_ack_pending": info.num_ack_pending,
            "num_redelivered": info.num_redelivered,
            "delivered": info.delivered.consumer_seq if info.delivered else 0,
        }
    finally:
        await client.close()
