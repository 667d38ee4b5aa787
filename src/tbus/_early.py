"""Ctrl-C while Python still reads the command line's program.

Reading it takes a tenth of a second, most of it in other people's packages, and an interrupt in
there shows a traceback through them; or, where it comes in the midst of a callback of the
interpreter's own, nothing at all, and the program goes on. For the command line alone, and while
this package and its commands are being imported, such an interrupt ends the program at once and
quietly, with the exit code that it has later: nothing has begun that would have to be ended.
Programs that import tbus get their `KeyboardInterrupt`.

Importing this room begins it, so that the package need not call anything between its imports.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise
from types import FrameType


def is_command_line(argv: list[str], orig_argv: list[str]) -> bool:
    """Whether the program is `tbus`, or `python -m tbus` that is just looking for it.

    Args:
        argv, orig_argv: those of `sys`.
    """
    if argv[:1] == ["-m"]:  # until Python has found what it is to run
        return "-mtbus" in orig_argv or ("-m", "tbus") in pairwise(orig_argv)
    return bool(argv) and os.path.basename(argv[0]) in ("tbus", "tbus.exe")


def begin() -> None:
    """The package, or what the command line adds to it, is about to be imported: from here on an
    interrupt ends the program."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end() -> None:
    """It is imported: from here on it can look after itself."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)  # an exception may be swallowed here


if is_command_line(sys.argv, sys.orig_argv):
    begin()
