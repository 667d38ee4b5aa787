"""A real nats-server as a child of the block that opened it."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import attrs
from anyio.streams.buffered import BufferedByteReceiveStream

from .._errors import BusError, ConfigurationError
from .._transport import Holding
from ._binary import find_nats_server
from ._child import OwnedChild
from ._store import Store, open_store, remove_directory, temporary_directory
from ._tend import check_options, failed_start, status, tend

_NAME = "nats-server"
_HOST = "127.0.0.1"
_TICK = 0.005

MEMORY = 256 << 20
"""Bytes that topics which are kept in memory may take together."""

# What is not said here is the server's default. Off is whatever listens besides the client
# port: no `http_port`, no cluster, no gateway. The limits suit one program and its tools.
_CONFIG = """\
host: "{host}"
port: -1
logtime: false
max_connections: 256
max_payload: 1MB
authorization {{ user: "{user}", password: "{password}", timeout: 5 }}
jetstream {{ max_memory_store: {memory} }}
"""


@attrs.define(eq=False)
class NatsServer:
    """A nats-server that runs and can be connected to.

    Attributes:
        host: always 127.0.0.1.
        port: chosen by the server.
        user: random, for this server.
        password: random, for this server; not in its repr.
        store: the directory of its streams.
    """

    host: str
    port: int
    user: str
    password: str = attrs.field(repr=False)
    store: Path
    _child: OwnedChild = attrs.field(repr=False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._child.started

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The end of its log, oldest line first, without the password."""
        return self._child.last_lines

    async def wait_exit(self) -> int:
        """Wait until the server has ended, by itself or by the end of its block.

        Any number of tasks may wait. Cancelled, it leaves the server as it is.

        Returns:
            Its exit status, or the negative number of the signal that ended it.
        """
        return await self._child.wait_exit()

    @property
    def name(self) -> str:
        """What it is."""
        return "nats-server"

    def holdings(self) -> list[Holding]:
        """The process and the tasks that look after it, for a census; nothing once it has
        ended."""
        if self._child.returncode is not None:
            return []
        return [
            Holding(kind="process", role=f"nats-server, pid {self.pid}", age=self.age),
            Holding(kind="task", role="nats-server watch", waits_for="its end", age=self.age),
            Holding(kind="task", role="nats-server log", waits_for="a line", age=self.age),
        ]


@asynccontextmanager
async def open_nats_server(
    *,
    store: Path | None = None,
    binary: str | None = None,
    memory: int = MEMORY,
    startup_timeout: float = 10.0,
    stop_timeout: float = 5.0,
) -> AsyncIterator[NatsServer]:
    """Start a nats-server with JetStream, and stop it when the block ends.

    It listens on 127.0.0.1 only, on a port that it chose itself, with random credentials
    that are on disk (0600, in a 0700 directory) only until it has read them, and never on
    a command line. When the block is entered it has greeted a connection. When the block
    is left, cancelled or not, it has ended, and no process, thread, descriptor or temporary
    file of it is left. It dies with the program, too, even one that is killed; on Linux
    with the thread that entered the block. Only a temporary store is then left behind.

    Args:
        store: directory of the streams, made (0700) if there is none, locked against a
            second server while open, and kept. None: a temporary one, removed at the end.
        binary: path or name of the nats-server. None: the one beside this interpreter,
            which `tbus[embedded]` installs, else the one on PATH.
        memory: bytes that topics with storage="memory" may take together; the server refuses
            what is beyond, and drops nothing for it.
        startup_timeout: seconds until it must be ready.
        stop_timeout: seconds it has to end after SIGTERM, before SIGKILL.

    Raises:
        ConfigurationError: there is no such binary, the store cannot be used or is in use,
            a time or a number of bytes is not one, or the system is not one with POSIX processes.
        BusError: the server ended or was not ready in time; its last lines are in the
            message.
    """
    check_options(_NAME, startup_timeout=startup_timeout, stop_timeout=stop_timeout)
    if type(memory) is not int or memory < 1:
        raise ConfigurationError("a number of bytes, 1 or more", field="memory", value=memory)
    path = find_nats_server(binary)
    with open_store(store, "nats") as held, temporary_directory("nats") as private:
        user, password = f"tbus-{secrets.token_hex(4)}", secrets.token_urlsafe(32)
        child = _start(path, held, private, user, password, memory)
        async with tend(child, _NAME) as tended:
            port = await _wait_ready(child, private, path, startup_timeout)
            tended.patience = stop_timeout
            remove_directory(private)
            yield NatsServer(_HOST, port, user, password, held.path, child)


def _start(
    path: str, held: Store, private: Path, user: str, password: str, memory: int
) -> OwnedChild:
    config = private / "nats.conf"
    text = _CONFIG.format(host=_HOST, user=user, password=password, memory=memory)
    try:
        descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        return OwnedChild(
            # The store comes as an argument: what a path may hold, a quoted string in the
            # server's configuration may not.
            [path, "-c", str(config), "--ports_file_dir", str(private), "-sd", str(held.path)],
            keep=() if held.lock is None else (held.lock,),
            hide=(password,),
        )
    except OSError as error:
        raise BusError(f"the nats-server {path} could not be started: {error}", [error]) from error


async def _wait_ready(child: OwnedChild, private: Path, path: str, within: float) -> int:
    """Return the server's port once it has greeted a connection."""
    with anyio.move_on_after(within):
        # The file comes a moment after the log says "ready", and unlike the wording of a
        # log it is documented: so it is looked for, while an early end is noticed at once.
        while (port := _read_port(private)) is None:
            with anyio.move_on_after(_TICK):
                await child.wait_exit()
            if child.returncode is not None:
                raise failed_start(_NAME, f"{path} ended with {status(child.returncode)}", child)
        await _greet(port, child)
        return port
    raise failed_start(
        _NAME,
        f"{path} was not ready within {within:g} s: is it a nats-server? If this machine is"
        " slow or the store is large, raise `startup_timeout`",
        child,
    )


def _read_port(private: Path) -> int | None:
    for file in private.glob("*.ports"):
        try:
            address: str = json.loads(file.read_bytes())["nats"][0]
            return urlsplit(address).port
        except (ValueError, LookupError, TypeError, AttributeError):
            # Caught while it is being written; if it stays so, the time runs out.
            return None
    return None


async def _greet(port: int, child: OwnedChild) -> None:
    """Connect, and see that it offers JetStream to those who have its credentials."""
    try:
        async with await anyio.connect_tcp(_HOST, port) as stream:
            line = await BufferedByteReceiveStream(stream).receive_until(b"\r\n", 65536)
        word, _, body = line.partition(b" ")
        info = json.loads(body) if word == b"INFO" else {}
    except (
        OSError,
        ValueError,
        anyio.EndOfStream,
        anyio.IncompleteRead,
        anyio.DelimiterNotFound,
        anyio.BrokenResourceError,
    ) as error:
        problem = f"it did not greet a connection ({error!r})"
        raise failed_start(_NAME, problem, child) from error
    if not (info.get("jetstream") and info.get("auth_required")):
        raise failed_start(_NAME, "it offers no JetStream, or asks for no credentials", child)
