"""How long events wait at half of what can be done.

Two parts, in one process that publishes and consumes over one connection. First the peak: events
are published as fast as they are stored, with at most `WINDOW` of them between sender and handler,
and the rate is that of the handler. Then half of that rate for some seconds, at a steady pace:
each event has its time, and its latency runs from then to the first line of its handler, whenever
it was really sent. So a sender that is held up hides nothing (what is called coordinated omission).

Each contestant is loaded with half of its own peak: the faster one bears more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import trio
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from tbus import Envelope, Message, open_bus

from .consuming import BATCH, GROUP, Needed
from .workload import KEYS, Figures, Job, connect, envelopes, percentile

WINDOW = 1000
"""Events between sender and handler, while the peak is measured."""

SECONDS = 3.0
"""How long the load lasts."""

TICK = 0.001
"""Seconds between two looks at what is due."""

WARM_UP = 0.5
"""Seconds of the load that are not counted."""

FULL = 40_000
"""Events of the first part; with fewer the second is shorter, too."""

STALLED = 30.0
"""Seconds without any event, after which it is given up."""


class Load:
    """What is sent when, and what became of it.

    Attributes:
        handled: how many events, in both parts.
        violations: of the order of a key.
    """

    def __init__(self, job: Job, clock: Callable[[], float] = time.perf_counter) -> None:
        self._job = job
        self._clock = clock
        self.handled = 0
        self.violations = 0
        self._last: dict[str, int] = {}
        self._begun = self._clock()
        self._rate = 0.0
        self._peak = 0.0
        self._took: list[float] = []
        self.events: Sequence[Envelope] = list(envelopes(job.count))
        self.total = job.count

    def see(self, key: str, version: int) -> bool:
        """An event has come; whether it was the last."""
        now = self._clock()
        if version <= self._last.get(key, 0):
            self.violations += 1
        self._last[key] = version
        if self._rate:
            number = (version - 1) * KEYS + int(key[-4:]) - self._job.count
            self._took.append(now - self._begun - number / self._rate)
        self.handled += 1
        return self.handled == self.total

    def begin_peak(self) -> None:
        """The first part begins."""
        self._begun = self._clock()

    def begin_half(self) -> None:
        """All of the first part was handled: prepare the second, and begin it."""
        self._peak = self._job.count / (self._clock() - self._begun)
        rate = self._peak / 2
        share = min(1.0, self._job.count / FULL)
        count = max(200, int(rate * SECONDS * share))
        self.events = list(envelopes(self._job.count + count))[self._job.count :]
        self.total = self._job.count + count
        self._rate = rate
        self._begun = self._clock()

    def due(self) -> int:
        """How many events of the second part should have been sent by now."""
        now = self._clock()
        return min(len(self.events), int((now - self._begun) * self._rate) + 1)

    def figures(self) -> Figures:
        """Milliseconds, and events a second."""
        left_out = min(int(WARM_UP * self._rate), len(self._took) // 4)
        took = [seconds * 1e3 for seconds in self._took[left_out:]]
        return {
            "p50": percentile(took, 0.5),
            "p99": percentile(took, 0.99),
            "max": max(took),
            "peak": self._peak,
            "load": self._rate,
            "handled": self.handled - len(self._took),
            "violations": self.violations,
        }


# --- tbus --------------------------------------------------------------------------------


async def loaded_tbus(job: Job) -> Figures:
    load = Load(job)
    done = trio.Event()
    room = trio.Semaphore(WINDOW)
    peak = True

    async def handle(message: Message) -> None:
        event = message.envelope
        if load.see(event.aggregate_id, event.event_version):
            done.set()
        if peak:
            room.release()

    async with open_bus(job.url) as bus, bus.open_publisher() as publisher:
        await bus.subscribe(job.topic, handle, group=GROUP)
        load.begin_peak()
        for event in load.events:
            await room.acquire()
            await publisher.send(job.topic, event)
        await done.wait()
        peak = False
        done = trio.Event()
        load.begin_half()
        sent = 0
        while sent < len(load.events):
            for event in load.events[sent : load.due()]:
                await publisher.send(job.topic, event)
                sent += 1
            await trio.sleep(TICK)
        await done.wait()
    return load.figures()


# --- nats-py -----------------------------------------------------------------------------

Consume = Callable[[JetStreamContext, Job, Callable[[bytes], None]], Coroutine[Any, Any, None]]
"""Consumes until it is cancelled."""


async def loaded_nats_py_fetch(job: Job) -> Figures:
    return await _loaded(job, _fetch)


async def loaded_nats_py_push(job: Job) -> Figures:
    return await _loaded(job, _push)


async def _fetch(js: JetStreamContext, job: Job, handle: Callable[[bytes], None]) -> None:
    subscription = await js.pull_subscribe(job.topic, durable=GROUP)
    while True:
        for message in await subscription.fetch(BATCH, timeout=STALLED):
            handle(message.data)
            await message.ack()


async def _push(js: JetStreamContext, job: Job, handle: Callable[[bytes], None]) -> None:
    async def on_message(message: Msg) -> None:
        handle(message.data)
        await message.ack()

    await js.subscribe(job.topic, durable=GROUP, cb=on_message, manual_ack=True)


async def _loaded(job: Job, consume: Consume) -> Figures:
    client, js = await connect(job.url)
    load = Load(job)
    done = asyncio.Event()
    room = asyncio.Semaphore(WINDOW)
    peak = True
    decode = msgspec.json.Decoder(Needed).decode

    def handle(body: bytes) -> None:
        event = decode(body)
        if load.see(event.aggregate_id, event.event_version):
            done.set()
        if peak:
            room.release()

    async def send(event: Envelope) -> None:
        headers = {"Nats-Msg-Id": event.event_id}
        outcomes.append(await js.publish_async(job.topic, event.encode(), headers=headers))

    outcomes: list[asyncio.Future[Any]] = []
    async with asyncio.TaskGroup() as group:
        consumer = group.create_task(consume(js, job, handle))
        load.begin_peak()
        for event in load.events:
            await room.acquire()
            await send(event)
        await done.wait()
        peak = False
        done = asyncio.Event()
        load.begin_half()
        sent = 0
        while sent < len(load.events):
            for event in load.events[sent : load.due()]:
                await send(event)
                sent += 1
            await asyncio.sleep(TICK)
        await done.wait()
        consumer.cancel()
    await asyncio.gather(*outcomes)
    await client.close()
    return load.figures()
