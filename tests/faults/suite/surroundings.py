"""What a broker or a program may be put into: a small disk, and a clock that is stepped.

Both need something of the machine, and say so where it is missing.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tbus.servers._kafka_node import Distribution
from tests.brokers.launch import launch

_SOURCE = Path(__file__).with_name("clock_steps.c")

_BLOCK = 64 * 1024

# Mounts, in namespaces of its own, and then stays for as long as the disk is wanted.
_MOUNT = 'mount -t tmpfs -o size="$2"m tmpfs "$1" && echo mounted && exec sleep infinity'


class NotHere(Exception):
    """This machine cannot do it."""


@contextmanager
def small_disk(directory: Path, mebibytes: int) -> Iterator[Path]:
    """A directory that holds so much and no more, for every process of this machine.

    It is a tmpfs in namespaces of its own, so nobody needs to be root; it is reached through
    the process that keeps them.

    Raises:
        NotHere: this system lets nobody make such namespaces.
    """
    directory.mkdir()
    log = directory.with_suffix(".log")
    unshare = shutil.which("unshare")
    if unshare is None:
        raise NotHere("there is no unshare on this machine")
    keeper = launch(
        [
            unshare, "--user", "--map-root-user", "--mount", "/bin/sh", "-c", _MOUNT,
            "sh", str(directory), str(mebibytes),
        ],
        log,
    )  # fmt: skip
    try:
        while "mounted" not in log.read_text():
            if keeper.poll() is not None:
                raise NotHere(f"no tmpfs in a namespace: {log.read_text().strip()}")
            time.sleep(0.001)
        yield Path(f"/proc/{keeper.pid}/root{directory}")
    finally:
        keeper.kill()
        keeper.wait()


def fill(disk: Path) -> Path:
    """Leave no room on it; returns the file to remove."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (_BLOCK, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


@attrs.frozen
class SteppedClock:
    """A wall clock of one program's own.

    Attributes:
        library: what the program preloads.
        file: where the step is read from.
    """

    library: Path
    file: Path

    def step(self, seconds: float) -> None:
        """It is so many seconds away from the machine's from now on."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("d", seconds))

    @property
    def environment(self) -> dict[str, str]:
        """What the program is started with."""
        return {"LD_PRELOAD": str(self.library), "CLOCK_STEPS": str(self.file)}


def stepped_clock(directory: Path) -> SteppedClock:
    """One for programs that ask the C library, as Python and Java do. A static program, such as
    nats-server, asks the kernel itself.

    Raises:
        NotHere: there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotHere("there is no C compiler (cc) on this machine")
    clock = SteppedClock(directory / "clock_steps.so", directory / "clock")
    clock.file.write_bytes(struct.pack("d", 0.0))
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", str(clock.library), str(_SOURCE)], check=True
    )
    return clock


def with_clock(distribution: Distribution, clock: SteppedClock, directory: Path) -> Distribution:
    """The same Kafka, on that clock."""
    script = directory / "java"
    pairs = " ".join(f"'{name}={value}'" for name, value in clock.environment.items())
    script.write_text(f"#!/bin/sh\nexec env {pairs} '{distribution.java}' \"$@\"\n")
    os.chmod(script, 0o700)
    return attrs.evolve(distribution, java=str(script))
