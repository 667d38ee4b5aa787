"""A broker's process that does not outlive the test run, started with no help of tbus."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

# Run as a program: asks Linux to kill what it is about to become when the test run dies, by
# SIGKILL too, and becomes it. No code runs in a forked copy of the test process, which has
# threads; and what is asked for here survives the exec.
_LAUNCH = """
import ctypes, os, signal, sys
if ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0) or os.getppid() != int(sys.argv[1]):
    sys.exit("the test run is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def launch(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start it; what it writes is added to the log.

    In the main thread alone: what Linux waits for is the end of the thread, and a worker
    thread of an event loop ends when it has been idle for some seconds.
    """
    assert threading.current_thread() is threading.main_thread(), "it would die with this thread"
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def suspend(process: subprocess.Popen[bytes]) -> None:
    """SIGSTOP; return when it stands still."""
    process.send_signal(signal.SIGSTOP)
    # Reports that the child was stopped, and leaves it to be waited for at its end.
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
