"""One member of a group on NATS: a process that handles events until it is told to end.

Every event that was handled is a line of the book, a file that all members append to: the order
of its lines is the order of completions over all processes, and a line that was written survives
the kill of its writer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from typing import Any

import trio

from tbus import Message, open_bus
from tbus._events import PartitionsAssigned, PartitionsRevoked


async def run(url: str, topic: str, group: str, book: str, options: dict[str, Any]) -> None:
    """Handle until SIGTERM."""
    file = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    pid = os.getpid()
    pause = options.pop("pause", 0.002)

    async def handle(message: Message) -> None:
        if pause:
            await trio.sleep(random.random() * pause)
        line = f"{topic} {message.key} {message.body.decode()}"
        line += f" {pid} {message.position.partition} {message.epoch}\n"
        os.write(file, line.encode())

    async def tell_moves(events: Any) -> None:
        async for event in events:
            if isinstance(event, PartitionsAssigned | PartitionsRevoked):
                sys.stderr.write(f"{trio.current_time():.3f} {pid} {event}\n")

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_bus(url) as bus, bus.open_events() as events, trio.open_nursery() as tasks:
            if os.environ.get("CHAOS_MOVES"):
                tasks.start_soon(tell_moves, events)
            await bus.subscribe(topic, handle, group=group, **options)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            tasks.start_soon(end_with_the_crowd)
            async for _ in signals:
                break
            tasks.cancel_scope.cancel()
    os.close(file)


async def end_with_the_crowd() -> None:
    """End when whoever started this process has ended, however that was."""
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        await stdin.receive_some()
    os._exit(3)


if __name__ == "__main__":
    _, url, topic, group, book, options = sys.argv
    trio.run(run, url, topic, group, book, json.loads(options))
