"""Contestants on one processor: what it costs that threads change places between two.

tbus has a thread for its clients beside the program's. One interpreter lock lets one of them run at
a time; on two processors each has to fetch what the other has written from that one's cache.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import wraps

from .workload import Figures, Job

Contestant = Callable[[Job], Awaitable[Figures]]

PINNED = "_pinned"
"""What the name of such a contestant ends with."""


def pinned(contestant: Contestant) -> Contestant:
    """The same, in a process that stays on one processor with all its threads. Linux only."""

    @wraps(contestant)
    async def run(job: Job) -> Figures:
        stay_on_one_processor()
        return await contestant(job)

    return run


def stay_on_one_processor() -> None:
    """This thread, and all that it will start.

    Raises:
        SystemExit: this system has no way to say so.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("no process can be kept on one processor here: that needs Linux")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
