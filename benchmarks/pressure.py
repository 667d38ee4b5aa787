"""The original's workloads: many senders, five topics, one group, all in one process.

Every aggregate has a sender of its own, which publishes its versions 1, 2, 3, ... one after
another, each once the last is stored. All of them send as fast as they get receipts, and the
handlers run beside them. Nobody sleeps: the last unique message ends the run, and leaving the bus
settles the rest; then the broker is asked what it still has to deliver.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import attrs
import trio

from tbus import Bus, Message, TopicOptions, open_bus

from .footprint import footprint, forget_peak, peak, resident, watch_tasks
from .pressure_plans import MEDIA, PARTITIONS, PLAIN_SIZE, TOPICS, WORKLOADS, Medium, keys_of
from .workload import Failed, Figures, Job, envelope, percentile

GROUP = "pressure"

Handler = Callable[[Message], Awaitable[None]]

STALLED = 60.0
"""Seconds without any message after which a run is given up."""


@attrs.define
class Ledger:
    """What was sent and what was seen, by the number of the message.

    A message's number is `(version - 1) * keys + key`.

    Attributes:
        count: messages to come.
        keys: aggregates.
    """

    count: int
    keys: int
    duplicates: int = 0
    violations: int = 0
    unique: int = 0
    done: trio.Event = attrs.Factory(trio.Event)
    last_seen_at: float = 0.0
    sending: array[float] = attrs.field(init=False)
    arriving: array[float] = attrs.field(init=False)
    _begun: array[float] = attrs.field(init=False)
    _seen: bytearray = attrs.field(init=False)
    _last: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._begun = array("d", bytes(8 * self.count))
        self._seen = bytearray(self.count)
        self._last = [0] * self.keys
        self.sending, self.arriving = array("d"), array("d")

    def begin(self, number: int) -> float:
        """A message is about to be published."""
        now = self._begun[number] = time.perf_counter()
        return now

    def stored(self, begun: float) -> None:
        """Its receipt is there."""
        self.sending.append(time.perf_counter() - begun)

    def see(self, number: int) -> None:
        """It was handled."""
        if self._seen[number]:
            self.duplicates += 1
            return
        self._seen[number] = 1
        self.last_seen_at = time.perf_counter()
        self.arriving.append(self.last_seen_at - self._begun[number])
        self.unique += 1
        if self.unique == self.count:
            self.done.set()

    def see_in_order(self, key: int, version: int) -> None:
        """It was handled, and must come behind all earlier versions of its key; one that was
        handled before is a duplicate, and no violation."""
        number = (version - 1) * self.keys + key
        if not self._seen[number]:
            self.violations += version < self._last[key]
            self._last[key] = max(version, self._last[key])
        self.see(number)


async def pressure(job: Job, workload: str, medium: str) -> Figures:
    """One run in this process, with a bus of its own."""
    start = footprint()
    forget_peak()
    async with open_bus(job.url) as bus:
        figures = await press(bus, job, workload, MEDIA[medium])
    figures |= {"start": start, "end": footprint(), "peak": figures["peak"] | {"memory": peak()}}
    if MEDIA[medium].broker != "memory":  # that one is gone with its bus
        figures["left"] = await _left(job)
    return figures


async def press(bus: Bus, job: Job, workload: str, medium: Medium) -> Figures:
    """One run on a bus that is open; its topics stay, and its subscriptions are closed.

    Raises:
        Failed: nothing came any more.
    """
    keys = keys_of(job.count)
    ledger = Ledger(job.count, keys)
    topics = topic_names(job)
    partitions = PARTITIONS if medium.broker == "kafka" else 1
    options = TopicOptions(partitions=partitions, storage=medium.storage)
    senders: trio.Nursery | None = None

    def sending() -> int:
        return 0 if senders is None else len(senders.child_tasks)

    async with AsyncExitStack() as stack:
        for topic in topics:
            await bus.configure_topic(topic, options)
        handle = _in_order(ledger) if workload == "envelopes" else _unkeyed(ledger)
        for topic in topics:
            subscription = await bus.subscribe(topic, handle, group=GROUP)
            stack.push_async_callback(subscription.close)
        send = _send_envelopes if workload == "envelopes" else _send_plain
        opened = footprint(bus)
        # The one that looks is a task, too, and so is the one that waits for a stall.
        most = await stack.enter_async_context(watch_tasks(bus, lambda: sending() + 2))
        begun = time.perf_counter()
        async with trio.open_nursery() as watch:
            watch.start_soon(_give_up_when_stalled, ledger, watch.cancel_scope)
            async with trio.open_nursery() as senders:
                for key in range(keys):
                    senders.start_soon(partial(send, bus, topics[key % TOPICS], key, ledger))
            sent = time.perf_counter()
            await ledger.done.wait()
            watch.cancel_scope.cancel()
        if not ledger.done.is_set():
            raise Failed(
                f"nothing came for {STALLED:g} s: {ledger.unique} of {job.count} are there"
            )
        seen_most = max(most(), opened["tasks"])  # a task of the opening may end meanwhile
    return {
        "handled": ledger.unique,
        "violations": ledger.violations,
        "duplicates": ledger.duplicates,
        "rate": job.count / (ledger.last_seen_at - begun),
        "publish_rate": job.count / (sent - begun),
        "send_ms": _latency(ledger.sending),
        "end_to_end_ms": _latency(ledger.arriving),
        "open": opened,
        "peak": {"tasks": seen_most, "memory": resident()},
    }


def topic_names(job: Job) -> list[str]:
    """The topics of a run."""
    return [f"{job.topic}-{number}" for number in range(TOPICS)]


def contestant_name(workload: str, medium: str) -> str:
    """The contestant that does a workload over a medium."""
    return f"pressure {workload} {medium}"


PRESSURES = {
    contestant_name(workload, medium): partial(pressure, workload=workload, medium=medium)
    for workload in WORKLOADS
    for medium in MEDIA
}


def _in_order(ledger: Ledger) -> Handler:
    async def handle(message: Message) -> None:
        event = message.envelope
        ledger.see_in_order(int(event.aggregate_id.rpartition("-")[2]), event.event_version)

    return handle


def _unkeyed(ledger: Ledger) -> Handler:
    async def handle(message: Message) -> None:
        ledger.see(int(message.body[:12]))

    return handle


async def _send_envelopes(bus: Bus, topic: str, key: int, ledger: Ledger) -> None:
    for version in range(1, _versions(key, ledger) + 1):
        event = envelope(key, version)
        begun = ledger.begin((version - 1) * ledger.keys + key)
        await bus.publish(topic, event)
        ledger.stored(begun)


async def _send_plain(bus: Bus, topic: str, key: int, ledger: Ledger) -> None:
    padding = b"x" * (PLAIN_SIZE - 12)
    for version in range(1, _versions(key, ledger) + 1):
        number = (version - 1) * ledger.keys + key
        body = b"%012d" % number + padding
        begun = ledger.begin(number)
        await bus.publish(topic, body)
        ledger.stored(begun)


def _versions(key: int, ledger: Ledger) -> int:
    """How many messages this sender has."""
    each, more = divmod(ledger.count, ledger.keys)
    return each + (key < more)


async def _give_up_when_stalled(ledger: Ledger, run: trio.CancelScope) -> None:
    before = -1
    while ledger.unique != before:
        before = ledger.unique
        await trio.sleep(STALLED)
    run.cancel()


def _latency(took: array[float]) -> dict[str, float]:
    values = [one * 1e3 for one in took]
    return {
        "p50": percentile(values, 0.5),
        "p99": percentile(values, 0.99),
        "max": max(values),
    }


async def _left(job: Job) -> int:
    """What the broker still has to deliver to the group, over all topics."""
    async with open_bus(job.url) as bus:
        return sum([(await bus.lag(topic, GROUP)).messages for topic in topic_names(job)])


async def remove_topics(job: Job) -> None:
    """Remove what a run has made."""
    async with open_bus(job.url) as bus:
        for topic in topic_names(job):
            await bus.remove_topic(topic)
