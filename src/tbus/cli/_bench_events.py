"""What `tbus bench` publishes, and who checks what comes back. Pure.

The events are envelopes of one size, of so many keys in turn, each with the versions 1, 2, 3, ...
One publisher sends them, in that order; so the handler sees each key's versions in order, each
once, if nothing is lost, repeated or overtaken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import attrs

from .._envelope import Envelope

SMALLEST = 200
"""Bytes of the smallest event: an envelope without a payload, with some room."""

_EVENT_TYPE = "Benched"


class Events:
    """An endless row of events.

    Args:
        size: bytes of each, encoded.
        keys: how many.
    """

    def __init__(self, size: int, keys: int) -> None:
        self._keys = keys
        # One time for all: the zeros that end a fraction are not written.
        self._when = datetime.now(UTC).replace(microsecond=123456)
        self._room = size - len(self._event("k", 1, 0).encode()) + len("k") + len("1")
        self._made = 0

    def __iter__(self) -> Iterator[Envelope]:
        return self

    def __next__(self) -> Envelope:
        version, number = divmod(self._made, self._keys)
        self._made += 1
        key, version = f"key-{number}", version + 1
        return self._event(key, version, self._room - len(key) - len(str(version)))

    def number(self, event: Envelope) -> int:
        """Which one it was: 0 for the first."""
        return (event.event_version - 1) * self._keys + int(event.aggregate_id[len("key-") :])

    def _event(self, key: str, version: int, padding: int) -> Envelope:
        payload = {"x": "y" * max(0, padding)}
        return Envelope.new(key, _EVENT_TYPE, payload, event_version=version, timestamp=self._when)


class Observer:
    """Sees what the handler sees.

    Attributes:
        handled: events, repeated ones too.
        repeated: that had come before.
        overtaken: that came although one before them of their key had not.
    """

    def __init__(self) -> None:
        self.handled = self.repeated = self.overtaken = 0
        self._last: dict[str, int] = {}

    @property
    def distinct(self) -> int:
        """Different events."""
        return self.handled - self.repeated

    def see(self, key: str, version: int) -> None:
        """An event is handled."""
        last = self._last.get(key, 0)
        self.handled += 1
        if version <= last:
            self.repeated += 1
            return
        if version != last + 1:
            self.overtaken += 1
        self._last[key] = version


@attrs.frozen
class Latency:
    """How long something took, so many times.

    Attributes:
        count: how often.
        p50: seconds that half of them did not exceed.
        p99: and 99 in 100.
        max: the longest.
    """

    count: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency | None:
        """None if it was never measured."""
        if not seconds:
            return None
        ordered = sorted(seconds)
        at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99)]
        return cls(len(ordered), at[0], at[1], ordered[-1])


@attrs.frozen
class Throughput:
    """So many events in so much time.

    Attributes:
        events: how many.
        seconds: how long.
        latency: of each one, where that was measured.
    """

    events: int
    seconds: float
    latency: Latency | None = None

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds if self.seconds else 0.0


class Meter:
    """How many there were, for whoever watches.

    Attributes:
        count: so far.
    """

    def __init__(self, now: float) -> None:
        self.count = 0
        self._seen: list[tuple[float, int]] = [(now, 0)]

    def rate(self, now: float, window: float = 1.0) -> float:
        """Events a second, over about the last second; ask it regularly."""
        self._seen.append((now, self.count))
        while len(self._seen) > 2 and now - self._seen[1][0] >= window:
            del self._seen[0]
        since, before = self._seen[0]
        return (self.count - before) / (now - since) if now > since else 0.0
