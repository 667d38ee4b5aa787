"""Several members of one group: they share the partitions, and a key keeps its order over all."""

from __future__ import annotations

from collections import Counter, defaultdict

import anyio
import anyio.lowlevel

from ..._bus import Bus
from ..._errors import ConfigurationError
from ..._events import PartitionsAssigned, PartitionsRevoked
from ..._message import Message
from ..._topic import TopicOptions
from ..harness import Harness
from ._case import case
from ._kit import Gate, Seen, Watch, raising, watching

PARTITIONS = 4
KEYS = 16


class _Ledger:
    """What was handled, by whom, in one order over all members."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, int]] = []
        self.positions: Counter[object] = Counter()
        self.epochs: dict[int, list[int]] = defaultdict(list)
        self._more = anyio.Event()

    def member(self, name: str) -> _Member:
        """A handler that writes under a name."""
        return _Member(self, name)

    def add(self, name: str, message: Message) -> None:
        """A member has handled a message."""
        assert message.key is not None
        self.lines.append((name, message.key, int(message.body)))
        self.positions[message.position] += 1
        epochs = self.epochs[message.position.partition]
        if not epochs or epochs[-1] != message.epoch:
            epochs.append(message.epoch)
        self._more.set()
        self._more = anyio.Event()

    def count(self, name: str) -> int:
        """How many a member has handled."""
        return sum(1 for line in self.lines if line[0] == name)

    async def wait(self, total: int) -> None:
        """Wait until so many were handled."""
        while len(self.lines) < total:
            await self._more.wait()

    def check(self, published: int) -> None:
        """Everything was handled once, and each key's in order."""
        assert set(self.positions.values()) <= {1}, "something was handled twice"
        assert len(self.lines) == published
        by_key: dict[str, list[int]] = defaultdict(list)
        for _, key, number in self.lines:
            by_key[key].append(number)
        for key, numbers in by_key.items():
            assert numbers == sorted(numbers), f"{key}: {numbers}"
        for partition, epochs in self.epochs.items():
            assert epochs == sorted(epochs), f"epochs of partition {partition}: {epochs}"


