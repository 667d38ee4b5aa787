"""The two workloads of the original's comparison, and what it published. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

TOPICS = 5

PARTITIONS = 3
"""Of a topic on Kafka."""

PLAIN_SIZE = 108
"""Bytes of a plain message."""

FEWEST_KEYS, MOST_KEYS = 50, 1000

LOADS: Mapping[str, int] = {"Low": 500, "Medium": 2000, "High": 5000, "Extreme": 10_000}
"""Messages, as the original had them."""

BEYOND = (100_000,)
"""Messages, beyond what the original had."""


@attrs.frozen
class Medium:
    """What the messages go over.

    Attributes:
        name: on the command line and in the results.
        label: for people.
        broker: "memory", "nats" or "kafka".
        storage: of the topics; the memory transport has but one, whatever it is called.
        published: which of the original's figures stand beside it, by workload.
    """

    name: str
    label: str
    broker: str
    storage: Literal["file", "memory"]
    published: Mapping[str, str]


MEDIA: Mapping[str, Medium] = {
    medium.name: medium
    for medium in (
        Medium("memory", "memory transport", "memory", "file", {}),
        Medium("nats-file", "NATS, file", "nats", "file", {"envelopes": "nats disk"}),
        Medium("nats-memory", "NATS, memory", "nats", "memory", {"plain": "nats memory"}),
        Medium(
            "kafka", "Kafka", "kafka", "file", {"envelopes": "kafka disk", "plain": "kafka memory"}
        ),
    )
}

WORKLOADS: Mapping[str, str] = {
    "envelopes": "envelopes of 256 bytes, in order of their keys",
    "plain": f"plain messages of {PLAIN_SIZE} bytes, without a key",
}


@attrs.frozen
class Published:
    """What the original published of a workload: one figure for each of `LOADS`.

    Attributes:
        rate: messages a second.
        latency: end to end, in milliseconds.
        tasks: goroutines while it was open.
    """

    rate: tuple[float, ...]
    latency: tuple[float, ...] = ()
    tasks: int | None = None


_SLEPT = (33, 133, 167, 333)
"""Messages a second with storage on disk, of both brokers: its sleeps decided."""

PUBLISHED: Mapping[str, Published] = {
    "nats disk": Published(_SLEPT, (62, 195, 493, 892), 775),
    "kafka disk": Published(_SLEPT, (504, 599, 766, 1051), 313),
    "nats memory": Published((445, 1340, 2251, 2923)),
    "kafka memory": Published((494, 1897, 4545, 8293)),
}


def keys_of(count: int) -> int:
    """Aggregates, each with one sender."""
    return min(MOST_KEYS, max(FEWEST_KEYS, count // 10))


def published(medium: Medium, workload: str, count: int) -> dict[str, float]:
    """The original's figures for the same work; none where it published none."""
    found = PUBLISHED.get(medium.published.get(workload, ""))
    sizes = list(LOADS.values())
    if found is None or count not in sizes:
        return {}
    at = sizes.index(count)
    figures = {"rate": float(found.rate[at])}
    if found.latency:
        figures["latency_ms"] = float(found.latency[at])
    if found.tasks is not None:
        figures["tasks"] = float(found.tasks)
    return figures
