"""Any of what presses, again and again for a given time.

Pressure and leaks run in one process that lives for the whole time: pressure over one bus, in
rounds with topics of their own, which are removed again; leaks cycle by cycle. That process tells
of each round with a line. Points of a scale and fairness run in a process each, as they
always do. What comes is a row of samples; who looks at them is somebody else's business.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from subprocess import PIPE

import attrs
import trio

from tbus import open_bus
from tbus.testing import take_census

from .contestants import crossing_name
from .footprint import footprint, resident
from .leaks import counts, cycle
from .plans import SIDES, SLICES
from .pressure import press, topic_names
from .pressure_plans import MEDIA
from .rounds import ROOT, contestant_environment, in_a_process
from .scale import contestant_name, count_of
from .scale_plans import AXES
from .workload import Failed, Job

MIB = 1 << 20

PROBES = 100
"""Of a crossing, in one round of fairness."""

TELL_EVERY = 1.0
"""Seconds of cycles that make one round."""

Figures = Mapping[str, float]

Tell = Callable[[Figures], None]


@attrs.frozen
class Soak:
    """What is done, and for how long.

    Attributes:
        what: "pressure", "leaks", "scale" or "fairness".
        seconds: for how long; the round that is under way then is finished.
        count: messages of a round of pressure, or of a point of a scale.
        medium: of pressure: one of `MEDIA`.
        workload: of pressure.
        transport: of the others.
        axis: of a scale.
    """

    what: str
    seconds: float
    count: int
    medium: str = "nats-file"
    workload: str = "envelopes"
    transport: str = "nats"
    axis: str = "keys"

    @property
    def kind(self) -> str:
        """The broker that is wanted, as `open_brokers` knows it."""
        if self.what == "fairness":
            return "memory"
        return MEDIA[self.medium].broker if self.what == "pressure" else self.transport

    @property
    def title(self) -> str:
        """For people."""
        if self.what == "pressure":
            return f"pressure, {self.workload}, {MEDIA[self.medium].label}, {self.count:,} a round"
        if self.what == "scale":
            return f"scale, {self.axis}, {self.transport}"
        return "fairness" if self.what == "fairness" else f"leaks, {self.transport}"


async def soak(plan: Soak, url: str, tell: Tell) -> None:
    """Do it until its time is over; every round is told.

    Raises:
        Failed: a round did.
    """
    if plan.what in ALONE:
        await _in_one_process(plan, url, tell)
        return
    ends = time.monotonic() + plan.seconds
    while time.monotonic() < ends:
        tell(await IN_PROCESSES[plan.what](plan, url))


async def _scale_round(plan: Soak, url: str) -> Figures:
    found: dict[str, float] = {}
    for value in AXES[plan.axis].values_over(plan.transport):
        count = count_of(plan.axis, value, plan.count)
        job = Job(url, f"soak-{uuid.uuid4().hex}", count)
        figures = await in_a_process(contestant_name(plan.axis, value), job)
        found[f"{value:,}: messages/s"] = figures["rate"]
        found[f"{value:,}: CPU, us/message"] = figures["cpu_us"]
    return found


async def _fairness_round(plan: Soak, url: str) -> Figures:  # noqa: ARG001 - as the others
    found: dict[str, float] = {}
    for busy in SIDES:
        for fair in (True, False):
            name = crossing_name(busy, SLICES[1], fair)
            figures = await in_a_process(name, Job(url, "none", PROBES))
            cure = "with" if fair else "without"
            for way in ("there", "back"):
                if (took := figures[f"{way}_p99"]) is not None:
                    found[f"{busy} busy, {way}, {cure} rests: p99, ms"] = took
    return found


IN_PROCESSES: Mapping[str, Callable[[Soak, str], Awaitable[Figures]]] = {
    "scale": _scale_round,
    "fairness": _fairness_round,
}

# --- the process that lives for the whole time --------------------------------------------


async def _in_one_process(plan: Soak, url: str, tell: Tell) -> None:
    command = [sys.executable, "-m", "benchmarks", "soaking", json.dumps(attrs.asdict(plan))]
    job = Job(url, "", plan.count)
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                command,
                cwd=ROOT,
                env=contestant_environment(job),
                stdout=PIPE,
                check=False,
                start_new_session=True,  # Ctrl-C is for the parent, which ends this one
            )
        )
        rest = b""
        while data := await process.stdout.receive_some(1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                tell(json.loads(line))
    if process.returncode:
        raise Failed(f"the process that soaked ended with {process.returncode}")


def soaking(plan: Soak, url: str) -> None:
    """That process.

    Raises:
        Failed: a round did.
    """
    trio.run(ALONE[plan.what], plan, url, _say)


def _say(figures: Figures) -> None:
    print(json.dumps(figures), flush=True)


async def _soak_pressure(plan: Soak, url: str, tell: Tell) -> None:
    before = take_census()
    name = f"soak-{uuid.uuid4().hex}"
    ends = time.monotonic() + plan.seconds
    number = 0
    async with open_bus(url) as bus:
        while time.monotonic() < ends:
            number += 1
            job = Job(url, f"{name}-{number}", plan.count)
            found = await press(bus, job, plan.workload, MEDIA[plan.medium])
            for topic in topic_names(job):
                await bus.remove_topic(topic)
            held = footprint(bus)
            tell(
                {
                    "messages": job.count,
                    "messages/s": found["rate"],
                    "send p99, ms": found["send_ms"]["p99"],
                    "end to end p99, ms": found["end_to_end_ms"]["p99"],
                    "missing": job.count - found["handled"],
                    "duplicates": found["duplicates"],
                    "violations": found["violations"],
                    "tasks": held["tasks"],
                    "threads": held["threads"],
                    "memory, MiB": held["memory"] / MIB,
                }
            )
    tell({"left behind": len(take_census().beyond(before))})


async def _soak_leaks(plan: Soak, url: str, tell: Tell) -> None:
    job = Job(url, "soak-leaks", 1)
    await cycle(job)
    before = take_census()
    ends = time.monotonic() + plan.seconds
    while time.monotonic() < ends:
        cycles = left = 0
        begun = time.perf_counter()
        now = before
        while (took := time.perf_counter() - begun) < TELL_EVERY:
            await cycle(job)
            cycles += 1
            now = take_census()
            left = max(left, len(now.beyond(before)))
        gc.collect()
        tell(
            {
                "cycles": cycles,
                "cycle, ms": took / cycles * 1e3,
                "left behind": left,
                **{kind: float(held) for kind, held in counts(now).items()},
                "memory, MiB": resident() / MIB,
            }
        )


ALONE: Mapping[str, Callable[[Soak, str, Tell], Awaitable[None]]] = {
    "pressure": _soak_pressure,
    "leaks": _soak_leaks,
}
