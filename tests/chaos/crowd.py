"""The members, and what is done to them."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol

import trio

from tbus import Bus, BusError

from .member import Job, read

ROOT = Path(__file__).parents[2]

READY_WITHIN = 60.0
"""Seconds for a member to begin to read."""


class Member(Protocol):
    """One of the crowd.

    Attributes:
        number: that no other one ever has.
    """

    @property
    def number(self) -> int: ...

    def kill(self) -> None:
        """End it without a word."""

    def stop(self) -> None:
        """Ask it to end."""

    async def wait(self) -> int:
        """Wait until it has ended; 0: well."""
        ...

    def suspend(self) -> None:
        """Let it stand still."""

    def resume(self) -> None:
        """Let it go on."""

    def cut(self) -> None:
        """Break all its connections."""


class ProcessMember:
    """A process."""

    def __init__(self, process: trio.Process, cut: Callable[[], object]) -> None:
        self._process = process
        self._cut = cut

    @property
    def number(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        self._process.terminate()

    async def wait(self) -> int:
        return await self._process.wait()

    def suspend(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)

    def cut(self) -> None:
        self._cut()


async def start_process(
    nursery: trio.Nursery, job: Job, log: Path, cut: Callable[[], object]
) -> Member | None:
    """One more member; returns when it reads. None: it could not, the broker was not there.

    Args:
        log: what it says is added to.
        cut: breaks its connections.
    """
    argv = [sys.executable, "-m", "tests.chaos.member", job.to_json()]
    with log.open("ab") as file:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                capture_stdout=False, stderr=file, check=False, cwd=ROOT,
            )
        )  # fmt: skip
    assert process.stdout is not None
    with trio.fail_after(READY_WITHIN):
        if not await process.stdout.receive_some():
            return None
    return ProcessMember(process, cut)


class TaskMember:
    """A bus in this process, for a broker that lives in it. Standing still and a cut are silence
    of the broker, for this bus alone."""

    _numbers = count(1)

    def __init__(self) -> None:
        self.number = next(self._numbers)
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        self._ended = trio.Event()
        self._failed = False
        self._bus: Bus

    async def run(self, job: Job, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC114
        """Read until it is killed or stopped."""

        async def wait_stopped(bus: Bus) -> None:
            self._bus = bus
            task_status.started()
            await self._stopped.wait()

        try:
            with self._scope:
                await read(job, self.number, trio.current_time, wait_stopped)
        except BusError:
            self._failed = True
        finally:
            self._ended.set()

    def kill(self) -> None:
        self._scope.cancel()

    def stop(self) -> None:
        self._stopped.set()

    async def wait(self) -> int:
        await self._ended.wait()
        return int(self._failed)

    def suspend(self) -> None:
        self._bus.transport.faults.suspend()  # type: ignore[attr-defined]

    def resume(self) -> None:
        self._bus.transport.faults.restore()  # type: ignore[attr-defined]

    def cut(self) -> None:
        disconnect(self._bus)


def disconnect(bus: Bus) -> None:
    """Break the connection of a bus to a broker of this process."""
    bus.transport.faults.disconnect(0.0)  # type: ignore[attr-defined]


async def start_task(nursery: trio.Nursery, job: Job) -> Member:
    """One more member of a broker in this process; returns when it reads."""
    member = TaskMember()
    await nursery.start(member.run, job)
    return member


class Crowd:
    """The members of one group. One thing at a time is done to them, but for cuts.

    Args:
        start: makes one more; None if it could not.
        note: told what was just done to whom.
        size: how many there are when nothing is being done to them.
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[Member | None]],
        note: Callable[[str, int], None],
        size: int,
    ) -> None:
        self._start = start
        self._note = note
        self._size = size
        self._members: list[Member] = []
        self.done: Counter[str] = Counter()
        self.unclean: list[int] = []
        """Exit codes of members that should have ended well."""

    async def fill(self) -> None:
        """Start members until there are enough, and wait until they read."""
        while len(self._members) < self._size:
            member = await self._start()
            if member is not None:
                self._members.append(member)
                self.done["started"] += 1
                continue
            self.done["started in vain"] += 1
            await trio.sleep(0.2)

    async def kill(self, pause: float) -> None:
        """End one without a word; another one takes its place, within so many seconds."""
        member = self._pick()
        self._members.remove(member)
        member.kill()
        self._note("kill", member.number)
        await member.wait()
        self.done["killed"] += 1
        await trio.sleep(random.random() * pause)
        await self.fill()

    async def stop(self, pause: float) -> None:
        """Have one end properly; the same."""
        member = self._pick()
        self._members.remove(member)
        await self._end(member)
        self.done["stopped"] += 1
        await trio.sleep(random.random() * pause)
        await self.fill()

    async def suspend(self, longest: float) -> None:
        """Have one stand still for a while."""
        member = self._pick()
        member.suspend()
        self._note("suspend", member.number)
        await trio.sleep(random.uniform(0.5, longest))
        member.resume()
        self.done["suspended"] += 1

    def cut(self) -> None:
        """Break one's connections."""
        if self._members:
            member = self._pick()
            member.cut()
            self._note("cut", member.number)
            self.done["cut"] += 1

    async def end(self) -> None:
        """Have all end properly."""
        while self._members:
            await self._end(self._members.pop())

    async def _end(self, member: Member) -> None:
        member.stop()
        if code := await member.wait():
            self.unclean.append(code)

    def _pick(self) -> Member:
        return random.choice(self._members)
