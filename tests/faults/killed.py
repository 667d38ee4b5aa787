"""A service one of whose messages kills the process that handles it.

`python -m tests.faults.killed URL TOPIC LIMIT` handles a topic for the group `g` with
`max_deliveries=LIMIT`, and tells line by line what it has handled and dead-lettered. `kill` kills
it at once; anything else takes a while.
"""

from __future__ import annotations

import os
import signal
import sys

import trio

from tbus import DeadLettered, KafkaOptions, Message, open_bus

TAKES = 0.3
"""Seconds for a message that does no harm."""


def say(text: str) -> None:
    """One line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def handle(message: Message) -> None:
    """Do the work, or die of it."""
    if message.body == b"kill":
        say("die")
        os.kill(os.getpid(), signal.SIGKILL)
    await trio.sleep(TAKES)
    say(f"handled {message.body.decode()}")


async def run(url: str, topic: str, limit: int) -> None:
    """Serve until the killer is dead-lettered, and nothing is left."""
    async with (
        open_bus(url, kafka=KafkaOptions(instance="one")) as bus,
        bus.open_events() as events,
    ):
        await bus.subscribe(topic, handle, group="g", max_deliveries=limit)
        async for event in events:
            if isinstance(event, DeadLettered):
                say(f"dead {event.key} {event.attempts}")
                break
        while (await bus.lag(topic, "g")).messages:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.05)
        say("done")


if __name__ == "__main__":
    trio.run(run, sys.argv[1], sys.argv[2], int(sys.argv[3]))
