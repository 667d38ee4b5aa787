"""What this process holds that could be left behind: threads, child processes, open files,
Trio tasks; counted exactly, now, with no sleep and no collection of garbage first.

Two counts are compared by identity, not by number: a thread is its Python object, a process
its id and start time, an open file its descriptor and what that refers to. So one that goes
while another comes is seen.

Three things are nobody's leak, and are known exactly rather than by their names: a worker
thread that waits in Trio's cache for its next job, a resource that the test harness itself
keeps for the session (`owned_by_the_harness`), and a task that runs in the nursery of a
fixture, which ends with the fixture.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import sniffio
import trio

# Trio keeps a thread for ten seconds after its job and offers no public way to tell such a
# one from one that works: names can be given to jobs, membership in this table cannot.
from trio._core._thread_cache import THREAD_CACHE

_PROC = Path("/proc")


@attrs.frozen
class Process:
    """A child, or a child's child.

    Attributes:
        pid: its id.
        started: clock ticks after boot: together with the id it names one process for ever.
        command: for people.
    """

    pid: int
    started: int
    command: str = attrs.field(eq=False)

    def __str__(self) -> str:
        return f"process {self.pid}: {self.command}"


@attrs.frozen
class OpenFile:
    """A descriptor and what it refers to: a path, or `socket:[inode]` and the like."""

    descriptor: int
    target: str

    def __str__(self) -> str:
        return f"open file {self.descriptor}: {self.target}"


@attrs.frozen
class Held:
    """All that this process holds at one moment, but for its tasks."""

    threads: frozenset[threading.Thread]
    processes: frozenset[Process]
    files: frozenset[OpenFile]

    def beyond(self, before: Held) -> list[str]:
        """What is held here and was not held `before`, a line for each."""
        threads = sorted(f"thread {thread.name!r}" for thread in self.threads - before.threads)
        processes = sorted(str(process) for process in self.processes - before.processes)
        files = sorted(str(file) for file in self.files - before.files)
        return threads + processes + files


_harness: list[Held] = []


def count() -> Held:
    """Count what this process holds now, less what the harness owns."""
    held = _count_all()
    for own in _harness:
        held = _less(held, own)
    return held


@contextmanager
def owned_by_the_harness() -> Iterator[None]:
    """Whatever is taken inside is kept for the session, and no test's leak."""
    before = _count_all()
    yield
    _harness.append(_less(_count_all(), before))


def end_left_processes(before: Held) -> None:
    """Kill and reap what a test has left running, so that it spoils no later one."""
    for process in count().processes - before.processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(process.pid, 0)


@attrs.frozen
class Tasks:
    """The tasks that the calling one answers for.

    Those are the tasks in nurseries of its own, by nursery, and Trio's system tasks, which
    nobody waits for. What another task has started ends with that one, which is a fixture.
    """

    own: dict[trio.Nursery, frozenset[trio.lowlevel.Task]]
    system: frozenset[trio.lowlevel.Task]

    def beyond(self, before: Tasks) -> list[str]:
        """What runs here and did not run `before`, a line for each.

        A nursery that was open before was opened by the harness, for tasks that may run
        until the end of the test: pytest-trio's fixture `nursery` is one.
        """
        opened = [tasks for nursery, tasks in self.own.items() if nursery not in before.own]
        left = (self.system - before.system).union(*opened)
        return sorted(f"task {task.name}" for task in left)


def count_tasks() -> Tasks:
    """Count the tasks that the calling one answers for."""
    caller, root = trio.lowlevel.current_task(), trio.lowlevel.current_root_task()
    assert root is not None
    own = {nursery: frozenset(nursery.child_tasks) for nursery in caller.child_nurseries}
    # The main task is among these; it was there before.
    system = [task for nursery in root.child_nurseries for task in nursery.child_tasks]
    return Tasks(own, frozenset(system))


@attrs.frozen
class Snapshot:
    """All that there is at one moment; two are equal if they hold the very same things."""

    held: Held
    tasks: frozenset[trio.lowlevel.Task | asyncio.Task[Any]]

    def beyond(self, before: Snapshot) -> list[str]:
        """What there is here and was not `before`, a line for each."""
        tasks = self.tasks - before.tasks
        return self.held.beyond(before.held) + sorted(f"task {_name(task)}" for task in tasks)


def snapshot() -> Snapshot:
    """Count everything, for a comparison inside a test: what `count` counts, and every task
    of the whole Trio run, or of the asyncio loop, that the caller runs in; none outside one.
    """
    return Snapshot(count(), frozenset(_all_tasks()))


def _all_tasks() -> Iterator[trio.lowlevel.Task | asyncio.Task[Any]]:
    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return
    if library == "asyncio":
        yield from asyncio.all_tasks()
        return
    root = trio.lowlevel.current_root_task()
    assert root is not None
    yield from _descend(root)


def _descend(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _descend(child)


def _name(task: trio.lowlevel.Task | asyncio.Task[Any]) -> str:
    return task.get_name() if isinstance(task, asyncio.Task) else task.name


def _less(held: Held, other: Held) -> Held:
    return Held(
        held.threads - other.threads,
        held.processes - other.processes,
        held.files - other.files,
    )


def _count_all() -> Held:
    return Held(_threads(), frozenset(_children(os.getpid())), _open_files())


def _threads() -> frozenset[threading.Thread]:
    idle = {worker._thread for worker in list(THREAD_CACHE._idle_workers)}
    return frozenset(thread for thread in threading.enumerate() if thread not in idle)


def _children(pid: int) -> Iterator[Process]:
    for listing in _PROC.glob(f"{pid}/task/*/children"):
        with suppress(OSError):
            for child in listing.read_text().split():
                if process := _describe(int(child)):
                    yield process
                    yield from _children(process.pid)


def _describe(pid: int) -> Process | None:
    try:
        # The command's name stands in brackets and may itself contain some.
        after_name = (_PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
        command = (_PROC / f"{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return None
    state, started = after_name[0], int(after_name[19])
    return Process(pid, started, command or f"(state {state}: ended, and never waited for)")


def _open_files() -> frozenset[OpenFile]:
    files = set()
    for name in os.listdir("/proc/self/fd"):
        # The descriptor of this listing itself is gone by now.
        with suppress(OSError):
            files.add(OpenFile(int(name), os.readlink(f"/proc/self/fd/{name}")))
    return frozenset(files)
