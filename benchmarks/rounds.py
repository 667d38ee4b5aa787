"""Contestants in turn, round after round, each in a process and with a topic of its own."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypeVar

import trio

from tbus import TopicOptions, open_bus

from .plans import Comparison
from .workload import Failed, Figures, Job, envelopes

ROOT = Path(__file__).parents[1]

T = TypeVar("T")

Measure = Callable[[str], Awaitable[Figures]]

UNCOUNTED = 0.2
"""The part of its events that a contestant runs with where the broker has to warm up."""

TIME_LIMIT = 600
"""Seconds that a contestant may take."""


def order_of(names: Sequence[T], number: int) -> list[T]:
    """Who runs after whom in a round: another one is first in each, and follows another one.

    Rows of Williams's square: 0 1 n-1 2 n-2 ..., and each round one further. After as many rounds
    as there are contestants each was first once, and last once; for an even number of them each
    has followed each other one once, for an odd number twice or never, so the next rounds run
    the same rows backwards.

    Args:
        names: of the contestants.
        number: of the round, from 0.
    """
    count = len(names)
    row = [(-index // 2 if index % 2 == 0 else index // 2 + 1) for index in range(count)]
    order = [names[(place + number) % count] for place in row]
    return order if count % 2 == 0 or number // count % 2 == 0 else order[::-1]


async def in_turn(names: Sequence[str], rounds: int, measure: Measure) -> dict[str, list[Figures]]:
    """Each once in a round, in another order each time: what the machine does meanwhile, and what
    a neighbour leaves behind, hits all of them alike."""
    taken: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(rounds):
        for name in order_of(names, number):
            print(f"  round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            taken[name].append(await measure(name))
    return taken


async def compare(
    comparison: Comparison, url: str, rounds: int, scale: float
) -> tuple[int, dict[str, list[Figures]]]:
    """Run a comparison; returns the events for each contestant, and its figures by round."""
    count = max(200, int(comparison.count * scale))

    shares = {contestant.name: contestant.share for contestant in comparison.contestants}

    async def measure(name: str, part: float = 1.0) -> Figures:
        share = max(200, int(count * shares[name] * part))
        async with open_topic(url, comparison.topic, share, comparison.partitions) as topic:
            return await in_a_process(name, Job(url, topic, share))

    for name in shares if comparison.warms_up else ():
        print(f"  uncounted: {name}", file=sys.stderr, flush=True)
        await measure(name, UNCOUNTED)
    return count, await in_turn(list(shares), rounds, measure)


@asynccontextmanager
async def open_topic(
    url: str, wanted: Literal["none", "empty", "filled"], count: int, partitions: int | None = None
) -> AsyncIterator[str]:
    """A topic for one contestant, in the server's memory where it has one; gone afterwards.

    The same for all: made by tbus, and filled by it.
    """
    topic = f"bench-{uuid.uuid4().hex}"
    if wanted == "none":
        yield topic
        return
    if partitions is None:
        options = TopicOptions(storage="memory")
    else:
        options = TopicOptions(partitions=partitions)
    async with open_bus(url) as bus:
        await bus.configure_topic(topic, options)
        if wanted == "filled":
            async with bus.open_publisher() as publisher:
                for envelope in envelopes(count):
                    await publisher.send(topic, envelope)
    try:
        yield topic
    finally:
        with trio.CancelScope(shield=True):
            async with open_bus(url) as bus:
                await bus.remove_topic(topic)


def contestant_command(name: str, job: Job) -> list[str]:
    """What runs a contestant in a process of its own."""
    return [sys.executable, "-m", "benchmarks", "contestant", name, job.topic, str(job.count)]


def contestant_environment(job: Job) -> dict[str, str]:
    """The server's address with what is secret in it, where a process list does not show it."""
    return {**os.environ, "TBUS_BENCH_URL": job.url}


async def in_a_process(name: str, job: Job, limit: float = TIME_LIMIT) -> Figures:
    """One contestant's figures.

    Args:
        name: of the contestant.
        job: its work.
        limit: seconds that it may take.

    Raises:
        Failed: it did, or its figures are worthless, or it took longer.
    """
    try:
        with trio.fail_after(limit):
            done = await trio.run_process(
                contestant_command(name, job),
                cwd=ROOT,
                env=contestant_environment(job),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    except trio.TooSlowError as error:
        raise Failed(f"{name} took more than {limit:g} s") from error
    if done.returncode:
        raise Failed(f"{name} failed:\n{done.stderr.decode()}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures
