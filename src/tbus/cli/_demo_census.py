"""What this process holds: counted by the demo itself, from the operating system and Trio."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import attrs
import trio


@attrs.frozen
class ProcessCensus:
    """What the process holds at one moment. None: this system does not tell.

    Attributes:
        tasks: of the whole Trio run.
        threads: of Python.
        files: open file descriptors.
        children: processes that it started, and theirs.
    """

    tasks: int
    threads: int
    files: int | None
    children: int | None


def take_census() -> ProcessCensus:
    """Count now."""
    return ProcessCensus(
        tasks=trio.lowlevel.current_statistics().tasks_living,
        threads=threading.active_count(),
        files=count_files(),
        children=count_children(os.getpid()),
    )


def count_files() -> int | None:
    """Open file descriptors of this process, or None where the system does not tell."""
    for listing in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(listing)) - 1  # less the listing's own
        except OSError:
            continue
    return None


def count_children(pid: int) -> int | None:
    """Processes that one has started, and theirs; those too that have ended and were never
    waited for. None where the system does not tell."""
    found = 0
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return None
    for thread in threads:
        try:
            children = (thread / "children").read_text().split()
        except FileNotFoundError:
            # The thread has ended; or this kernel keeps no such lists.
            if not Path("/proc/self/task").is_dir():
                return None
            continue
        except OSError:
            continue
        for child in children:
            found += 1 + (count_children(int(child)) or 0)
    return found
