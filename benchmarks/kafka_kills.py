"""How much is handled again after a consumer was killed in mid-stream.

A consumer that is killed has handled more than it has committed, and whoever comes next repeats
that. A child tells of each event that its handler has seen, through a pipe that outlives it; it
is killed with SIGKILL somewhere in the middle, and another one takes over and goes on to the end.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from subprocess import PIPE

import trio
from aiokafka import ConsumerRecord

from tbus import Message, open_bus

from .kafka_consuming import commit_now_and_then
from .kafka_workload import PARTITIONS, open_consumer
from .rounds import ROOT, contestant_command, contestant_environment, in_turn, open_topic
from .tables import spread
from .workload import Failed, Figures, Job

SESSION = 2.0
"""Seconds after which the group gives up the member that was killed."""

EVENTS = 100_000

KILLED_WITHIN = (0.3, 0.7)
"""Share of the events that were handled when it is killed: anywhere between these."""

NAMES = ("kafka_killed_tbus", "kafka_killed_aiokafka")

Place = tuple[int, int]
"""Partition and offset of an event."""

TIME_LIMIT = 120
"""Seconds that a child may take."""

# --- the children ------------------------------------------------------------------------


async def kafka_killed_tbus(job: Job) -> Figures:
    async def handle(message: Message) -> None:
        _tell(message.position.partition, message.position.offset)

    options = {"session_timeout": SESSION, "rebalance_timeout": SESSION, "drain": SESSION / 2}
    async with open_bus(job.url, kafka=options) as bus:
        await bus.subscribe(job.topic, handle, group=job.topic)
        await trio.sleep_forever()
    return {}


async def kafka_killed_aiokafka(job: Job) -> Figures:
    async def handle(record: ConsumerRecord) -> None:
        _tell(record.partition, record.offset)

    async with open_consumer(job, job.topic, session_timeout_ms=round(SESSION * 1000)) as consumer:
        await commit_now_and_then(consumer, handle, lambda: False)
    return {}


def _tell(partition: int, offset: int) -> None:
    os.write(sys.stdout.fileno(), b"%d %d\n" % (partition, offset))


# --- who kills them ----------------------------------------------------------------------


async def measure_kills(url: str, rounds: int, scale: float) -> Figures:
    """Repeats after a kill, for each consumer, round after round."""
    count = max(2000, int(EVENTS * scale))

    async def measure(name: str) -> Figures:
        return await _kill_once(name, url, count)

    taken = await in_turn(NAMES, rounds, measure)
    return {
        "count": count,
        "rounds": rounds,
        "contestants": {
            name: {
                **{
                    what: spread([one[what] for one in found])
                    for what in ("handled_before", "repeats", "repeated_ms", "missing")
                },
                "rounds": found,
            }
            for name, found in taken.items()
        },
    }


async def _kill_once(name: str, url: str, count: int) -> Figures:
    killed_at = round(count * random.uniform(*KILLED_WITHIN))
    async with open_topic(url, "filled", count, PARTITIONS) as topic:
        job = Job(url, topic, count)
        before, seconds = await _run_until(name, job, set(), killed_at)
        after, _ = await _run_until(name, job, set(before), count)
    found = judge(before, after, count)
    return found | {"repeated_ms": found["repeats"] / len(before) * seconds * 1000}


def judge(before: Sequence[Place], after: Sequence[Place], count: int) -> Figures:
    """What the second one did again of what the first one had done, and what neither did."""
    first = set(before)
    return {
        "handled_before": len(first),
        "repeats": sum(1 for one in after if one in first),
        "missing": count - len(first | set(after)),
    }


async def _run_until(
    name: str, job: Job, known: set[Place], until: int
) -> tuple[list[Place], float]:
    """What a child tells until so many events are known, when it is killed; and the seconds
    from the first of them to its end."""
    seen: list[Place] = []
    began = 0.0
    with trio.fail_after(TIME_LIMIT):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(
                    trio.run_process,
                    contestant_command(name, job),
                    env=contestant_environment(job),
                    cwd=ROOT,
                    stdout=PIPE,
                    check=False,
                )
            )
            rest = b""
            while data := await process.stdout.receive_some(1 << 16):
                began = began or time.perf_counter()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    partition, _, offset = line.partition(b" ")
                    seen.append((int(partition), int(offset)))
                    known.add(seen[-1])
                if len(known) >= until:
                    process.kill()  # what it has told by then is still read
            seconds = time.perf_counter() - began
    if len(known) < until:
        raise Failed(f"{name} ended by itself, after {len(seen)} events")
    return seen, seconds
