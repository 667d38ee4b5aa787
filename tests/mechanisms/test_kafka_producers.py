"""Who holds a producer of aiokafka's, and closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from aiokafka.errors import ProducerClosed

from tbus._config import KafkaOptions
from tbus.transports.kafka._producers import Producers
from tbus.transports.kafka._sending import bound_requests
from tests.mechanisms.kafka_kit import run


class Client:
    """What is used of a producer and of its client, by hand."""

    def __init__(self) -> None:
        self.client = self
        self.starts = asyncio.Event()
        self.may_start = asyncio.Event()
        self.stopped = asyncio.Event()

    async def start(self) -> None:
        self.starts.set()
        await self.may_start.wait()

    async def stop(self) -> None:
        self.stopped.set()

    async def close(self) -> None:
        """Nothing is left of it."""


async def closed_to(producers: Producers) -> None:
    """Ask for a producer, and be told that there will be none."""
    with pytest.raises(ProducerClosed):
        await producers.get()


def test_a_producer_that_has_started_while_all_are_closed_is_closed_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        client = Client()
        monkeypatch.setattr(Producers, "_make", lambda _: client)
        async with anyio.create_task_group() as tasks:

            def start(function: Callable[..., Any], *args: Any) -> None:
                tasks.start_soon(function, *args)

            producers = Producers(KafkaOptions(), "me", start, idempotent=True)
            start(closed_to, producers)
            await client.starts.wait()
            await producers.close()
            client.may_start.set()
            await client.stopped.wait()
            tasks.cancel_scope.cancel()
        assert producers.current is None

    asyncio.run(asyncio.wait_for(main(), 5))


def test_who_asks_for_a_producer_once_all_are_closed_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An answer may still come while they are closed, and others may wait for a producer then.
    async def main() -> None:
        client = Client()
        client.may_start.set()
        monkeypatch.setattr(Producers, "_make", lambda _: client)
        async with anyio.create_task_group() as tasks:

            def start(function: Callable[..., Any], *args: Any) -> None:
                tasks.start_soon(function, *args)

            producers = Producers(KafkaOptions(), "me", start, idempotent=True)
            assert await producers.get() is producers.current
            await producers.close()
            await closed_to(producers)

    asyncio.run(asyncio.wait_for(main(), 5))


def test_what_a_producer_repeats_keeps_within_what_a_broker_reads() -> None:
    async def main() -> None:
        producers = Producers(KafkaOptions(), "me", lambda *_: None, idempotent=True)
        made: Any = producers._make()
        made._closed = True  # it was never started
        assert made._message_accumulator.drain_by_nodes.__module__ == bound_requests.__module__

    run(main)
