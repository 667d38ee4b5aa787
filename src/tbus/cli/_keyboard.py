"""Single keys from a terminal, while a command draws on it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import trio


@contextmanager
def open_keyboard() -> Iterator[int | None]:
    """Have keys come one by one, unseen; the terminal is as it was when the block is left.
    Ctrl-C goes on being a signal.

    Returns:
        the descriptor to read from; None: there is no terminal, or none of that kind.
    """
    try:
        import termios  # noqa: PLC0415 - not on every system
        import tty  # noqa: PLC0415 - not on every system
    except ModuleNotFoundError:
        yield None
        return
    if not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSADRAIN)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def read_keys(descriptor: int) -> AsyncIterator[str]:
    """The keys that are pressed, until the terminal is gone."""
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        data = os.read(descriptor, 64)
        if not data:
            return
        for key in data.decode("ascii", "replace"):
            yield key
