"""What it costs a member that is alone to own its partitions by lease.

Beside it the same bus reads the same topic without owning anything: for no group, through a
consumer of its own, in key order too. All else is the same, so the ratio is the price of leases,
of claims, and of a consumer for each partition instead of one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping

import trio

from tbus import Message, TopicOptions, open_bus

from .plans import Comparison, Contestant, Target
from .workload import Figures, Job, Observer, connect

GROUP = "owners"

QUIET = 32.0
"""Seconds for which an idle member is watched: more than a pull waits at the server."""

PARTITIONS = 12


async def owned(job: Job) -> Figures:
    """A member of a group, in key order."""
    return await _read(job, {"group": GROUP})


async def unowned(job: Job) -> Figures:
    """For no group, in key order."""
    return await _read(job, {"start": "earliest"})


async def shared(job: Job) -> Figures:
    """A group that shares its messages in no order."""
    return await _read(job, {"group": GROUP, "order": "none"})


async def _read(job: Job, how: dict[str, str]) -> Figures:
    seen = Observer(job.count)
    done = trio.Event()
    began = burnt = 0.0

    async def handle(message: Message) -> None:
        nonlocal began, burnt
        if not began:
            began, burnt = time.perf_counter(), time.process_time()
        event = message.envelope
        if seen.see(event.aggregate_id, event.event_version):
            done.set()

    async with open_bus(job.url) as bus:
        asked = time.perf_counter()
        await bus.subscribe(job.topic, handle, **how)  # type: ignore[arg-type]
        await done.wait()
        ended, burnt = time.perf_counter(), time.process_time() - burnt
    figures = {
        "rate": job.count / (ended - began),
        "processor": burnt / job.count * 1e6,
        "first": (began - asked) * 1000,
        "handled": seen.count,
    }
    # Without order there is nothing to violate: several of a key may run at once.
    return figures if how.get("order") == "none" else {**figures, "violations": seen.violations}


async def idle(job: Job) -> Figures:
    """Messages a second that the server gets from a member that has nothing to do."""
    topic = f"{job.topic}-idle"

    async def ignore(message: Message) -> None:
        """There is none."""

    async with open_bus(job.url) as bus:
        await bus.configure_topic(topic, TopicOptions(partitions=PARTITIONS, storage="memory"))
        await bus.subscribe(topic, ignore, group=GROUP)
        await trio.sleep(2.0)
        before = await trio.to_thread.run_sync(_count, job)
        await trio.sleep(QUIET)
        after = await trio.to_thread.run_sync(_count, job)
    async with open_bus(job.url) as bus:
        await bus.remove_topic(topic)
    return {"sent": (after - before) / QUIET}


def _count(job: Job) -> int:
    """Messages that the server has had from buses, as it counts them itself."""
    return asyncio.run(_ask_server(job))


async def _ask_server(job: Job) -> int:
    client, _ = await connect(job.url)
    try:
        answer = await client.request("$SYS.REQ.ACCOUNT.PING.CONNZ", b"{}", timeout=5)
        connections = json.loads(answer.data)["data"]["connections"]
        return sum(one["in_msgs"] for one in connections if one.get("name") == "tbus")
    finally:
        await client.close()


READERS = (owned, unowned, shared)


def _contestant(partitions: int, function: str, label: str) -> Contestant:
    return Contestant(f"owners_{partitions}_{function}", label)


def _compare(partitions: int, least: float) -> Comparison:
    unowned_name = f"owners_{partitions}_{unowned.__name__}"
    return Comparison(
        name=f"nats-owner-{partitions}",
        title=f"NATS: one member alone, P={partitions}",
        about=(
            "One process reads a filled topic, all with their defaults. The clock runs from the"
            " first event handled to the last; `processor` is the process's time on it; `first` is"
            " from `subscribe` to the first event. The handler checks each key's order. **The"
            " measure is the same bus without a group**: in key order, through one consumer of its"
            " own, with nothing to own."
        ),
        count=50_000,
        figures={"rate": "events/s", "processor": "us/event", "first": "ms"},
        contestants=(
            _contestant(partitions, owned.__name__, "a group of one, in key order, by lease"),
            _contestant(partitions, unowned.__name__, "no group, in key order, nothing owned"),
            _contestant(partitions, shared.__name__, "a group in no order, nothing owned"),
        ),
        targets=(Target("at least", least, "rate", unowned_name),),
        topic="filled",
        partitions=partitions,
    )


OWNER_OF_ONE = _compare(1, 0.95)

OWNER_OF_TWELVE = _compare(PARTITIONS, 0.9)

OWNER_IDLE = Comparison(
    name="nats-owner-idle",
    title="NATS: what an idle member sends",
    about=(
        f"A member that owns {PARTITIONS} partitions and has nothing to do, for {QUIET:g} s: all"
        " messages that the server counts from its connection, heartbeats of the lease and pulls"
        " alike."
    ),
    count=200,
    figures={"sent": "messages a second"},
    contestants=(Contestant("owners_idle", "a group of one, by lease"),),
    targets=(Target("at most", 2.0, "sent"),),
)

OWNERS: Mapping[str, Callable[[Job], Awaitable[Figures]]] = {
    f"owners_{partitions}_{function.__name__}": function
    for partitions in (1, PARTITIONS)
    for function in READERS
} | {"owners_idle": idle}
