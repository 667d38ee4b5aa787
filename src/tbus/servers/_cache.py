"""The user's directory for what is fetched once, and the lock on a part of it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

if sys.platform != "win32":
    import fcntl

_POLL = 0.1


def cache_directory() -> Path:
    """Where tbus keeps such things: `XDG_CACHE_HOME`/tbus, else as the system has it."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path counts as none.
    if os.path.isabs(named):
        return Path(named) / "tbus"
    usual = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path.home() / usual / "tbus"


@asynccontextmanager
async def locked(file: Path) -> AsyncIterator[None]:
    """Be the only process in this block for that file, which is made, and kept.

    Nothing tells when another lets go: it is asked for again every 100 ms. A process that
    dies lets go.

    Raises:
        OSError: the file cannot be made.
    """
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await anyio.sleep(_POLL)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
    finally:
        os.close(lock)
