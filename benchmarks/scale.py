"""One point of a curve: a bus in a process of its own, with so many of something.

CPU is that of the whole process, both its threads, over the messages that were handled. Memory is
what is resident; garbage is collected before that of an idle topic is read, and before no other.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from tbus import Bus, Message, Subscription, TopicOptions, open_bus

from .footprint import forget_peak, kept, peak, resident, tasks_now
from .scale_plans import AXES
from .workload import Figures, Job, envelope

GROUP = "scale"

SETTLING_SECONDS = 12.0
"""After the last subscription: pulls that then wait for messages on NATS have their heartbeats in
common after ten, and what a group on Kafka has begun is done."""

IDLE_SECONDS = 10.0
"""In which what comes every five comes twice."""

HANDLER_WAITS = 0.002
"""Seconds, on the axis of concurrency."""

MOST_BYTES = 50_000_000
"""That one point publishes, on the axis of size."""

FEWEST = 50

HELD = 1000
"""Messages in flight from which on their memory is not lost in that of the subscription."""

STALLED = 300.0
"""Seconds that a point may take to handle everything."""


@attrs.define
class Clock:
    """From the first message that is handled to the last, and the CPU meanwhile."""

    count: int
    handled: int = 0
    done: trio.Event = attrs.Factory(trio.Event)
    _begun: tuple[float, float] = (0.0, 0.0)
    _ended: tuple[float, float] = (0.0, 0.0)

    def see(self) -> None:
        """One more."""
        if not self.handled:
            self.start()
        self.handled += 1
        if self.handled == self.count:
            self._ended = time.perf_counter(), time.process_time()
            self.done.set()

    def start(self) -> None:
        """Count from now on, where it is not the first message that begins."""
        self._begun = time.perf_counter(), time.process_time()

    def figures(self) -> Figures:
        """Rate and CPU; the first message only starts the clock."""
        wall, cpu = (to - begun for to, begun in zip(self._ended, self._begun, strict=True))
        return {
            "handled": self.handled,
            "rate": self.count / wall,
            "cpu_us": cpu / self.count * 1e6,
        }


async def topics(job: Job, value: int) -> Figures:
    """`value` topics, idle and then at work."""
    names = [f"{job.topic}-{number}" for number in range(value)]
    async with _open(job) as bus:
        clock = Clock(FEWEST)

        async def handle(_: Message) -> None:
            clock.see()

        await _make(bus, names[0])
        await bus.subscribe(names[0], handle, group=GROUP)
        await _publish(bus, names[:1], FEWEST)
        await clock.done.wait()
        held, begun = kept(), time.perf_counter()
        for name in names[1:]:
            await _make(bus, name)
            await bus.subscribe(name, handle, group=GROUP)
        subscribing = time.perf_counter() - begun
        figures: Figures = {
            "settling_percent": await _cpu_percent(SETTLING_SECONDS),
            "idle_percent": await _cpu_percent(IDLE_SECONDS),
            "tasks": tasks_now(bus),
        }
        if value > 1:
            figures["kib_per_topic"] = (kept() - held) / (value - 1)
            figures["subscribe_ms"] = subscribing / (value - 1) * 1e3
        clock = Clock(job.count)
        clock.start()
        await _publish(bus, names, job.count)
        await _wait(clock)
    return figures | clock.figures()


async def declared(job: Job, value: int) -> Figures:
    """`value` topics that the bus is told of as it is opened."""
    names = [f"{job.topic}-{number}" for number in range(value)]
    async with _open(job, topics=names) as bus:
        clock = Clock(FEWEST)

        async def handle(_: Message) -> None:
            clock.see()

        for name in names:
            await bus.subscribe(name, handle, group=GROUP)
        await _publish(bus, names[:1], FEWEST)
        await clock.done.wait()
        figures: Figures = {"tasks": tasks_now(bus), "kept": kept()}
        clock = Clock(job.count)
        clock.start()
        await _publish(bus, names, job.count)
        await _wait(clock)
    return figures | clock.figures()


async def keys(job: Job, value: int) -> Figures:
    """`value` keys in turn."""
    async with _open(job) as bus:
        await _make(bus, job.topic)
        published = await _publish(bus, [job.topic], job.count, value)
        return published | await _handle(bus, job)


async def concurrency(job: Job, value: int) -> Figures:
    """`value` handlers at once, each of which waits."""

    async def wait(_: Message) -> None:
        await trio.sleep(HANDLER_WAITS)

    async with _open(job, concurrency=value, max_in_flight=max(1000, 2 * value)) as bus:
        await _make(bus, job.topic)
        published = await _publish(bus, [job.topic], job.count, job.count)
        return published | await _handle(bus, job, wait)


async def size(job: Job, value: int) -> Figures:
    """Bodies of `value` bytes."""
    async with _open(job) as bus:
        await _make(bus, job.topic)
        body = bytes(value)
        begun = time.perf_counter(), time.process_time()
        async with bus.open_publisher() as publisher:
            for _ in range(job.count):
                await publisher.send(job.topic, body)
        published = _published(begun, job.count)
        figures = await _handle(bus, job)
        return published | figures | {"megabytes": figures["rate"] * value / 1e6}


async def subscriptions(job: Job, value: int) -> Figures:
    """`value` groups that read one topic."""
    async with _open(job) as bus:
        await _make(bus, job.topic)
        clock = Clock(job.count * value)

        async def handle(_: Message) -> None:
            clock.see()

        for number in range(value):
            await bus.subscribe(job.topic, handle, group=f"{GROUP}-{number}")
        clock.start()
        await _publish(bus, [job.topic], job.count)
        held = tasks_now(bus)
        await _wait(clock)
        return {"tasks": held, **clock.figures(), "handled": clock.handled // value}


async def in_flight(job: Job, value: int) -> Figures:
    """`max_in_flight` of `value`: how fast, and what a message takes that is held."""
    async with _open(job, max_in_flight=value) as bus:
        await _make(bus, job.topic)
        published = await _publish(bus, [job.topic], job.count, job.count)
        figures = published | await _handle(bus, job)
        if value < HELD:
            return figures
        release = trio.Event()

        async def hold(_: Message) -> None:
            await release.wait()

        before = resident()
        # One handler is enough to hold up all the rest, which wait for their turn.
        holder = await bus.subscribe(job.topic, hold, group=f"{GROUP}-hold", concurrency=1)
        await _wait_in_flight(holder, min(value, job.count))
        figures["kib_in_flight"] = (resident() - before) / min(value, job.count)
        release.set()
        return figures


async def _cpu_percent(seconds: float) -> float:
    """Of one core, while nothing is asked for."""
    before = time.process_time()
    await trio.sleep(seconds)
    return (time.process_time() - before) / seconds * 100


async def _wait_in_flight(subscription: Subscription, count: int) -> None:
    with trio.fail_after(STALLED):
        while subscription.statistics().in_flight < count:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)


# --- what the axes share -----------------------------------------------------------------


@asynccontextmanager
async def _open(job: Job, **options: Any) -> AsyncIterator[Bus]:
    async with open_bus(job.url, nats={"storage": "memory"}, **options) as bus:
        yield bus


async def _make(bus: Bus, name: str) -> None:
    """A topic in the broker's memory where it has one."""
    in_memory = bus.transport.__class__.__name__ == "NatsTransport"
    options = TopicOptions(storage="memory") if in_memory else TopicOptions()
    await bus.configure_topic(name, options)


