"""A report on which all is well, and the command line as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tbus.cli._demo_census import ProcessCensus
from tbus.cli._demo_report import Report

ROOT = Path(__file__).parents[2]

HELD = ProcessCensus(tasks=4, threads=1, files=8, children=0)
GOOD = Report(
    address="memory://",
    events=100,
    customers=10,
    topics=5,
    concurrency=8,
    seed=1,
    sent=100,
    acknowledged=100,
    not_stored=0,
    why_not_stored="",
    handled=100,
    handled_acknowledged=100,
    missing=0,
    retries=1,
    duplicates=0,
    violations=0,
    examples=(),
    peak_tasks=40,
    tasks_at_rest=20,
    seconds=2.0,
    closed_in=0.1,
    before=HELD,
    after=HELD,
)


def environment(**more: str) -> dict[str, str]:
    """That of a user: nothing set that concerns us, the source to be found."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TBUS_URL", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    }
    return {**kept, "PYTHONPATH": f"{ROOT / 'src'}", "PYTHONUTF8": "1", **more}


def tbus(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tbus", *arguments],
        capture_output=True,
        text=True,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        timeout=50,
        check=False,
    )


@contextmanager
def started(*arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command, in a process group as a shell would."""
    with subprocess.Popen(
        [sys.executable, "-m", "tbus", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        process_group=0,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """To the whole group, as a terminal does at Ctrl-C."""
    os.killpg(process.pid, number)


def children_of(pid: int) -> list[int]:
    """The processes that one has started, and that run."""
    return [
        int(child)
        for listing in Path(f"/proc/{pid}/task").glob("*/children")
        for child in listing.read_text().split()
    ]


def wait_server(process: subprocess.Popen[str]) -> int:
    """The id of the nats-server that a command has started, as soon as there is one.

    Not just any child: importing Trio runs a program, too, for a moment.
    """
    while process.poll() is None:
        for child in children_of(process.pid):
            # One that has ended meanwhile is none.
            with suppress(OSError):
                program = Path(f"/proc/{child}/cmdline").read_bytes().partition(b"\0")[0]
                if program.endswith(b"nats-server"):
                    return child
        time.sleep(0.002)  # a process tells nobody that it has begun
    raise AssertionError(f"ended with {process.returncode}, and started no server")
