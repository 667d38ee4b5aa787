"""What tests of embedded servers look at: processes, descriptors, files, ports."""

from __future__ import annotations

import gc
import os
import select
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import attrs


@attrs.frozen
class Census:
    """What a process may leave behind."""

    threads: frozenset[int | None]
    descriptors: frozenset[str]
    children: frozenset[str]
    temporary: frozenset[str]

    def beyond(self, before: Census) -> list[str]:
        """What is here and was not `before`. Less is no leak: an idle thread of Trio's may have
        ended meanwhile."""
        return [
            f"{name}: {one}"
            for name in ("threads", "descriptors", "children", "temporary")
            for one in getattr(self, name) - getattr(before, name)
        ]


def take_census() -> Census:
    descriptors = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one by which the list was read
            descriptors.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    tasks = Path("/proc/self/task").iterdir()
    return Census(
        frozenset(thread.ident for thread in threading.enumerate()),
        frozenset(descriptors),
        frozenset(pid for task in tasks for pid in (task / "children").read_text().split()),
        frozenset(name for name in os.listdir(tempfile.gettempdir()) if "tbus-" in name),
    )


def write_program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def is_there(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    return Path(f"/proc/{pid}").exists()


def of_process(pid: int, file: str) -> bytes:
    return Path(f"/proc/{pid}/{file}").read_bytes()


def open_files(pid: int) -> set[str]:
    place = f"/proc/{pid}/fd"
    found = set()
    for number in os.listdir(place):
        with suppress(FileNotFoundError):  # closed since the list was read
            found.add(os.readlink(f"{place}/{number}"))
    return found


def descriptor_of(file: Path) -> int:
    """This process's descriptor of a file that it has open once."""
    [found] = [
        int(number)
        for number in os.listdir("/proc/self/fd")
        if os.path.realpath(f"/proc/self/fd/{number}") == str(file)
    ]
    return found


def listening_addresses(pid: int) -> list[str]:
    """What the process listens on, in the kernel's notation: address, colon, port, in hex."""
    files = open_files(pid)
    found = []
    for family in ("tcp", "tcp6"):
        for line in of_process(pid, f"net/{family}").decode().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in files:
                found.append(fields[1])
    return found


def wait_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        assert poller.poll(5000), f"process {pid} lives"
    finally:
        os.close(descriptor)


def on_asyncio(main: Callable[[], object]) -> None:
    anyio.run(main, backend="asyncio")  # type: ignore[arg-type]
    gc.collect()
