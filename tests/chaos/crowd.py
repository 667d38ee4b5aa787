"""The members, and what is done to them."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).parents[2]


class Crowd:
    """Members of one group, as processes.

    Args:
        argv: the arguments of a member.
        size: how many there are when nothing is being done to them.
    """

    def __init__(
        self, url: str, group: str, book: Path, topics: list[str], size: int, **options: Any
    ) -> None:
        self._argv = [
            sys.executable, "-m", "tests.chaos.member",
            url, group, str(book), json.dumps(options), *topics,
        ]  # fmt: skip
        self._size = size
        self._members: list[trio.Process] = []
        self.done: Counter[str] = Counter()
        self.unclean: list[int] = []
        """Exit codes of members that should have ended well."""

    async def fill(self, nursery: trio.Nursery) -> None:
        """Start members until there are enough, and wait until they are ready."""
        while len(self._members) < self._size:
            await self._start(nursery)

    async def _start(self, nursery: trio.Nursery) -> None:
        process: trio.Process = await nursery.start(self._run)
        self._members.append(process)
        assert process.stdout is not None
        with trio.move_on_after(60) as scope:
            await process.stdout.receive_some()
        if scope.cancelled_caught:
            raise TimeoutError("a member did not become ready within 60 s")
        self.done["started"] += 1

    async def _run(self, task_status: trio.TaskStatus[trio.Process]) -> None:  # noqa: ASYNC114, ASYNC128
        await trio.run_process(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, capture_stdout=False,
            check=False, cwd=ROOT, task_status=task_status,
        )  # fmt: skip

    async def kill(self, nursery: trio.Nursery) -> None:
        """SIGKILL to one of them, and another one in its place."""
        await self._remove(lambda process: process.kill())
        self.done["killed"] += 1
        await self._start(nursery)

    async def stop(self, nursery: trio.Nursery) -> None:
        """SIGTERM to one of them, and another one in its place."""
        code = await self._remove(lambda process: process.terminate())
        if code:
            self.unclean.append(code)
        self.done["stopped"] += 1
        await self._start(nursery)

    async def suspend(self, seconds: float) -> None:
        """SIGSTOP to one of them, for so long."""
        process = random.choice(self._members)
        process.send_signal(signal.SIGSTOP)
        await trio.sleep(seconds)
        process.send_signal(signal.SIGCONT)
        self.done["suspended"] += 1

    async def end(self) -> None:
        """SIGTERM to all."""
        while self._members:
            code = await self._remove(lambda process: process.terminate())
            if code:
                self.unclean.append(code)

    async def _remove(self, how: Callable[[trio.Process], None]) -> int:
        process = self._members.pop(random.randrange(len(self._members)))
        how(process)
        return await process.wait()
