"""One member of a group: handles events, and writes down which, until it is told to end.

As a process: `python -m tests.chaos.member JOB`, which ends on SIGTERM.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from tbus import Bus, Message, open_bus
from tbus._events import PartitionsAssigned, PartitionsRevoked

from .book import line


@attrs.frozen
class Job:
    """What a member is to do.

    Attributes:
        url: of its broker, or of the way there.
        group: that it is a member of.
        topics: that it reads.
        book: the path of the file.
        pause: seconds that a handler takes, at most.
        settings: of its bus.
    """

    url: str
    group: str
    topics: tuple[str, ...]
    book: str
    pause: float
    settings: dict[str, Any]

    def to_json(self) -> str:
        """As an argument of a process."""
        return json.dumps(attrs.asdict(self))


def job_of(text: str) -> Job:
    """The reverse."""
    found = json.loads(text)
    return Job(**{**found, "topics": tuple(found["topics"])})


async def read(
    job: Job,
    member: int,
    clock: Callable[[], float],
    until: Callable[[Bus], Awaitable[object]],
) -> None:
    """Handle events until `until`, which is told the bus once it reads, returns."""
    file = os.open(job.book, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def handle(message: Message) -> None:
        await trio.sleep(random.random() * job.pause)
        assert message.key is not None
        event = (message.topic, message.key, int(message.body))
        os.write(file, line(event, member, message.position.partition, message.epoch, clock()))

    try:
        async with open_bus(job.url, topics=job.topics, **job.settings) as bus:
            for topic in job.topics:
                await bus.subscribe(topic, handle, group=job.group)
            await until(bus)
    finally:
        os.close(file)


async def run(job: Job) -> None:
    """Be a process."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

        async def wait_signal(bus: Bus) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_with_the_crowd)
                if os.environ.get("CHAOS_MOVES"):
                    nursery.start_soon(tell_moves, bus)
                sys.stdout.write("ready\n")
                sys.stdout.flush()
                async for _ in signals:
                    break
                nursery.cancel_scope.cancel()

        await read(job, os.getpid(), time.monotonic, wait_signal)


async def end_with_the_crowd() -> None:
    """End when whoever started this process has ended, however that was."""
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        await stdin.receive_some()
    os._exit(3)


async def tell_moves(bus: Bus) -> None:
    """To find out what happened: which partitions come and go, and when."""
    async with bus.open_events() as events:
        async for event in events:
            if isinstance(event, PartitionsAssigned | PartitionsRevoked):
                sys.stderr.write(f"{time.monotonic():.3f} {os.getpid()} {event}\n")


if __name__ == "__main__":
    trio.run(run, job_of(sys.argv[1]))
