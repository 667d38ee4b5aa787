"""What this process holds now: threads, child processes, open files, tasks.

Counted exactly, with no sleep and no collection of garbage first, so that the statement
after a block may compare. Two counts are compared by identity, not by number: one thing
that goes while another comes is seen.

Linux only as far as processes and files go; elsewhere those two are empty.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import sniffio
import trio

_PROC = Path("/proc")


@attrs.frozen(order=True)
class ChildProcess:
    """A child of this process, or a child's child.

    Attributes:
        pid: its id.
        started: clock ticks after boot: with the id it names one process for ever.
        command: for people.
    """

    pid: int
    started: int
    command: str = attrs.field(eq=False, order=False)

    def __str__(self) -> str:
        return f"process {self.pid}: {self.command}"


@attrs.frozen(order=True)
class OpenFile:
    """A descriptor and what it refers to: a path, or `socket:[inode]` and the like."""

    descriptor: int
    target: str

    def __str__(self) -> str:
        return f"open file {self.descriptor}: {self.target}"


@attrs.frozen
class ProcessCensus:
    """All that a process holds at one moment. Two are equal if they hold the same things.

    Attributes:
        threads: those that run, less the ones that wait in Trio's cache for a next job.
        processes: children, and their children.
        files: open descriptors.
        tasks: of the Trio run, or of the asyncio loop, that the caller runs in.
    """

    threads: frozenset[threading.Thread]
    processes: frozenset[ChildProcess]
    files: frozenset[OpenFile]
    tasks: frozenset[trio.lowlevel.Task | asyncio.Task[Any]]

    def beyond(self, before: ProcessCensus) -> list[str]:
        """What is held here and was not held `before`, a line for each."""
        return [
            *sorted(f"thread {thread.name!r}" for thread in self.threads - before.threads),
            *map(str, sorted(self.processes - before.processes)),
            *map(str, sorted(self.files - before.files)),
            *sorted(f"task {_task_name(task)}" for task in self.tasks - before.tasks),
        ]

    def difference(self, before: ProcessCensus) -> str:
        """What came and what went, for people; empty if the two are equal."""
        came = [f"+ {line}" for line in self.beyond(before)]
        went = [f"- {line}" for line in before.beyond(self)]
        return "\n".join(came + went)


def take_census() -> ProcessCensus:
    """Count what this process holds now.

    Called outside an event loop it counts no tasks.
    """
    return ProcessCensus(
        _threads(), frozenset(_children(os.getpid())), _open_files(), frozenset(_tasks())
    )


def _threads() -> frozenset[threading.Thread]:
    return frozenset(threading.enumerate()) - _idle_threads()


def _idle_threads() -> frozenset[threading.Thread]:
    # Trio keeps a thread for ten seconds after its job, and tells nobody which ones those
    # are; where a later version keeps them elsewhere, they count as threads.
    cache = sys.modules.get("trio._core._thread_cache")
    idle: Any = getattr(getattr(cache, "THREAD_CACHE", None), "_idle_workers", ())
    return frozenset(worker._thread for worker in list(idle))


def _children(pid: int) -> Iterator[ChildProcess]:
    for listing in _PROC.glob(f"{pid}/task/*/children"):
        with suppress(OSError):
            for child in listing.read_text().split():
                if process := _describe(int(child)):
                    yield process
                    yield from _children(process.pid)


def _describe(pid: int) -> ChildProcess | None:
    try:
        # The command's name stands in brackets and may itself contain some.
        after_name = (_PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
        command = (_PROC / f"{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return None
    state, started = after_name[0], int(after_name[19])
    return ChildProcess(pid, started, command or f"(state {state}: ended, never waited for)")


def _open_files() -> frozenset[OpenFile]:
    files = set()
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return frozenset()
    for name in names:
        # The descriptor of this listing itself is gone by now.
        with suppress(OSError):
            files.add(OpenFile(int(name), os.readlink(f"/proc/self/fd/{name}")))
    return frozenset(files)


def _tasks() -> Iterator[trio.lowlevel.Task | asyncio.Task[Any]]:
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


def _task_name(task: trio.lowlevel.Task | asyncio.Task[Any]) -> str:
    return task.get_name() if isinstance(task, asyncio.Task) else task.name
