"""The producer that batches go out by, and the next one when it is spoilt.

Lives in the clients' loop. An idempotent producer numbers the batches of each partition; when
the broker refuses one, the numbers behind it are wrong for good, and everything after it is
refused as well. So a producer that had a batch fail is retired: what it has in flight may
still be answered, but nothing new is given to it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.structs import TopicPartition

from ..._config import KafkaOptions
from ._clients import client_options, close_client, start_client
from ._errors import LOST, describe
from ._reading import read_answers
from ._sending import Answered, Batch, Sending, bound_requests

logger = logging.getLogger("tbus.kafka")

BATCH_BYTES = 512 * 1024
"""Of one batch, at most: half of what a broker takes by default (message.max.bytes)."""

CLOSE_WAIT = 0.2
"""Seconds that a producer gets for closing, before its connections are closed under it."""


class Producer:
    """One producer of aiokafka's, and how many batches it has in flight."""

    def __init__(self, client: AIOKafkaProducer, start: Callable[..., None]) -> None:
        self.client = client
        self.in_flight = 0
        self.retired = False
        self._sending = Sending(client, start)

    def batch(self) -> Batch:
        """An empty batch to fill."""
        return Batch(self.client)

    def store(self, batch: Batch, partition: TopicPartition, answered: Answered) -> None:
        """Take a batch, which goes out with the next `send`, and say what the broker answers."""
        self._sending.store(batch, partition, answered)

    def send(self) -> None:
        """Send what was stored."""
        self._sending.send()

    async def close(self) -> None:
        """Close it, whatever state it is in."""
        await close_client("a producer", self.client.stop, self.client.client, CLOSE_WAIT)


class Producers:
    """Holds the producer that is in use.

    Args:
        start: starts a task in the loop's nursery.
        idempotent: False for brokers that cannot tell a repeat (Tansu).
    """

    def __init__(
        self, options: KafkaOptions, name: str, start: Callable[..., None], *, idempotent: bool
    ) -> None:
        self._options = options
        self._name = name
        self._start = start
        self._idempotent = idempotent
        self._current: Producer | None = None
        self._starting = False
        self._ready = asyncio.Event()
        self._retired: set[Producer] = set()
        self._closing = False

    @property
    def current(self) -> Producer | None:
        """The producer to use now, if there is one."""
        return self._current

    async def get(self) -> Producer:
        """The producer to use now; waits until there is one.

        Raises:
            ProducerClosed: there will be none any more.
        """
        while self._current is None:
            if self._closing:
                raise kafka.ProducerClosed
            if not self._starting:
                self._starting = True
                self._ready.clear()
                self._start(self._open)
            await self._ready.wait()
        return self._current

    async def learn(self, topic: str) -> None:
        """Return when the producer to use now knows the topic; raises what `get` does."""
        producer = await self.get()
        # Or it would be known until the client is told of another topic, and asks about that alone.
        producer.client.client.add_topic(topic)
        await producer.client.partitions_for(topic)

    def retire(self, producer: Producer) -> None:
        """It had a batch fail: use another one from now on."""
        if producer.retired:
            return
        producer.retired = True
        self._retired.add(producer)
        if self._current is producer:
            self._current = None
        self.end_if_idle(producer)

    def end_if_idle(self, producer: Producer) -> None:
        """A retired producer is closed when nothing of it is in flight."""
        if producer.retired and not producer.in_flight and producer in self._retired:
            self._retired.discard(producer)
            self._start(producer.close)

    async def close(self) -> None:
        """Close all of them."""
        self._closing = True
        self._ready.set()  # whoever waits for one is told
        open_ones = [*self._retired, *([] if self._current is None else [self._current])]
        self._retired.clear()
        self._current = None
        for producer in open_ones:
            await producer.close()

    async def _open(self) -> None:
        attempt = 0
        while not self._closing:
            producer = Producer(self._make(), self._start)
            started = False
            try:
                await start_client(producer.client.start)
                started = not self._closing  # else nobody would ever close it
            except (kafka.KafkaError, *LOST) as error:
                logger.debug("starting a producer: %s", describe(error))
            finally:
                if not started:
                    await producer.close()
            if started:
                self._current = producer
                self._starting = False
                self._ready.set()
                return
            attempt += 1
            await asyncio.sleep(self._options.reconnect.delay(attempt, random.random))

    def _make(self) -> AIOKafkaProducer:
        compression = self._options.compression
        producer = AIOKafkaProducer(
            **client_options(self._options, self._name),
            enable_idempotence=self._idempotent,
            acks="all",
            compression_type=None if compression == "none" else compression,
            max_batch_size=BATCH_BYTES,
            max_request_size=2 * BATCH_BYTES,
        )
        read_answers(producer.client)
        bound_requests(producer)
        return producer
