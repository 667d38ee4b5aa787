"""What a deed may use: the ground, the program, and the time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from tests.chaos.book import Book, Event

from .grounds import Ground
from .job import Facts, Job

ROOT = Path(__file__).parents[3]

READY_WITHIN = 30.0
"""Seconds for the program to begin to read."""

ANSWER_WITHIN = 30.0
"""Seconds for the program to do what it is told."""


QUIET_WITHIN = 10.0
"""Seconds without progress after which what is missing is not waited for."""


class ProgramDied(Exception):
    """The program ended before it was told to."""


class Running:
    """The program, as its driver sees it."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._data = b""

    async def tell(self, what: str, *arguments: Any, within: float = ANSWER_WITHIN) -> Any:
        """Have it do something, and wait until it has."""
        await self._stdin.send_all(json.dumps([what, *arguments]).encode() + b"\n")
        return await self.hear("facts" if what == "leave" else what, within)

    async def hear(self, what: str, within: float) -> Any:
        """Wait for an answer."""
        with trio.fail_after(within):
            while b"\n" not in self._data:
                chunk = await self._stdout.receive_some()
                if not chunk:
                    raise ProgramDied(f"it ended with {await self.process.wait()}")
                self._data += chunk
        text, _, self._data = self._data.partition(b"\n")
        said, value = json.loads(text)
        assert said == what, f"{said} is no answer to {what}"
        return value

    async def leave(self, within: float) -> Facts:
        """Have it end, and say what there is to say."""
        return Facts(**await self.tell("leave", within=within))


@asynccontextmanager
async def start_program(
    job: Job, log: Path, environment: Mapping[str, str]
) -> AsyncIterator[Running]:
    """The program, until the end of the block; ready at its beginning.

    Args:
        log: what it says is added to.
        environment: that it gets besides this process's.
    """
    argv = [sys.executable, "-m", "tests.faults.suite.program", json.dumps(attrs.asdict(job))]
    with log.open("ab") as file:
        process = await trio.lowlevel.open_process(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, cwd=ROOT,
            env={**os.environ, **environment},
        )  # fmt: skip
    try:
        running = Running(process)
        await running.hear("ready", READY_WITHIN)
        yield running
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await running._stdin.aclose()
            await running._stdout.aclose()


class Ledger:
    """What was acknowledged: a file that the program writes and this reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stored: set[Event] = set()
        self._offset = 0
        path.touch(mode=0o600)

    def read_on(self) -> set[Event]:
        """All that was acknowledged by now."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for text in data[:whole].decode().splitlines():
            topic, key, number = text.split(" ")
            self.stored.add((topic, key, int(number)))
        return self.stored


@attrs.define(eq=False)
class Stage:
    """Where a deed is done.

    Attributes:
        ground: the broker.
        program: that uses it.
        job: of the program.
        book: what was handled.
        ledger: what was acknowledged.
        until: when the deed is to end, by Trio's clock.
        done: what was done, and how often.
        excused: events that may be handled again, because where the group stood was removed.
        ends: how often the bus had to end by itself by now.
    """

    ground: Ground
    program: Running
    job: Job
    book: Book
    ledger: Ledger
    until: float
    done: Counter[str] = attrs.Factory(Counter)
    excused: int = 0
    ends: int = 0

    def note(self, what: str) -> None:
        """It was done once."""
        self.done[what] += 1

    async def quiet(self) -> None:
        """Let nothing be published, and wait until all is handled."""
        await self.program.tell("pause")
        await self.wait_handled(QUIET_WITHIN)

    async def wait_ended(self) -> None:
        """Wait until the program's bus has ended by itself, once more."""
        self.ends += 1
        await self.program.tell("wait_ends", self.ends)

    async def wait_handled(self, patience: float) -> None:
        """Wait until all that was acknowledged is handled, or nothing has come for so long."""
        last, since = -1, trio.current_time()
        while True:
            self.book.read_on()
            seen = self.book.completions.total()
            if not self.ledger.read_on() - self.book.completions.keys():
                return
            if seen != last:
                last, since = seen, trio.current_time()
            elif trio.current_time() - since > patience:
                return
            await trio.sleep(0.05)
