"""Every contestant by its name, and the loop it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from . import (
    arrival,
    consuming,
    fairness,
    holdings,
    in_memory,
    kafka_confluent,
    kafka_consuming,
    kafka_kills,
    kafka_loops,
    kafka_publishing,
    loaded,
    publishing,
)
from .kafka_workload import kafka_standing, kafka_stored
from .nats_ownership import OWNERS
from .pinned import PINNED, pinned
from .plans import SIDES, SLICES
from .pressure import PRESSURES
from .scale import SCALES
from .workload import Figures, Job, standing, stored

Contestant = Callable[[Job], Awaitable[Figures]]

ON_ASYNCIO: dict[str, Contestant] = {
    function.__name__: function
    for function in (
        publishing.publish_nats_py,
        publishing.publish_nats_py_with_id,
        publishing.publish_faststream,
        publishing.latency_nats_py,
        consuming.consume_nats_py,
        consuming.consume_nats_py_json,
        consuming.consume_nats_py_undecoded,
        consuming.consume_bare_pulls,
        consuming.consume_faststream,
        consuming.consume_faststream_batch,
        arrival.arrival_nats_py_fetch,
        arrival.arrival_nats_py_push,
        arrival.arrival_faststream,
        loaded.loaded_nats_py_fetch,
        loaded.loaded_nats_py_push,
        kafka_publishing.kafka_publish_aiokafka,
        kafka_publishing.kafka_publish_aiokafka_with_id,
        kafka_publishing.kafka_publish_faststream,
        kafka_confluent.kafka_publish_confluent,
        kafka_confluent.kafka_publish_confluent_eager,
        kafka_confluent.kafka_publish_confluent_aio,
        kafka_confluent.kafka_publish_confluent_pipelined,
        kafka_confluent.kafka_consume_confluent,
        kafka_confluent.kafka_consume_confluent_needed,
        kafka_publishing.kafka_publish_aiokafka_pipelined,
        kafka_publishing.kafka_publish_aiokafka_pipelined_tuned,
        kafka_consuming.kafka_consume_aiokafka,
        kafka_consuming.kafka_consume_aiokafka_needed,
        kafka_consuming.kafka_consume_aiokafka_json,
        kafka_consuming.kafka_consume_aiokafka_waiting,
        kafka_consuming.kafka_consume_faststream,
        kafka_consuming.kafka_consume_faststream_batch,
        kafka_kills.kafka_killed_aiokafka,
    )
}

ON_TRIO: dict[str, Contestant] = {
    function.__name__: function
    for function in (
        publishing.publish_tbus,
        publishing.publish_tbus_envelopes,
        publishing.publish_tbus_pipelined,
        publishing.latency_tbus,
        consuming.consume_tbus,
        consuming.consume_tbus_more_in_flight,
        arrival.arrival_tbus,
        loaded.loaded_tbus,
        in_memory.memory_tbus,
        in_memory.memory_tbus_checked,
        in_memory.memory_tbus_waiting,
        in_memory.memory_bare_waiting,
        holdings.holdings,
        kafka_publishing.kafka_publish_tbus,
        kafka_publishing.kafka_publish_tbus_envelopes,
        kafka_publishing.kafka_publish_tbus_pipelined,
        kafka_consuming.kafka_consume_tbus,
        kafka_consuming.kafka_consume_tbus_more_in_flight,
        kafka_consuming.kafka_consume_tbus_waiting,
        kafka_kills.kafka_killed_tbus,
        kafka_loops.kafka_loops,
    )
}


def crossing_name(busy: str, milliseconds: float, fair: bool) -> str:
    """The contestant that crosses while a side is busy."""
    return f"crossing {busy} {milliseconds} {'with' if fair else 'without'}"


def cost_name(busy: str, milliseconds: float) -> str:
    """The contestant that says what the cure costs."""
    return f"cost {busy} {milliseconds}"


for _busy in SIDES:
    for _slice in SLICES:
        ON_TRIO[cost_name(_busy, _slice)] = partial(fairness.cost, busy=_busy, milliseconds=_slice)
        for _fair in (True, False):
            ON_TRIO[crossing_name(_busy, _slice, _fair)] = partial(
                fairness.crossing, busy=_busy, milliseconds=_slice, fair=_fair
            )

for _some, _names in (
    (ON_TRIO, ("kafka_publish_tbus", "kafka_consume_tbus")),
    (ON_ASYNCIO, ("kafka_publish_aiokafka", "kafka_consume_aiokafka")),
):
    _some.update({name + PINNED: pinned(_some[name]) for name in _names})

ON_TRIO.update(OWNERS)
ON_TRIO.update(PRESSURES)
ON_TRIO.update(SCALES)


def run(name: str, job: Job) -> Figures:
    """Run a contestant in the loop that it is made for, then ask the server what it left.

    Raises:
        SystemExit: not every event was stored, or handled once and in order.
    """
    if name in ON_TRIO:
        figures = trio.run(ON_TRIO[name], job)
    else:
        figures = asyncio.run(_run(ON_ASYNCIO[name], job))
    if name.startswith(("publish", "latency")):
        figures["stored"] = asyncio.run(stored(job))
    elif name.startswith("consume"):
        figures |= asyncio.run(standing(job, consuming.GROUP))
    elif name.startswith("kafka_publish"):
        figures["stored"] = asyncio.run(kafka_stored(job))
    elif name.startswith("kafka_consume"):
        figures |= asyncio.run(kafka_standing(job))
    if wrong := faults(figures, job.count):
        raise SystemExit(f"{name} is not to be counted: {wrong}: {figures}")
    return figures


async def _run(function: Contestant, job: Job) -> Figures:
    return await function(job)


def faults(figures: Figures, count: int) -> str:
    """What makes a contestant's figures worthless, or nothing."""
    expected = {
        "stored": count,
        "handled": count,
        "delivered": count,
        "violations": 0,
        "num_pending": 0,
        "num_ack_pending": 0,
        "num_redelivered": 0,
        "left": 0,
    }
    return ", ".join(
        f"{name} should be {value}"
        for name, value in expected.items()
        if name in figures and figures[name] != value
    )
