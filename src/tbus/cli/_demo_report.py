"""What a demo found out: its figures, and which promises they break."""

from __future__ import annotations

import attrs

from ._demo_census import ProcessCensus


@attrs.frozen
class Promise:
    """One promise of the bus, and whether it held.

    Attributes:
        text: the promise.
        evidence: the figures that show it.
        held: None: the demo was ended before it could be seen.
    """

    text: str
    evidence: str
    held: bool | None


@attrs.frozen
class Report:
    """A demo that has ended.

    Attributes:
        address: of the broker, without secrets.
        events: that were to be published.
        customers: keys.
        topics: how many.
        concurrency: handlers at once.
        seed: of the plan.
        sent: events that the publishers took.
        acknowledged: of those, stored for certain.
        not_stored: of those, refused or unknown.
        why_not_stored: the error of one of them.
        handled: different events whose handler completed.
        handled_acknowledged: of these, events that are acknowledged for certain.
        missing: events that should be stored and were not handled.
        retries: handler runs beyond each message's first.
        duplicates: completions beyond each event's first.
        violations: first completions out of order.
        examples: some of them.
        peak_tasks: of Trio and the clients' loop.
        tasks_at_rest: the same when all was subscribed and nothing published.
        seconds: from the first event sent to the last one handled.
        closed_in: seconds that the bus took to end.
        before: what the process held before the bus.
        after: and in the statement after it.
        left_topics: that could not be removed from the server.
        stalled: whether it gave up because nothing happened any more.
        signal: which one ended it early, or None.
    """

    address: str
    events: int
    customers: int
    topics: int
    concurrency: int
    seed: int
    sent: int
    acknowledged: int
    not_stored: int
    why_not_stored: str
    handled: int
    handled_acknowledged: int
    missing: int
    retries: int
    duplicates: int
    violations: int
    examples: tuple[str, ...]
    peak_tasks: int
    tasks_at_rest: int
    seconds: float
    closed_in: float
    before: ProcessCensus
    after: ProcessCensus
    left_topics: tuple[str, ...] = ()
    stalled: bool = False
    signal: int | None = None

    @property
    def events_per_second(self) -> float:
        """Handled, over the whole time."""
        return self.handled / self.seconds if self.seconds else 0.0

    @property
    def success(self) -> float | None:
        """The part of the acknowledged events that was handled; None if none was."""
        if not self.acknowledged:
            return None
        # Ended early, an event may be handled whose acknowledgement nobody waited for.
        return min(1.0, self.handled_acknowledged / self.acknowledged)

    def promises(self) -> tuple[Promise, ...]:
        """What was promised, and what became of it."""
        return (self._stored(), self._handled(), self._in_order(), self._nothing_left())

    def broken(self) -> tuple[Promise, ...]:
        """Those that did not hold."""
        return tuple(promise for promise in self.promises() if promise.held is False)

    def exit_code(self) -> int:
        """1 if a promise broke, 128 + n if signal n ended it early, else 0."""
        if self.broken():
            return 1
        return 0 if self.signal is None else 128 + self.signal

    def as_json(self) -> dict[str, object]:
        """Everything, for a program."""
        return {
            "events_per_second": round(self.events_per_second, 1),
            "success": None if self.success is None else round(self.success, 6),
            **attrs.asdict(self),
            "promises": [attrs.asdict(promise) for promise in self.promises()],
            "exit_code": self.exit_code(),
        }

    def _stored(self) -> Promise:
        evidence = f"{figure(self.acknowledged)} of {figure(self.events)}"
        if self.not_stored:
            evidence += f"; {figure(self.not_stored)} not: {self.why_not_stored}"
        held = self.acknowledged == self.events and not self.not_stored
        return Promise(
            "every event acknowledged",
            evidence,
            # What was on its way when the user ended the demo is nobody's failure.
            held or (None if self.signal is not None and not self.not_stored else False),
        )

    def _handled(self) -> Promise:
        name = "every acknowledged handled"
        if self.success is None:
            return Promise(name, "none was acknowledged", None)
        # Never rounded up to a whole: 9 999 of 10 000 are no success.
        percent = int(self.success * 10_000) / 100
        evidence = (
            f"{figure(self.handled_acknowledged)} of {figure(self.acknowledged)}, {percent:.2f} %"
        )
        if self.stalled:
            evidence += "; it came to a standstill"
        held = not self.missing and not self.stalled
        return Promise(
            name,
            evidence,
            held or (None if self.signal is not None else False),
        )

    def _in_order(self) -> Promise:
        if not self.violations:
            evidence = f"0 violations, {figure(self.customers)} customers"
        else:
            examples = "; ".join(self.examples)
            evidence = f"{figure(self.violations)} out of order: {examples}"
        return Promise("order per customer held", evidence, not self.violations)

    def _nothing_left(self) -> Promise:
        names = {"tasks": "tasks", "threads": "threads", "files": "fds", "children": "children"}
        before, after = attrs.asdict(self.before), attrs.asdict(self.after)
        counted = [one for one in names if before[one] is not None and after[one] is not None]
        evidence = "  ".join(f"{names[one]} {before[one]}→{after[one]}" for one in counted)
        if self.left_topics:
            evidence += f"; on the server: {', '.join(self.left_topics)}"
        # There may be less: idle threads of Trio's, in a process that had some, end by themselves.
        held = not self.left_topics and all(after[one] <= before[one] for one in counted)
        return Promise("nothing left behind", evidence, held)


def figure(number: float) -> str:
    """A number for people: 12 345."""
    return f"{number:,.0f}".replace(",", " ")
