"""What the program publishes: numbered events of many keys, those of each key in order."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import trio

from tbus import (
    Bus,
    BusClosed,
    OutcomeUnknown,
    PipelinedPublisher,
    PublishOutcome,
    PublishRefused,
    TransportLost,
)
from tests.chaos.book import Event

from .job import Facts, Job

AGAIN = 0.05
"""Seconds until an event that was not acknowledged is published again."""

PIPELINED = 500
"""Events without an outcome, at most."""


class Publishing:
    """Publishes by as many buses as it takes, one after another.

    Half of the keys have their events published one after another, each repeated with the same
    id until it is acknowledged; those of the others are pipelined, and not repeated.

    Args:
        facts: where it is counted what was not acknowledged.
    """

    def __init__(self, job: Job, facts: Facts) -> None:
        self._job = job
        self._facts = facts
        self._stored = os.open(job.stored, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._numbers = [0] * (2 * job.keys)
        self._going = trio.Event()
        self._unresolved = 0
        self._left: dict[int, Event] = {}

    def go(self) -> None:
        """Publish."""
        self._going.set()

    async def pause(self) -> None:
        """Publish nothing more; returns when every outcome is known."""
        self._going = trio.Event()
        while self._unresolved:  # noqa: ASYNC110 - a look now and then is enough
            await trio.sleep(0.01)

    async def run(self, bus: Bus) -> None:
        """By this bus, until it ends or this is cancelled."""
        async with trio.open_nursery() as nursery:
            for key in range(self._job.keys):
                nursery.start_soon(self._publish, bus, key)
            nursery.start_soon(self._pipeline, bus)

    def close(self) -> None:
        """Nothing is published any more."""
        os.close(self._stored)

    async def _wait_going(self) -> None:
        # Whoever is told to pause in the moment between must not go on.
        while not self._going.is_set():
            await self._going.wait()

    def _next(self, key: int) -> Event:
        self._numbers[key] += 1
        return (self._job.topic, f"key-{key}", self._numbers[key])

    def _acknowledged(self, event: Event) -> None:
        topic, key, number = event
        os.write(self._stored, f"{topic} {key} {number}\n".encode())

    # One after another

    async def _publish(self, bus: Bus, key: int) -> None:
        while True:
            await self._wait_going()
            # Of a bus that has ended there may be one left.
            event = self._left[key] = self._left.get(key) or self._next(key)
            self._unresolved += 1
            try:
                await self._publish_one(bus, event)
            except BusClosed:
                return
            finally:
                self._unresolved -= 1
            del self._left[key]
            await trio.sleep(self._job.pause)

    async def _publish_one(self, bus: Bus, event: Event) -> None:
        topic, key, number = event
        while True:
            try:
                await bus.publish(topic, str(number).encode(), key=key, id=id_of(event))
            except OutcomeUnknown:
                self._facts.again += 1
            except (PublishRefused, TransportLost):
                self._facts.refused += 1
            else:
                self._acknowledged(event)
                return
            await trio.sleep(AGAIN)

    # Pipelined

    async def _pipeline(self, bus: Bus) -> None:
        sent: dict[str, Event] = {}
        try:
            async with (
                bus.open_publisher(max_in_flight=PIPELINED) as publisher,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._note, publisher.outcomes, sent)
                await self._send(publisher, sent)
        except* BusClosed:
            pass
        finally:
            self._facts.unresolved += len(sent)
            self._unresolved -= len(sent)

    async def _send(self, publisher: PipelinedPublisher, sent: dict[str, Event]) -> None:
        keys = self._job.keys
        while True:
            for key in range(keys, 2 * keys):
                await self._wait_going()
                event = self._next(key)
                topic, name, number = event
                sent[id_of(event)] = event
                self._unresolved += 1
                await publisher.send(topic, str(number).encode(), key=name, id=id_of(event))
                await trio.sleep(self._job.pause / keys)

    async def _note(self, outcomes: AsyncIterator[PublishOutcome], sent: dict[str, Event]) -> None:
        async for outcome in outcomes:
            event = sent.pop(outcome.event_id)
            self._unresolved -= 1
            if outcome.success:
                self._acknowledged(event)
            else:
                self._facts.unresolved += 1


def id_of(event: Event) -> str:
    """One of its own."""
    return "/".join(map(str, event))
