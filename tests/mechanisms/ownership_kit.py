"""A world for members of a group: a bucket, a network, clocks, and what can go wrong with them.

Time is simulated and true; each member sees it through a clock of its own that runs fast or
slow. What a member believes is compared with what the others believe at the same true time,
after every single event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random

import attrs

from tbus._ownership import (
    Absent,
    Answer,
    Delete,
    Document,
    Drain,
    Drop,
    Effect,
    Found,
    Get,
    Left,
    Member,
    Put,
    Refused,
    Stage,
    Stored,
    Take,
    Timing,
)
from tbus._ownership._document import DOCUMENT, decode_document

Input = Callable[[float], list[Effect]]


@attrs.define
class Network:
    """How the ways to and from the bucket are.

    Attributes:
        latency: the longest that one way takes, in seconds, usually.
        loss: the part of requests, answers and notices that get lost.
        repeat: the part of requests that arrive twice.
        late: the part of requests and answers that take up to 6 seconds.
    """

    latency: float = 0.01
    loss: float = 0.0
    repeat: float = 0.0
    late: float = 0.0


class Bucket:
    """Keys with revisions, changed only at the revision that is named."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[int, bytes]] = {}
        self.revision = 0
        self.puts: Counter[str] = Counter()

    def put(self, key: str, value: bytes, revision: int) -> Answer:
        if self.entries.get(key, (0, b""))[0] != revision:
            return Refused()
        self.revision += 1
        self.entries[key] = (self.revision, value)
        self.puts[key] += 1
        return Stored(self.revision)

    def get(self, key: str) -> Answer:
        found = self.entries.get(key)
        return Absent() if found is None else Found(*found)

    def delete(self, key: str, revision: int) -> bool:
        if self.entries.get(key, (0, b""))[0] != revision or not revision:
            return False
        self.revision += 1
        del self.entries[key]
        return True

    @property
    def document(self) -> Document:
        return decode_document(self.entries[DOCUMENT][1])


class Node:
    """A process: a member, its clock, and the most faithful I/O."""

    def __init__(
        self, world: World, name: str, partitions: int, rate: float, timing: Timing
    ) -> None:
        self.world = world
        self.name = name
        self.rate = rate
        self.offset = world.random.uniform(-1e5, 1e5)
        self.drain_time = 0.02
        self.is_alive = True
        self.is_linked = True
        self.is_suspended = False
        self.has_left = False
        self.sent = 0
        self.taken: list[tuple[float, int, int]] = []
        self.drops: list[tuple[float, int, str]] = []
        self._inbox: list[Input] = []
        self._alarm = 0
        self.member = Member(name, partitions, self.clock(), timing)
        world.watch(self)
        self.feed(self.member.wake)

    def clock(self) -> float:
        return self.offset + self.world.now * self.rate

    # Inputs, and how the effects are performed

    def feed(self, what: Input) -> None:
        if not self.is_alive or self.has_left:
            return
        if self.is_suspended:
            self._inbox.append(what)
            return
        held = {
            number: epoch
            for number, (epoch, stage) in self.member.holdings.items()
            if stage is not Stage.DROPPED
        }
        over = {
            number
            for number, epoch in held.items()
            if not self.member.owns(self.clock(), number, epoch)
        }
        effects = what(self.clock())
        if over:
            assert over == held.keys()
            first = effects[: len(over)]
            assert {one.partition for one in first if isinstance(one, Drop)} == over, (
                "a member whose lease is over does something else first"
            )
        for effect in effects:
            self.perform(effect)
        self.set_alarm()

    def set_alarm(self) -> None:
        self._alarm += 1
        mine = self._alarm

        def ring() -> None:
            if mine == self._alarm:
                self.feed(self.member.wake)

        if self.member.wake_at < float("inf"):
            when = (self.member.wake_at - self.offset) / self.rate
            # One that is called in this moment must not stop the world.
            self.world.at(max(when + 1e-6, self.world.now), ring)

    def perform(self, effect: Effect) -> None:
        world = self.world
        match effect:
            case Put() | Get() | Delete():
                self.sent += 1
                world.send(self, effect)
            case Take(partition, epoch, mark):
                self.taken.append((world.now, partition, epoch))
                world.was_taken(self, partition, epoch, mark)
            case Drain(partition, epoch):
                self.end_later(partition, epoch, self.drain_time)
            case Drop(partition, epoch, reason):
                self.drops.append((world.now, partition, reason))
                self.end_later(partition, epoch, 0.005)
            case Left():
                self.has_left = True
                world.check_left(self)

    def end_later(self, partition: int, epoch: int, delay: float) -> None:
        mark = f"{partition}@{epoch}"
        self.world.after(
            delay,
            lambda: self.feed(lambda now: self.member.drained(now, partition, epoch, mark)),
        )

    # What can happen to it

    def kill(self) -> None:
        self.is_alive = False

    def suspend(self) -> None:
        self.is_suspended = True

    def resume(self) -> None:
        self.is_suspended = False
        # Whatever the process looks at first.
        if self.world.random.random() < 0.5:
            self.feed(self.member.wake)
        inbox, self._inbox = self._inbox, []
        for what in inbox:
            self.feed(what)
        self.feed(self.member.wake)

    def connect(self) -> None:
        self.is_linked = True
        self.world.watch(self)
        self.feed(self.member.wake)

    def leave(self) -> None:
        self.feed(self.member.leave)

    def owned(self) -> list[int]:
        """The partitions that it believes to own, now."""
        if not self.is_alive or self.has_left:
            return []
        now = self.clock()
        return [
            number
            for number, (epoch, _) in self.member.holdings.items()
            if self.member.owns(now, number, epoch)
        ]


