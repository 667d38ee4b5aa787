"""One member of a group: a process that handles events until it is told to end.

Every event that was handled is a line of the book, a file that all members append to: the order
of its lines is the order of completions, over all processes, and a line that was written survives
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


async def run(url: str, group: str, book: str, topics: list[str], options: dict[str, Any]) -> None:
    """Handle until SIGTERM."""
    file = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    name = str(os.getpid())

    async def handle(message: Message) -> None:
        await trio.sleep(random.random() * 0.002)
        line = f"{message.topic} {message.key} {message.body.decode()} {name} {message.epoch}\n"
        os.write(file, line.encode())

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with (
            open_bus(url, topics=tuple(topics), **options) as bus,
            trio.open_nursery() as nursery,
        ):
            for topic in topics:
                await bus.subscribe(topic, handle, group=group)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            nursery.start_soon(end_with_the_crowd)
            async for _ in signals:
                break
            nursery.cancel_scope.cancel()
    os.close(file)


async def end_with_the_crowd() -> None:
    """End when whoever started this process has ended, however that was."""
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        await stdin.receive_some()
    os._exit(3)


if __name__ == "__main__":
    _, url, group, book, options, *topics = sys.argv
    trio.run(run, url, group, book, topics, json.loads(options))