async def _publish(bus: Bus, names: list[str], count: int, keys: int = 1000) -> Figures:
    """Envelopes of 256 bytes into the topics in turn, pipelined."""
    begun = time.perf_counter(), time.process_time()
    async with bus.open_publisher() as publisher:
        for number in range(count):
            event = envelope(number % keys, number // keys + 1)
            await publisher.send(names[number % len(names)], event)
    return _published(begun, count)


def _published(begun: tuple[float, float], count: int) -> Figures:
    return {
        "publish_rate": count / (time.perf_counter() - begun[0]),
        "publish_cpu_us": (time.process_time() - begun[1]) / count * 1e6,
    }


async def _handle(
    bus: Bus, job: Job, work: Callable[[Message], Awaitable[None]] | None = None
) -> Figures:
    """Everything that is stored, with a subscription that is closed afterwards."""
    clock = Clock(job.count)

    async def handle(message: Message) -> None:
        if work is not None:
            await work(message)
        clock.see()

    before = resident()
    forget_peak()
    subscription = await bus.subscribe(job.topic, handle, group=GROUP)
    await _wait(clock)
    await subscription.close()
    return {
        **clock.figures(),
        "kept_bytes": (resident() - before) / job.count,
        "peak_mib": peak() - before,
    }


async def _wait(clock: Clock) -> None:
    with trio.fail_after(STALLED):
        await clock.done.wait()


# --- by name -----------------------------------------------------------------------------

POINTS: dict[str, Callable[..., Awaitable[Figures]]] = {
    "topics": topics,
    "declared": declared,
    "keys": keys,
    "concurrency": concurrency,
    "size": size,
    "subscriptions": subscriptions,
    "in-flight": in_flight,
}


def count_of(axis: str, value: int, count: int) -> int:
    """Messages of one point: no more than take a few seconds."""
    if axis == "keys":
        return max(count, value)
    if axis == "concurrency":
        return min(count, max(FEWEST, round(value / HANDLER_WAITS * 2)))
    if axis == "size":
        return min(count, max(FEWEST, MOST_BYTES // value))
    if axis == "subscriptions":
        return max(FEWEST, count // value)
    if axis == "in-flight":
        return max(2 * value, min(count, 1000 * value))
    return max(count, value)


def contestant_name(axis: str, value: int) -> str:
    """The contestant that measures one point."""
    return f"scale {axis} {value}"


SCALES = {
    contestant_name(axis.name, value): partial(POINTS[axis.name], value=value)
    for axis in AXES.values()
    for value in axis.values
}