class World:
    """True time, the bucket, the network and all processes."""

    def __init__(self, partitions: int = 6, seed: int = 0, timing: Timing | None = None) -> None:
        self.partitions = partitions
        self.timing = timing or Timing()
        self.random = Random(seed)
        self.now = 100.0
        self.bucket = Bucket()
        self.network = Network()
        self.nodes: list[Node] = []
        self.epochs: dict[int, int] = {}
        self.takes = 0
        self.marks: list[tuple[int, int, str]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._names = count()

    # Time

    def at(self, when: float, what: Callable[[], None]) -> None:
        heappush(self._events, (when, next(self._order), what))

    def after(self, delay: float, what: Callable[[], None]) -> None:
        self.at(self.now + delay, what)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        before = {node: node.sent for node in self.nodes}
        while self._events and self._events[0][0] <= end:
            when, _, what = heappop(self._events)
            self.now = max(self.now, when)
            what()
            self.check()
            for node, sent in before.items():
                assert node.sent - sent < 100 + 50 * seconds, f"{node.name} spins"
        self.now = end
        self.check()

    def run_until(self, condition: Callable[[], bool], within: float) -> float:
        """Runs until something is so; returns how long that took."""
        start = self.now
        while not condition():
            assert self.now < start + within, f"not within {within} s"
            self.run(0.01)
        return self.now - start

    # Members

    def join(self, rate: float = 1.0) -> Node:
        node = Node(self, f"m{next(self._names):02}", self.partitions, rate, self.timing)
        self.nodes.append(node)
        return node

    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.is_alive and not node.has_left]

    # The network

    def _delay(self) -> float:
        if self.random.random() < self.network.late:
            return self.random.uniform(0, 6)
        return self.random.uniform(0.1, 1) * self.network.latency

    def _is_lost(self) -> bool:
        return self.random.random() < self.network.loss

    def send(self, node: Node, effect: Put | Get | Delete) -> None:
        times = 1 + (self.random.random() < self.network.repeat)
        for _ in range(times):
            if node.is_linked and not self._is_lost():
                self.after(self._delay(), lambda: self._arrive(node, effect))

    def _arrive(self, node: Node, effect: Put | Get | Delete) -> None:
        if isinstance(effect, Delete):
            if self.bucket.delete(effect.key, effect.revision):
                self._tell(effect.key, self.bucket.revision, None)
            return
        if isinstance(effect, Get):
            answer = self.bucket.get(effect.key)
        else:
            answer = self.bucket.put(effect.key, effect.value, effect.revision)
            if isinstance(answer, Stored):
                self._tell(effect.key, answer.revision, effect.value)
        if not self._is_lost():
            self.after(self._delay(), lambda: self._answer(node, effect.request, answer))

    def _answer(self, node: Node, request: int, answer: Answer) -> None:
        if node.is_linked:
            node.feed(lambda now: node.member.answered(now, request, answer))

    def _tell(self, key: str, revision: int, value: bytes | None) -> None:
        for node in self.alive():
            self._tell_one(node, key, revision, value)

    def _tell_one(self, node: Node, key: str, revision: int, value: bytes | None) -> None:
        def notice() -> None:
            if node.is_linked:
                node.feed(lambda now: node.member.noticed(now, key, revision, value))

        if not self._is_lost():
            self.after(self._delay(), notice)

    def watch(self, node: Node) -> None:
        """A watch that begins tells what there is."""
        for key, (revision, value) in self.bucket.entries.items():
            self._tell_one(node, key, revision, value)

    # What must hold at every moment

    def was_taken(self, node: Node, partition: int, epoch: int, mark: str) -> None:
        assert epoch > self.epochs.get(partition, 0), "an epoch did not rise"
        self.epochs[partition] = epoch
        self.takes += 1
        self.marks.append((partition, epoch, mark))

    def check(self) -> None:
        owners: dict[int, str] = {}
        for node in self.nodes:
            for partition in node.owned():
                assert partition not in owners, (
                    f"{owners[partition]} and {node.name} own partition {partition}"
                )
                owners[partition] = node.name

    def check_left(self, node: Node) -> None:
        assert not node.member.holdings

    # What must come to hold when nothing goes wrong any more

    def owners(self) -> dict[int, Node]:
        return {partition: node for node in self.alive() for partition in node.owned()}

    def is_settled(self) -> bool:
        """Everything is owned, evenly, by whom it is meant for."""
        alive = self.alive()
        if not alive:
            return True
        sizes = [len(node.owned()) for node in alive]
        return (
            len(self.owners()) == self.partitions
            and max(sizes) - min(sizes) <= 1
            and all(
                stage is Stage.OWNED for node in alive for _, stage in node.member.holdings.values()
            )
        )

    def calm(self) -> None:
        """Nothing goes wrong any more; what was under way may still arrive."""
        self.network = Network()
        for node in self.nodes:
            if node.is_suspended:
                node.resume()
            node.connect()
