"""Every comparison by its name on the command line."""

from __future__ import annotations

from collections.abc import Mapping

from .kafka_plans import (
    KAFKA_CONSUME,
    KAFKA_CONSUME_PINNED,
    KAFKA_HANDLERS,
    KAFKA_PIPELINE,
    KAFKA_PUBLISH,
    KAFKA_PUBLISH_PINNED,
)
from .nats_ownership import OWNER_IDLE, OWNER_OF_ONE, OWNER_OF_TWELVE
from .plans import ARRIVAL, CONSUME, LATENCY, LOADED, MEMORY, MEMORY_WAITING, PUBLISH, Comparison

COMPARISONS: Mapping[str, Comparison] = {
    comparison.name: comparison
    for comparison in (
        PUBLISH,
        LATENCY,
        CONSUME,
        ARRIVAL,
        LOADED,
        MEMORY,
        MEMORY_WAITING,
        OWNER_OF_ONE,
        OWNER_OF_TWELVE,
        OWNER_IDLE,
        KAFKA_PUBLISH,
        KAFKA_PIPELINE,
        KAFKA_CONSUME,
        KAFKA_PUBLISH_PINNED,
        KAFKA_CONSUME_PINNED,
        KAFKA_HANDLERS,
    )
}
