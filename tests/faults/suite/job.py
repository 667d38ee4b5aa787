"""What the program under test is told, and what it says at its end."""

from __future__ import annotations

from typing import Any

import attrs

IN_FLIGHT = 300
"""Events that the program has and has not settled, at most."""

COMMIT_COUNT = 200
"""Settled events after which a Kafka member tells the group, if not sooner."""


@attrs.frozen
class Job:
    """What the program is to do.

    Attributes:
        url: of its broker, or of the way there.
        settings: of its bus.
        topic: that it publishes to and reads.
        group: that it reads for.
        book: the file of what was handled.
        stored: the file of what was acknowledged.
        keys: of events that are published one after another; as many again are pipelined.
        pause: seconds between two events of a key.
        work: seconds of a handler.
        publishes: or only reads.
    """

    url: str
    settings: dict[str, Any]
    topic: str
    group: str
    book: str
    stored: str
    keys: int = 20
    pause: float = 0.05
    work: float = 0.001
    publishes: bool = True


@attrs.define
class Facts:
    """What the program says of itself at its end.

    Attributes:
        exits: seconds that leaving each bus took.
        left: what was still held when a bus had been left.
        ends: why buses ended by themselves.
        again: publishes that were repeated because their outcome was unknown.
        refused: publishes that the broker refused, or that could not be sent in time.
        unresolved: pipelined events that were not acknowledged; nobody repeats them.
        lines: that were logged.
        most: of one logger and message, in any second.
        loudest: that logger and message.
        memory: MiB by which the process grew at its peak.
    """

    exits: list[float] = attrs.Factory(list)
    left: list[str] = attrs.Factory(list)
    ends: list[str] = attrs.Factory(list)
    again: int = 0
    refused: int = 0
    unresolved: int = 0
    lines: int = 0
    most: int = 0
    loudest: str = ""
    memory: float = 0.0

    def joined(self, other: Facts) -> Facts:
        """Both programs' together."""
        louder = max(self, other, key=lambda facts: facts.most)
        return Facts(
            self.exits + other.exits,
            self.left + other.left,
            self.ends + other.ends,
            self.again + other.again,
            self.refused + other.refused,
            self.unresolved + other.unresolved,
            self.lines + other.lines,
            louder.most,
            louder.loudest,
            max(self.memory, other.memory),
        )
