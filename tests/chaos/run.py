"""One run: events flow, things are done to members and broker, and the book is judged."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import attrs
import trio

from tbus.testing.harness import unique_name

from .book import Book
from .brokers import Broker
from .crowd import Crowd
from .member import Job
from .observer import Observer
from .writer import Writer

WATCH_EVERY = 0.05

MEASURED = ("kill", "suspend")

LONG = 3.0
"""Seconds of a standstill that is told with all that is known of it."""


def option(default: float, about: str) -> Any:
    """A field that the command line shows."""
    return attrs.field(default=default, metadata={"about": about})


@attrs.frozen
class Plan:
    """What a run consists of."""

    events: int = option(20_000, "events to publish")
    rate: float = option(1000.0, "events published a second")
    keys: int = option(2000, "keys that they have")
    topics: int = option(1, "topics that they go to")
    partitions: int = option(12, "partitions of each topic")
    members: int = option(3, "members of the group")
    kills: int = option(5, "members killed, each replaced within 4 s")
    stops: int = option(5, "members ended properly, and replaced")
    suspends: int = option(5, "members suspended, and resumed")
    longest: float = option(8.0, "seconds of a suspension, at most")
    cuts: int = option(0, "cuts of one member's connections, or the publisher's")
    broker_kills: int = option(0, "kills of the broker, which starts again")
    gap: float = option(1.0, "seconds between two deeds, at most")
    work: float = option(0.002, "seconds of a handler, at most")
    patience: float = option(30.0, "seconds without progress after which the run is ended")
    seed: int = option(0, "of the random numbers; 0: another one each time")


class Run:
    """The parts of a run, and what is done."""

    def __init__(self, plan: Plan, broker: Broker, directory: Path, nursery: trio.Nursery) -> None:
        self.plan = plan
        self.broker = broker
        self.observer = Observer(broker.clock)
        self.book = Book(directory / "book", self.observer.note_completion)
        self.writer = Writer(
            [unique_name("chaos") for _ in range(plan.topics)],
            partitions=plan.partitions,
            events=plan.events,
            keys=plan.keys,
            rate=plan.rate,
        )
        self.done: Counter[str] = Counter()
        job = Job(
            broker.url, "crowd", tuple(self.writer.topics), str(self.book.path), plan.work,
            broker.settings,
        )  # fmt: skip
        start = partial(broker.start_member, nursery, job, directory / "log")
        self.crowd = Crowd(start, self._note_fault, plan.members)

    def _note_fault(self, kind: str, member: int) -> None:
        self.book.read_on()  # who had what until now
        self.observer.note_fault(kind, member)

    async def publish(self) -> None:
        """Have events flow."""
        await self.writer.run(self.broker.url, **self.broker.settings)
        self.observer.until = self.broker.clock()

    async def watch(self) -> None:
        """Read the book as it grows."""
        while True:
            self.book.read_on()
            await trio.sleep(WATCH_EVERY)

    async def do_to_members(self, tell: Callable[[str], None]) -> None:
        """Kills, stops and suspensions, in any order, one after another."""
        plan, crowd = self.plan, self.crowd
        deeds = [
            *[partial(crowd.kill, 4.0)] * plan.kills,
            *[partial(crowd.stop, 1.0)] * plan.stops,
            *[partial(crowd.suspend, plan.longest)] * plan.suspends,
        ]
        random.shuffle(deeds)
        for number, deed in enumerate(deeds):
            await trio.sleep(random.random() * plan.gap)
            await deed()
            if number % 10 == 9:
                tell(
                    f"{number + 1} of {len(deeds)} done, {len(self.writer.stored)} stored,"
                    f" {len(self.book.completions)} handled"
                )

    async def do_to_connections(self) -> None:
        """Cuts and kills of the broker, meanwhile, spread over the time that events flow."""
        plan = self.plan
        deeds = [*[self._cut] * plan.cuts, *[self._kill_broker] * plan.broker_kills]
        random.shuffle(deeds)
        whole = plan.events / plan.rate
        for deed in deeds:
            await trio.sleep(random.random() * 2 * whole * 0.9 / len(deeds))
            await deed()

    async def _cut(self) -> None:
        if random.randrange(self.plan.members + 1):
            self.crowd.cut()
        elif self.writer.bus is not None:
            self.broker.cut(self.writer.bus)
            self.done["publisher cut"] += 1

    async def _kill_broker(self) -> None:
        self.book.read_on()
        self.observer.note_broker_fault()
        await self.broker.kill()
        self.done["broker killed"] += 1

    async def wait_handled(self) -> bool:
        """Wait until all that was acknowledged is handled; False: nothing came for too long."""
        last, since = -1, trio.current_time()
        while not self.writer.is_done or self.writer.stored - self.book.completions.keys():
            seen = self.book.completions.total() + len(self.writer.stored)
            if seen != last:
                last, since = seen, trio.current_time()
            elif trio.current_time() - since > self.plan.patience:
                return False
            await trio.sleep(0.2)
        return True

    def result(self) -> dict[str, Any]:
        """What came of it, as plain data."""
        verdict = self.book.judge(self.writer.stored)
        faults = self.observer.faults
        kinds = Counter(error.partition(":")[0] for error in self.writer.unresolved)
        return {
            **{name: value for name, value in attrs.asdict(self.plan).items() if name != "seed"},
            "done": dict(sorted((self.crowd.done + self.done).items())),
            "unclean ends": self.crowd.unclean,
            "not acknowledged": dict(kinds),
            "stored": verdict.stored,
            "handled": verdict.handled,
            "lost": verdict.lost,
            "inversions": verdict.inversions,
            "repeated": verdict.repeated,
            "faults": len(faults),
            "repeated per fault": round(verdict.repeated / len(faults), 1) if faults else 0,
            "repeated after one fault, at most": max((f.repeated for f in faults), default=0),
            "completed under an old epoch": self.observer.late,
            "seconds until every partition went on": {
                f"{kind}{', and more meanwhile' if disturbed else ''}": spread(
                    self.observer.standstills(kind, disturbed=disturbed)
                )
                for kind in MEASURED
                for disturbed in (False, True)
            },
        }


def spread(values: list[float]) -> dict[str, Any]:
    """How many, the middle one and the largest."""
    if not values:
        return {"count": 0}
    largest = values[-1] if values[-1] < inf else "never"
    return {"count": len(values), "median": values[len(values) // 2], "largest": largest}


async def run(
    plan: Plan, broker: Broker, directory: Path, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Publish, do things, and judge.

    Args:
        directory: for the book, and the log of the members.
        tell: how far it is.
    """
    if plan.seed:
        random.seed(plan.seed)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        one = Run(plan, broker, directory, nursery)
        await one.writer.make_topics(broker.url, **broker.settings)
        await one.crowd.fill()
        nursery.start_soon(one.watch)
        nursery.start_soon(one.publish)
        async with trio.open_nursery() as deeds:
            deeds.start_soon(one.do_to_members, tell)
            deeds.start_soon(one.do_to_connections)
        finished = await one.wait_handled()
        await one.crowd.end()
        nursery.cancel_scope.cancel()
    for text in (*one.writer.unresolved[:20], *one.observer.find_long(LONG)):
        tell(text)
    if not finished:
        tell(f"nothing came for {plan.patience} s: ended")
    if one.crowd.unclean:
        tell((directory / "log").read_text()[-10_000:])
    return {"seconds": round(trio.current_time() - begun, 1), **one.result()}
