"""A member that suspends itself while it handles something.

`python -m tests.faults.zombie URL TOPIC` tells what it does, line by line. `wait` is handled until
that is cancelled; at `stop`, when the other one runs, the process stands still until somebody
resumes it, and then returns from the handler as if nothing had been, without a checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys

import trio

from tbus import Message, open_bus
from tbus._events import PartitionsRevoked


def say(text: str) -> None:
    """One line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def run(url: str, topic: str) -> None:
    """Be a member of the group `g` until it is killed."""
    waiting = trio.Event()

    async def handle(message: Message) -> None:
        what = message.body.decode()
        if what == "wait":
            waiting.set()
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                say("cancelled")
                raise
        elif what == "stop":
            await waiting.wait()
            say(f"suspended in epoch {message.epoch}")
            os.kill(os.getpid(), signal.SIGSTOP)
            say("returned")
        else:
            say(f"handled {what} in epoch {message.epoch}")

    async with open_bus(url) as bus, bus.open_events() as events:
        await bus.subscribe(topic, handle, group="g")
        say("ready")
        async for event in events:
            if isinstance(event, PartitionsRevoked):
                # The answer comes when the server has had everything that was sent before.
                await bus.lag(topic, "g")
                say(f"revoked {'lost' if event.lost else 'drained'}")


if __name__ == "__main__":
    trio.run(run, sys.argv[1], sys.argv[2])
