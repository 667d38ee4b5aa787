"""Every comparison by its name on the command line."""

from __future__ import annotations

from collections.abc import Mapping

from .kafka_plans import KAFKA_CONSUME, KAFKA_HANDLERS, KAFKA_PIPELINE, KAFKA_PUBLISH
from .plans import CONSUME, LATENCY, MEMORY, PUBLISH, Comparison

COMPARISONS: Mapping[str, Comparison] = {
    comparison.name: comparison
    for comparison in (
        PUBLISH,
        LATENCY,
        CONSUME,
        MEMORY,
        KAFKA_PUBLISH,
        KAFKA_PIPELINE,
        KAFKA_CONSUME,
        KAFKA_HANDLERS,
    )
}
