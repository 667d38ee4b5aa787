"""A child process that its owner can neither lose nor leave behind.

Laws:
1. It ends before `stop` returns, or is reported: SIGTERM, then SIGKILL, each with its time.
2. It is reaped exactly once, by whoever sees its end first. What is left of its process
   group is killed with it, and where there is a pidfd before it is reaped: until then its
   id cannot be given to another.
3. It does not outlive the program, however that ends (see `_launch`).
4. It takes no thread. Its end is waited for on a pidfd, its log is read from a pipe, both
   by the program's event loop. Where there is no pidfd, its end is polled for.

It has a session of its own: a Ctrl-C on the terminal is for the program, which ends the
child in its turn.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import anyio
import anyio.lowlevel

from .._errors import ConfigurationError
from ._log import LastLines

Guard = Literal["signal", "pipe"]

_POLL = 0.01
_KILL_TIMEOUT = 5.0
_logger = logging.getLogger(__name__)


class OwnedChild:
    """One process and the log that it writes on standard output and standard error.

    Spawning takes about 2 ms of the calling thread. That thread must live as long as the
    child: on Linux the child dies with it.

    Args:
        argv: the program's path and its arguments.
        keep: descriptors that the child inherits.
        hide: secrets that are not to be seen in its log.
        guard: how it is kept from outliving the program; None: the system's best.

    Raises:
        ConfigurationError: there is no Python interpreter to launch it with.
        OSError: it could not be spawned.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        keep: Iterable[int] = (),
        hide: Iterable[str] = (),
        guard: Guard | None = None,
    ) -> None:
        if not sys.executable or getattr(sys, "frozen", False):
            raise ConfigurationError(
                "an embedded server is launched by a Python interpreter, so that it cannot"
                " outlive the program, and this program has none beside it: run the server"
                " on its own and connect to it by its address"
            )
        if guard is None:
            guard = "signal" if sys.platform == "linux" else "pipe"
        launcher = str(Path(__file__).with_name("_launch.py"))
        self.started = time.monotonic()
        self._log = LastLines(hide)
        self._exited = anyio.Event()
        self._process = subprocess.Popen(  # noqa: S603 - no shell; the path was looked up
            [sys.executable, "-I", "-S", launcher, guard, str(os.getpid()), *argv],
            bufsize=0,
            stdin=subprocess.PIPE if guard == "pipe" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(keep),
        )
        assert self._process.stdout is not None
        self._log_fd = self._process.stdout.fileno()
        os.set_blocking(self._log_fd, False)
        self._pidfd = _open_pidfd(self._process.pid)

    @property
    def pid(self) -> int:
        """The child's process id, its own from the launch on."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, or the negative number of the signal that ended it; None while
        it runs."""
        return self._process.returncode if self._exited.is_set() else None

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The end of its log, oldest line first."""
        return self._log.lines()

    async def wait_exit(self) -> int:
        """Wait until it has ended; any number of tasks may. Needs a task in `watch`."""
        await self._exited.wait()
        return self._process.returncode

    async def watch(self) -> None:
        """Wait for its end and reap it. One task at a time."""
        if self._exited.is_set():
            await anyio.lowlevel.checkpoint()
        elif self._pidfd is not None:
            await anyio.wait_readable(self._pidfd)
        else:
            # Nothing tells of its end here.
            while True:
                await anyio.sleep(_POLL)
                if self._process.poll() is not None:
                    break
        self._reap()

    async def read_log(self) -> None:
        """Read its log until it ends; unread, a full pipe would stop the child. One task
        at a time."""
        while True:
            await anyio.wait_readable(self._log_fd)
            if not self._read_some():
                return

    async def stop(self, patience: float) -> None:
        """End it, reap it and give back every descriptor. Cancellation waits for that.

        Call it when no task is in `watch` or `read_log` any more. A child that not even
        SIGKILL ends within 5 s (its thread hangs in the kernel) is told to the log, and
        `returncode` stays None.

        Args:
            patience: seconds from SIGTERM to SIGKILL.
        """
        try:
            with anyio.CancelScope(shield=True):
                await self._end(patience)
        except BaseException:
            # asyncio's own `Task.cancel` reaches through anyio's shields: no time is left.
            self._signal(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_TIMEOUT)
                self._reap()
            raise
        finally:
            if not self._exited.is_set():
                _logger.error("process %d did not end although it was killed", self.pid)
            self._close()

    async def _end(self, patience: float) -> None:
        if self._exited.is_set():
            await anyio.lowlevel.checkpoint()
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self.read_log)
            self._signal(signal.SIGTERM)
            # One that was stopped (SIGSTOP) hears the other signal only when it goes on.
            self._signal(signal.SIGCONT)
            with anyio.move_on_after(patience):
                await self.watch()
            if not self._exited.is_set():
                self._signal(signal.SIGKILL)
                with anyio.move_on_after(_KILL_TIMEOUT):
                    await self.watch()
            group.cancel_scope.cancel()

    def _signal(self, number: signal.Signals) -> None:
        # The group: a binary that is a script may have children of its own. It may be gone,
        # and some systems refuse to signal a group in which only dead ones are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _reap(self) -> None:
        if self._exited.is_set():
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        while self._read_some():
            pass
        self._exited.set()

    def _read_some(self) -> bool:
        """Whether there may be more to read."""
        try:
            data = os.read(self._log_fd, 65536)
        except BlockingIOError:
            return self._process.returncode is None
        self._log.feed(data)
        return bool(data)

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def _open_pidfd(pid: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        # An old kernel, a sandbox that forbids it, no descriptor left: it is polled for.
        return None
