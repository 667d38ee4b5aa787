"""The work of `tbus bench`: five measurements over topics of its own, which it removes.

All use the bus as any program does, and see what any program sees. Nothing of what there is on the
broker is touched: the topics' names begin with `tbus-bench-` and end with what chance gave. They
keep messages for an hour, so that even one whose removal fails empties itself.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, Protocol

import attrs
import trio

from .._bus import Bus
from .._config import BusConfig
from .._errors import TbusError
from .._message import Message
from .._open import open_bus
from .._retry import Retry
from .._topic import TopicOptions
from ._bench_events import Events, Latency, Meter, Observer, Throughput
from ._bench_report import Report
from ._beside import running_beside
from ._clean_up import CLEAN_UP, remove_topics
from ._stop import Stop

REDRAW = 0.1
"""Seconds between two looks at the screen."""

PINGS = 20

ONE_BY_ONE = 2000
"""Events that are sent one at a time, at most."""

TICK = 0.001
"""Seconds between two looks at what is due."""

PATIENCE = 30.0
"""Seconds that a stored event has to be handled when nothing more comes."""

KEPT = 3600.0
"""Seconds that the topics keep messages."""

GROUP = "tbus-bench"


@attrs.frozen
class BenchOptions:
    """What to do.

    Attributes:
        config: of the bus.
        seconds: that each measurement takes.
        publishers: that publish at once.
        size: bytes of an event.
        keys: how many.
        partitions: of the topics.
        replicas: of the topics.
        storage: of the topics.
    """

    config: BusConfig
    seconds: float
    publishers: int
    size: int
    keys: int
    partitions: int
    replicas: int
    storage: Literal["file", "memory"]

    def topic(self) -> TopicOptions:
        """What the topics are to be."""
        return TopicOptions(
            partitions=self.partitions,
            replicas=self.replicas,
            storage=self.storage,
            retention_time=KEPT,
            description="made by tbus bench, to be removed",
        )


class Audience(Protocol):
    """Who is told what happens, while it happens."""

    def begin(self, step: str, meter: Meter, expected: float | None) -> None:
        """A measurement begins, which counts with the meter up to what is expected."""

    def done(self, step: str, report: Report) -> None:
        """It has ended, and is in the report."""

    def redraw(self) -> None:
        """A little time has passed."""

    def end(self) -> None:
        """The work has ended. Called whatever happened."""


class _NotHandled(TbusError):
    """An event that is stored does not arrive."""


async def run_bench(options: BenchOptions, report: Report, audience: Audience, stop: Stop) -> None:
    """Measure, clean up, and fill in the report. A stop ends it gracefully: the report is of what
    was done until then.

    Raises:
        TbusError: the bus could not be opened, or failed.
    """
    prefix = f"tbus-bench-{secrets.token_hex(4)}"
    topics = [f"{prefix}.{name}" for name in ("publish", "pipelined", "one-by-one", "loaded")]
    made: list[str] = []

    async def tick() -> None:
        while True:
            audience.redraw()
            await trio.sleep(REDRAW)

    async with open_bus(options.config, topics=tuple(topics)) as bus:
        try:
            with stop.scope():
                async with running_beside(tick, "bench view"):
                    bench = _Bench(bus, options, report, audience)
                    await bench.ping()
                    for topic in topics:
                        # Before it is made: one that was made and cancelled is there, too.
                        made.append(topic)
                        await bus.configure_topic(topic, options.topic())
                    await bench.publish(topics[0])
                    await bench.pipelined(topics[1])
                    await bench.consume(topics[1])
                    await bench.one_by_one(topics[2])
                    await bench.loaded(topics[3])
        finally:
            try:
                audience.end()
            finally:
                report.left_topics = await remove_topics(bus, made)  # noqa: ASYNC102 - the transport bounds it


class _Bench:
    """The measurements, one after another."""

    def __init__(self, bus: Bus, options: BenchOptions, report: Report, audience: Audience) -> None:
        self._bus = bus
        self._options = options
        self._report = report
        self._audience = audience

    def _begin(self, step: str, expected: float | None = None) -> Meter:
        meter = Meter(trio.current_time())
        self._audience.begin(step, meter, expected)
        return meter

    def _events(self) -> Events:
        return Events(self._options.size, self._options.keys)

    async def ping(self) -> None:
        """How long a question to the broker takes."""
        meter = self._begin("round_trip", PINGS)
        took = []
        for _ in range(PINGS):
            took.append(await self._bus.ping())
            meter.count += 1
        self._report.round_trip = Latency.of(took)
        self._audience.done("round_trip", self._report)

    async def publish(self, topic: str) -> None:
        """Many publishers, each of which waits for its receipt."""
        events, clock = self._events(), trio.current_time
        took: list[float] = []
        failures: list[TbusError] = []
        meter = self._begin("publish")
        begun = clock()
        end = begun + self._options.seconds

        async def publisher() -> None:
            try:
                while (left := clock()) < end:
                    await self._bus.publish(topic, next(events))
                    took.append(clock() - left)
                    meter.count += 1
            except TbusError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for number in range(self._options.publishers):
                nursery.start_soon(publisher, name=f"bench publisher {number}")
        if failures:
            raise failures[0]
        self._report.publish = Throughput(len(took), clock() - begun, Latency.of(took))
        self._audience.done("publish", self._report)

    async def pipelined(self, topic: str) -> None:
        """One publisher that waits for receipts at the end only."""
        events, clock = self._events(), trio.current_time
        meter = self._begin("pipelined")
        begun = clock()
        async with self._bus.open_publisher() as publisher:
            while clock() < begun + self._options.seconds:
                await publisher.send(topic, next(events))
                meter.count += 1
        self._report.pipelined = Throughput(meter.count, clock() - begun)
        self._audience.done("pipelined", self._report)

    async def consume(self, topic: str) -> None:
        """What the pipelined publisher left, from the first event handled to the last."""
        assert self._report.pipelined is not None
        expected = self._report.pipelined.events
        clock = trio.current_time
        meter = self._begin("consume", expected)
        first = last = 0.0

        def handled(_: int) -> None:
            nonlocal first, last
            last = clock()
            first = first or last

        async with self._open_observer(topic, meter, handled) as wait_handled:
            await wait_handled(expected)
        self._report.consume = Throughput(meter.count, last - first)
        self._audience.done("consume", self._report)

    async def one_by_one(self, topic: str) -> None:
        """From published to handled, one event at a time."""
        events, clock = self._events(), trio.current_time
        took: list[float] = []
        left = 0.0
        arrived = trio.Event()

        def handled(_: int) -> None:
            took.append(clock() - left)
            arrived.set()

        meter = self._begin("one_by_one", ONE_BY_ONE)
        async with self._open_observer(topic, meter, handled):
            end = clock() + self._options.seconds
            while len(took) < ONE_BY_ONE and (left := clock()) < end:
                arrived = trio.Event()
                await self._bus.publish(topic, next(events))
                with trio.move_on_after(PATIENCE):
                    await arrived.wait()
                if not arrived.is_set():
                    raise _NotHandled(f"an event was stored and not handled in {PATIENCE:g} s")
        self._report.one_by_one = Latency.of(took)
        self._audience.done("one_by_one", self._report)

    async def loaded(self, topic: str) -> None:
        """From the time that a steady pace gives an event, whenever it was really sent, to its
        handler."""
        rate = self._half()
        events, clock = self._events(), trio.current_time
        took: list[float] = []
        count = max(1, int(rate * self._options.seconds))
        begun = 0.0

        def handled(number: int) -> None:
            took.append(clock() - begun - number / rate)

        meter = self._begin("loaded", count)
        async with (
            self._open_observer(topic, meter, handled) as wait_handled,
            self._bus.open_publisher() as publisher,
        ):
            begun = clock()
            sent = 0
            while sent < count:
                due = min(count, int((clock() - begun) * rate) + 1)
                for _ in range(due - sent):
                    await publisher.send(topic, next(events))
                sent = due
                await trio.sleep(TICK)
            await wait_handled(count)
        self._report.loaded, self._report.load = Latency.of(took), rate
        self._audience.done("loaded", self._report)

    def _half(self) -> float:
        """Half of what can be done if every event has to be published and consumed."""
        done = [self._report.pipelined, self._report.consume]
        each = sum(1 / one.rate for one in done if one is not None and one.rate)
        return 0.5 / each if each else 100.0

    @asynccontextmanager
    async def _open_observer(
        self, topic: str, meter: Meter, handled: Callable[[int], None]
    ) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """Handle a topic in key order, and check what comes; gives what waits for so many."""
        events, observer = self._events(), Observer()
        progress = trio.Event()

        async def handle(message: Message) -> None:
            event = message.envelope
            handled(events.number(event))
            observer.see(event.aggregate_id, event.event_version)
            meter.count += 1
            if observer.distinct >= wanted:
                progress.set()

        wanted = math.inf

        async def wait_handled(expected: int) -> None:
            nonlocal wanted
            wanted = expected
            seen = -1
            # As long as something comes, it goes on.
            while observer.distinct < expected and observer.handled > seen:
                seen = observer.handled
                with trio.move_on_after(PATIENCE):
                    await progress.wait()
            self._report.missing += expected - observer.distinct

        subscription = await self._bus.subscribe(
            topic,
            handle,
            group=GROUP,
            # Nothing fails here, and no dead-letter topic has to be cleaned up.
            retry=Retry(attempts=None),
            dead_letter=None,
        )
        try:
            yield wait_handled
        finally:
            # A topic that is read must not vanish under its reader.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEAN_UP):
                await subscription.close()
            self._report.repeated += observer.repeated
            self._report.overtaken += observer.overtaken
