"""Become a server that cannot outlive the program which asked for it.

This file is run, not imported: `python -I -S _launch.py GUARD PARENT BINARY ARGUMENT...`.
It arranges for the death of the process that it is about to become, and then becomes the
server by `execv`, so the server keeps this process's id. Two ways to arrange it:

signal: Linux sends SIGKILL when the thread that forked this process ends. That setting
    survives `execv`. A parent that died before it was made is seen by its id.
pipe: everywhere else, a guard, forked here and so a child of the server, waits for the end
    of file on standard input, whose other end only the program holds. As the server's
    child it sees by its own parent's id whether the server still lives, so it can never
    kill a stranger that was given the same id.
"""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _die_with_the_parent(parent: int) -> None:
    import ctypes  # noqa: PLC0415 - costs milliseconds, and the other way needs none of it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the program that started this server is gone")


def _leave_a_guard() -> None:
    server = os.getpid()
    if os.fork() == 0:
        # The guard lives in the server's process group and is killed with it at the end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # The store's lock is among these: it must end with the server.
        os.closerange(3, min(os.sysconf("SC_OPEN_MAX"), 65536))
        while os.read(0, 4096):
            pass
        if os.getppid() == server:
            os.kill(server, signal.SIGKILL)
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def main(guard: str, parent: str, binary: str, *arguments: str) -> None:
    """Arrange for the end, then become `binary`."""
    # An interpreter ignores these, and what is ignored stays so in the server. What the
    # program's thread had blocked would be blocked there too, SIGTERM perhaps among it.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if guard == "signal":
        _die_with_the_parent(int(parent))
    else:
        _leave_a_guard()
    try:
        os.execv(binary, [binary, *arguments])  # noqa: S606 - it is what this file is for
    except OSError as error:
        sys.exit(f"{binary} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
