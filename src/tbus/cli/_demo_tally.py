"""The demo's own observer: it counts what it sees, and believes nothing the bus says.

The law it checks: for one topic and customer, the versions of first completions only rise.
"""

from __future__ import annotations

from collections import Counter, deque

import trio

from .._message import PublishOutcome
from .._publisher import PipelinedPublisher

SHOWN = 3
"""Violations that are kept to be shown."""


class Tally:
    """What happened so far.

    Attributes:
        planned: events that shall be published.
        sent: ids of the events that the publishers took.
        failed: ids of those that are not stored, or may not be, and why.
        handled: ids of the events whose handler completed.
        by_topic: how many of these, for each topic.
        retries: handler runs that were not the first for their message.
        duplicates: completions of an event that had completed before.
        violations: first completions out of order.
        examples: some of them, in words.
        running: handlers running now.
        tasks: now, Trio's and those of the clients' loop.
        client_tasks: of these, those of the clients' loop, when last asked.
        peak_tasks: the most there were at the start of a handler, or between.
        tasks_at_rest: when all was subscribed and nothing published.
    """

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.publishers: list[PipelinedPublisher] = []
        self.sent: set[str] = set()
        self.failed: dict[str, str] = {}
        self.handled: set[str] = set()
        self.by_topic: Counter[str] = Counter()
        self.retries = 0
        self.duplicates = 0
        self.violations = 0
        self.examples: list[str] = []
        self.running = 0
        self.tasks = self.client_tasks = self.peak_tasks = self.tasks_at_rest = 0
        self.started = self.last_handled = trio.current_time()
        self._last: dict[tuple[str, str], int] = {}
        self._awaited: set[str] | None = None
        self._all_handled = trio.Event()
        self._recent: deque[tuple[float, int]] = deque(maxlen=64)

    # Told by the producers

    def not_stored(self, outcome: PublishOutcome) -> None:
        """An event was refused, or nobody knows."""
        self.failed[outcome.event_id] = str(outcome.error)

    @property
    def acknowledged(self) -> int:
        """Events that the broker said it has stored."""
        return sum(publisher.statistics().stored for publisher in self.publishers)

    @property
    def missing(self) -> int:
        """Events that should be stored, and whose handler has not completed."""
        return len((self.sent - self.failed.keys()) - self.handled)

    # Told by the handlers

    def begun(self, attempt: int) -> None:
        """A handler runs."""
        self.running += 1
        if attempt > 1:
            self.retries += 1
        self.count_tasks()

    def ended(self) -> None:
        """It runs no more, whatever came of it."""
        self.running -= 1

    def completed(self, topic: str, customer: str, version: int, event_id: str) -> None:
        """A handler has done its work."""
        if event_id in self.handled:
            self.duplicates += 1
            return
        self.handled.add(event_id)
        self.by_topic[topic] += 1
        self.last_handled = trio.current_time()
        last = self._last.get((topic, customer), 0)
        if version > last:
            self._last[topic, customer] = version
        else:
            self.violations += 1
            if len(self.examples) < SHOWN:
                self.examples.append(f"{topic}: {customer} had version {version} after {last}")
        if self._awaited is not None:
            self._awaited.discard(event_id)
            if not self._awaited:
                self._all_handled.set()

    async def wait_all_handled(self) -> None:
        """Wait until every event that is stored has been handled; all must be sent."""
        self._awaited = (self.sent - self.failed.keys()) - self.handled
        if self._awaited:
            await self._all_handled.wait()

    # Measured

    @property
    def seconds(self) -> float:
        """From the beginning to the last event handled."""
        return self.last_handled - self.started

    def count_tasks(self, client_tasks: int | None = None) -> None:
        """Look how many tasks there are. The clients' loop is asked only now and then."""
        if client_tasks is not None:
            self.client_tasks = client_tasks
        self.tasks = trio.lowlevel.current_statistics().tasks_living + self.client_tasks
        self.peak_tasks = max(self.peak_tasks, self.tasks)

    def rate(self, window: float = 1.0) -> float:
        """Events handled per second, over about the last second; ask it regularly."""
        now, count = trio.current_time(), len(self.handled)
        recent = self._recent
        if not recent:
            recent.append((self.started, 0))
        recent.append((now, count))
        while len(recent) > 2 and now - recent[1][0] > window:
            recent.popleft()
        since, before = recent[0]
        return (count - before) / (now - since) if now > since else 0.0
