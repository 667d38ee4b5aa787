"""Who publishes, and knows what was stored."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import trio

from tbus import Bus, PipelinedPublisher, PublishOutcome, TopicOptions, open_bus

from .book import Event

IN_FLIGHT = 2000

WAIT = 60.0
"""Seconds that an outcome is waited for: a broker may be killed meanwhile."""


class Writer:
    """Publishes numbered events of many keys at a steady rate, those of each key in order.

    Args:
        partitions: of each topic.
        rate: events a second.
    """

    def __init__(
        self, topics: list[str], *, partitions: int, events: int, keys: int, rate: float
    ) -> None:
        self.topics = topics
        self.stored: set[Event] = set()
        self.unresolved: list[str] = []
        """What was said of each event that is not known to be stored."""
        self.is_done = False
        self.bus: Bus | None = None
        """While it publishes."""
        self._partitions = partitions
        self._events = events
        self._keys = keys
        self._rate = rate
        self._sent: dict[str, Event] = {}

    async def make_topics(self, url: str, **settings: Any) -> None:
        """Before anybody reads them."""
        async with open_bus(url, **settings) as bus:
            for topic in self.topics:
                await bus.configure_topic(topic, TopicOptions(partitions=self._partitions))

    async def run(self, url: str, **settings: Any) -> None:
        """Publish everything, and wait for every outcome."""
        async with (
            open_bus(url, publish_timeout=WAIT, **settings) as bus,
            bus.open_publisher(max_in_flight=IN_FLIGHT) as publisher,
            trio.open_nursery() as noting,
        ):
            self.bus = bus
            noting.start_soon(self._note, publisher.outcomes)
            await self._publish(publisher)
            while self._sent:  # noqa: ASYNC110 - a look now and then is enough
                await trio.sleep(0.1)
            self.bus = None
            noting.cancel_scope.cancel()
        self.is_done = True

    async def _publish(self, publisher: PipelinedPublisher) -> None:
        numbers = [0] * self._keys
        begun = trio.current_time()
        for count in range(self._events):
            key = random.randrange(self._keys)
            numbers[key] += 1
            event = (self.topics[key % len(self.topics)], f"key-{key}", numbers[key])
            name = f"{event[0]}/{key}/{event[2]}"
            self._sent[name] = event
            await publisher.send(event[0], str(event[2]).encode(), key=event[1], id=name)
            if count % 50 == 0:
                await trio.sleep_until(begun + count / self._rate)

    async def _note(self, outcomes: AsyncIterator[PublishOutcome]) -> None:
        async for outcome in outcomes:
            event = self._sent.pop(outcome.event_id)
            if outcome.success:
                self.stored.add(event)
            else:
                self.unresolved.append(f"{type(outcome.error).__name__}: {outcome.error}")
