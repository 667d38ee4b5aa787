"""The work that every contestant does: the same events, the same server, the same handler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import nats
from nats.aio.client import Client
from nats.js import JetStreamContext

from tbus import Envelope

SIZE = 256
"""Bytes of one encoded envelope."""

KEYS = 1000


def envelopes(count: int, keys: int = KEYS) -> Iterator[Envelope]:
    """Events of `SIZE` bytes, `keys` aggregates in turn, each with versions 1, 2, 3, ..."""
    empty = len(Envelope.new("order-0000", "OrderPlaced", {"x": ""}, event_version=1).encode())
    for number in range(count):
        key, version = f"order-{number % keys:04}", number // keys + 1
        padding = SIZE - empty - (len(str(version)) - 1)
        yield Envelope.new(key, "OrderPlaced", {"x": "y" * padding}, event_version=version)


def bodies(count: int) -> list[bytes]:
    """The same, encoded."""
    return [envelope.encode() for envelope in envelopes(count)]


class Observer:
    """The handler's work: count, and check the order per key."""

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
        return self.count >= self.expected


class Wire(msgspec.Struct):
    """What a plain consumer decodes of an envelope."""

    aggregate_id: str
    event_version: int
    payload: msgspec.Raw


decode = msgspec.json.Decoder(Wire).decode


async def connect(url: str) -> tuple[Client, JetStreamContext]:
    """A plain client, with room for what the contestants publish at once."""
    client = await nats.connect(url, pending_size=64 << 20)
    return client, client.jetstream()


async def fresh_stream(js: JetStreamContext, name: str) -> None:
    """An empty stream in the server's memory."""
    try:
        await js.delete_stream(name)
    except nats.js.errors.NotFoundError:
        pass
    await js.add_stream(name=name, subjects=[name], storage="memory")


async def fill(client: Client, js: JetStreamContext, name: str, count: int) -> None:
    """A fresh stream with `count` envelopes, each with the message id that tbus writes."""
    await fresh_stream(js, name)
    for number, envelope in enumerate(envelopes(count)):
        await client.publish(name, envelope.encode(), headers={"Nats-Msg-Id": envelope.event_id})
        if number % 2000 == 0:
            await client.flush()
    await client.flush()
    while (await js.stream_info(name)).state.messages < count:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
