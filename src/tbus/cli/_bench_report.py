"""What `tbus bench` measured: figures, whether they count, and all of it for a program."""

from __future__ import annotations

from typing import Any

import attrs

from ._bench_events import Latency, Throughput

STEPS = ("round_trip", "publish", "pipelined", "consume", "one_by_one", "loaded")
"""Every measurement, in the order in which they are done."""


@attrs.define
class Report:
    """Figures, as far as they were measured; None: it was ended before.

    Attributes:
        address: of the broker, without secrets.
        settings: what was asked for.
        versions: of what took part.
        round_trip: of a question to the broker.
        publish: many publishers, each waits for its receipt.
        pipelined: one publisher that does not wait.
        consume: what the last one published, in key order.
        one_by_one: from published to handled, one event at a time.
        loaded: the same at half of what publishing and consuming together can do.
        load: events a second of that.
        missing: events that were stored and never handled.
        repeated: events that were handled again.
        overtaken: events that were handled before one ahead of them of the same key.
        left_topics: that could not be removed.
        signal: which one ended it early, or None.
    """

    address: str
    settings: dict[str, Any]
    versions: dict[str, str]
    round_trip: Latency | None = None
    publish: Throughput | None = None
    pipelined: Throughput | None = None
    consume: Throughput | None = None
    one_by_one: Latency | None = None
    loaded: Latency | None = None
    load: float | None = None
    missing: int = 0
    repeated: int = 0
    overtaken: int = 0
    left_topics: list[str] = attrs.Factory(list)
    signal: int | None = None

    def measured(self) -> list[str]:
        """The measurements that have figures."""
        found: dict[str, object] = {
            "round_trip": self.round_trip,
            "publish": self.publish and self.publish.rate,
            "pipelined": self.pipelined and self.pipelined.rate,
            "consume": self.consume and self.consume.rate,
            "one_by_one": self.one_by_one,
            "loaded": self.loaded,
        }
        return [step for step in STEPS if found[step]]

    def faults(self) -> list[str]:
        """What makes the figures worthless, or has to be cleaned up."""
        found = []
        if self.missing:
            found.append(f"{self.missing} events were stored and not handled in time")
        if self.overtaken:
            found.append(f"{self.overtaken} events were handled out of the order of their key")
        measured = self.measured()
        lacking = [step.replace("_", " ") for step in STEPS if step not in measured]
        if lacking and self.signal is None:
            found.append(f"no figures: {', '.join(lacking)}: give each more --seconds")
        if self.left_topics:
            found.append(f"left on the broker: {', '.join(self.left_topics)}")
        return found

    def exit_code(self) -> int:
        """1 if something went wrong, 128 + n if signal n ended it early, else 0."""
        if self.faults():
            return 1
        return 0 if self.signal is None else 128 + self.signal

    def as_json(self) -> dict[str, Any]:
        """Everything; times in seconds."""
        found = attrs.asdict(self)
        for name in ("publish", "pipelined", "consume"):
            throughput = getattr(self, name)
            if throughput is not None:
                found[name]["rate"] = round(throughput.rate, 1)
        return {**found, "faults": self.faults(), "exit_code": self.exit_code()}