class _Member:
    def __init__(self, ledger: _Ledger, name: str) -> None:
        self._ledger = ledger
        self._name = name

    async def __call__(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        self._ledger.add(self._name, message)


class _Writer:
    """Publishes numbered events, to all keys in turn."""

    def __init__(self, bus: Bus, topic: str) -> None:
        self._bus = bus
        self._topic = topic
        self.count = 0

    async def write(self, rounds: int = 1) -> None:
        """One event for each key, so many times."""
        for _ in range(rounds):
            for number in range(KEYS):
                body = str(self.count // KEYS).encode()
                await self._bus.publish(self._topic, body, key=f"key-{number}")
                self.count += 1


async def _make(bus: Bus, harness: Harness) -> str:
    topic = harness.topic()
    await bus.configure_topic(topic, TopicOptions(partitions=PARTITIONS))
    return topic


@case(limit=60.0)
async def a_member_that_is_alone_has_every_partition(harness: Harness) -> None:
    ledger = _Ledger()
    async with harness.open_bus() as bus:
        topic = await _make(bus, harness)
        writer = _Writer(bus, topic)
        await bus.subscribe(topic, ledger.member("a"), group="g")
        await writer.write(3)
        await ledger.wait(writer.count)
    ledger.check(writer.count)
    assert len(ledger.epochs) == PARTITIONS


@case(limit=60.0)
async def a_member_that_comes_gets_its_part_and_no_key_loses_its_order(harness: Harness) -> None:
    ledger = _Ledger()
    async with harness.open_bus() as bus, harness.open_bus() as other:
        topic = await _make(bus, harness)
        writer = _Writer(bus, topic)
        await bus.subscribe(topic, ledger.member("a"), group="g")
        await writer.write(3)
        await ledger.wait(writer.count)
        await other.subscribe(topic, ledger.member("b"), group="g")
        while ledger.count("b") < 10:
            await writer.write()
            await anyio.sleep(0.01)
        before = ledger.count("a")
        while ledger.count("a") < before + 10:
            await writer.write()
            await anyio.sleep(0.01)
        await ledger.wait(writer.count)
    ledger.check(writer.count)


@case(limit=60.0)
async def a_member_that_leaves_hands_its_part_over_and_nothing_is_repeated(
    harness: Harness,
) -> None:
    ledger = _Ledger()
    async with harness.open_bus() as bus:
        topic = await _make(bus, harness)
        writer = _Writer(bus, topic)
        await bus.subscribe(topic, ledger.member("a"), group="g")
        async with harness.open_bus() as other:
            await other.subscribe(topic, ledger.member("b"), group="g")
            while ledger.count("b") < 10:
                await writer.write()
                await anyio.sleep(0.01)
        left = ledger.count("b")
        await writer.write(3)
        await ledger.wait(writer.count)
        assert ledger.count("b") == left
    ledger.check(writer.count)


@case(limit=60.0)
async def what_runs_when_a_member_comes_is_finished_before_anybody_gets_more_of_its_key(
    harness: Harness,
) -> None:
    ledger, gate = _Ledger(), Gate()
    first = ledger.member("a")

    async def slow(message: Message) -> None:
        await gate(message)
        await first(message)

    async with harness.open_bus(concurrency=KEYS) as bus, harness.open_bus() as other:
        topic = await _make(bus, harness)
        writer = _Writer(bus, topic)
        await bus.subscribe(topic, slow, group="g")
        await writer.write(2)
        await gate.wait(KEYS)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_subscribe, other, topic, ledger.member("b"))
            await anyio.sleep(0.1)
            assert ledger.lines == []
            gate.open()
        while ledger.count("b") < 10:
            await writer.write()
            await anyio.sleep(0.01)
        await ledger.wait(writer.count)
    ledger.check(writer.count)


async def _subscribe(bus: Bus, topic: str, handler: _Member) -> None:
    await bus.subscribe(topic, handler, group="g")


def _epochs(watch: Watch) -> dict[int, int]:
    """The partitions that a member has by what it was told, each with its epoch."""
    held: dict[int, int] = {}
    for event in watch.events:
        if isinstance(event, PartitionsAssigned):
            held |= dict.fromkeys(event.partitions, event.epoch)
        elif isinstance(event, PartitionsRevoked):
            for number in event.partitions:
                held.pop(number, None)
    return held


@case(limit=60.0)
async def members_are_told_which_partitions_are_theirs_and_of_what_epoch(harness: Harness) -> None:
    seen = Seen()
    everything = set(range(PARTITIONS))
    async with harness.open_bus() as bus, watching(bus) as watch:
        topic = await _make(bus, harness)
        writer = _Writer(bus, topic)
        await bus.subscribe(topic, seen, group="g")
        while set(_epochs(watch)) != everything:
            await watch.next()
        told = watch.of(PartitionsAssigned)
        assert {(event.topic, event.group) for event in told} == {(topic, "g")}
        alone = _epochs(watch)
        await writer.write()
        for message in await seen.wait(writer.count):
            assert message.epoch == alone[message.position.partition]
        async with harness.open_bus() as other, watching(other) as others:
            await other.subscribe(topic, seen, group="g")
            while len(_epochs(watch)) != 2:
                await watch.next()
            while len(_epochs(others)) != 2:
                await others.next()
            here, there = _epochs(watch), _epochs(others)
            assert here.keys() | there.keys() == everything
            assert all(epoch > alone[number] for number, epoch in there.items())
            await writer.write()
            for message in (await seen.wait(writer.count))[KEYS:]:
                assert message.epoch == (here | there)[message.position.partition]
        while set(_epochs(watch)) != everything:
            await watch.next()
        again = _epochs(watch)
    assert all(again[number] > epoch for number, epoch in there.items())


@case(limit=60.0)
async def another_number_of_partitions_is_refused_and_had_by_draining_and_making_the_topic_again(
    harness: Harness,
) -> None:
    before, after = _Ledger(), _Ledger()
    more = TopicOptions(partitions=PARTITIONS + 3)
    async with harness.open_bus() as bus:
        topic = await _make(bus, harness)
        writer = _Writer(bus, topic)
        await writer.write(2)
        with raising(ConfigurationError, "partitions"):
            await bus.configure_topic(topic, more)
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, before.member("a"), group="g")
        await before.wait(writer.count)
        while (await bus.lag(topic, "g")).messages:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.01)
    async with harness.open_bus() as bus:
        await bus.remove_topic(topic)
        await bus.configure_topic(topic, more)
    async with harness.open_bus() as bus, harness.open_bus() as publishing:
        await bus.subscribe(topic, after.member("a"), group="g")
        again = _Writer(publishing, topic)
        await again.write(2)
        await after.wait(again.count)
    before.check(writer.count)
    after.check(again.count)
    assert max(before.epochs) < PARTITIONS <= max(after.epochs)
