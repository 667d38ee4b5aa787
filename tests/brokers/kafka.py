"""Real Apache Kafka for tests: one node or a cluster, to kill, suspend and start again.

Where it comes from and what a node is told is tbus's own (`tbus.servers`); the processes
are started, killed and waited for with no help of it: what is tested must not prove itself.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Self

import anyio
import anyio.to_thread
import attrs

from tbus._errors import BusError
from tbus.servers._kafka_distribution import KafkaMissing, prepare_kafka
from tbus.servers._kafka_node import Address, Distribution, Node, new_id
from tbus.servers._kafka_wire import (
    Metadata,
    NotKafka,
    answer_length,
    metadata_request,
    parse_metadata,
)
from tbus.servers._ports import HOST, reserve_ports
from tbus.servers._tansu import tansu_command
from tests.brokers.launch import launch, suspend
from tests.brokers.nats import BrokerMissing

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 30.0
_POLL = 0.01


def find_kafka() -> Distribution:
    """The Apache Kafka to run, fetched if it is not on this machine yet.

    Not inside an event loop.

    Raises:
        BrokerMissing: there is none, and it cannot be fetched.
    """
    try:
        return anyio.run(prepare_kafka, None, backend="trio")
    except (KafkaMissing, BusError) as missing:
        raise BrokerMissing(f"no Apache Kafka: {missing}") from missing


class KafkaCluster:
    """Nodes 1 to `nodes`, each a broker and a controller, on loopback ports of their own.

    From three nodes on, a topic has three copies and a write needs two: one node may be
    killed. Ports and stores stay the same until the end, and the ports are nobody else's
    while a node is down.

    Args:
        directory: an empty one, for stores and logs.
        nodes: how many.
        distribution: what to run; None: `find_kafka`.
        settings: more settings for every node, or others than the usual.
        doors: clients are told to connect to another port of each node, its `door`, where
            nobody listens: a proxy is to be put there. Nodes reach each other directly.
        owned: entered around whatever takes processes or descriptors.
    """

    def __init__(
        self,
        directory: Path,
        nodes: int = 1,
        *,
        distribution: Distribution | None = None,
        settings: Mapping[str, str] | None = None,
        doors: bool = False,
        owned: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._distribution = distribution or find_kafka()
        self._directory = directory
        self._settings = dict(settings or {})
        self._doors: dict[int, int] | None = {} if doors else None
        self._peers: dict[int, int] = {}
        self._owned = owned
        self._ports = ExitStack()
        self._nodes: dict[int, Node] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._cluster = new_id()
        self.numbers = range(1, nodes + 1)

    @property
    def bootstrap(self) -> str:
        """Where to connect: "127.0.0.1:p1,127.0.0.1:p2,..."."""
        return ",".join(f"{HOST}:{self.port(number)}" for number in self.numbers)

    def port(self, node: int = 1) -> int:
        """Where clients reach this node; the same after a restart."""
        return self._nodes[node].cluster[node].client

    def door(self, node: int = 1) -> int:
        """Where clients are told to connect, if there are doors."""
        assert self._doors is not None, "it was made without doors"
        return self._doors[node]

    def store(self, node: int = 1) -> Path:
        """Where this node keeps all it has."""
        return self._directory / f"node-{node}"

    def pid(self, node: int = 1) -> int:
        """Of a running node."""
        return self._running(node).pid

    def is_running(self, node: int = 1) -> bool:
        """Whether there is a process; a suspended one counts."""
        return node in self._processes and self._processes[node].poll() is None

    def start(self, *nodes: int) -> None:
        """Start these nodes, or all that do not run; return when they are ready.

        A node is ready when it answers and knows every node that runs.
        """
        if not self._nodes:
            self._make()
        started = nodes or [one for one in self.numbers if not self.is_running(one)]
        try:
            for number in started:
                self._launch(number)
            self._wait_all(started)
        except BaseException:
            for number in started:
                self.kill(number)
            raise

    async def start_meanwhile(self, node: int = 1) -> None:
        """Start one node; return when it is ready. The event loop goes on meanwhile."""
        self._launch(node)
        await anyio.to_thread.run_sync(self._wait_all, [node])

    def reconfigure(self, settings: Mapping[str, str]) -> None:
        """Give every node more settings, or others, from its next start on."""
        for number, node in self._nodes.items():
            self._nodes[number] = node = attrs.evolve(node, settings={**node.settings, **settings})
            node.write_properties()

    def kill(self, node: int = 1) -> None:
        """SIGKILL: what the system had not been given is lost. Returns when it is gone."""
        if (process := self._processes.get(node)) is not None:
            process.kill()
            process.wait()

    def pause(self, node: int = 1) -> None:
        """SIGSTOP: connections stay, nobody answers. Returns when it stands still."""
        suspend(self._running(node))

    def resume(self, node: int = 1) -> None:
        """SIGCONT: it goes on as if nothing had been."""
        self._running(node).send_signal(signal.SIGCONT)

    def restart(self, node: int = 1) -> None:
        """Stop it if it runs, and start it again on the same ports and store."""
        self.stop(node)
        self.start(node)

    def mend(self) -> None:
        """Let every node run: start what was killed, resume what was paused; return when all
        are ready."""
        if not self._nodes:
            self.start()
            return
        for number in self.numbers:
            if self.is_running(number):
                self.resume(number)
            else:
                self._launch(number)
        self._wait_all(self.numbers)

    def stop(self, *nodes: int) -> None:
        """End these nodes properly, or all; return when they are gone, suspended or not."""
        ended = {one: self._processes[one] for one in nodes or self.numbers if self.is_running(one)}
        for process in ended.values():
            process.terminate()
            process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + _STOP_TIMEOUT
        late = []
        for number, process in ended.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(number)
                self.kill(number)
        assert not late, f"nodes {late} did not end on SIGTERM\n{self.log_text()}"

    def close(self) -> None:
        """Kill what still runs and give the ports back. Nobody will use the stores again."""
        for number in self.numbers:
            self.kill(number)
        self._ports.close()

    def ask(self, node: int = 1, timeout: float = 5.0) -> Metadata:
        """What this node says of the cluster now.

        Raises:
            OSError: it does not answer; `TimeoutError` if it is only silent.
        """
        # Clients may have to prove who they are; the other nodes need not.
        return _ask(self._peers.get(node, self.port(node)), timeout)

    def log_text(self) -> str:
        """All that the nodes have logged, restarts included."""
        logs = ((number, self._log(number)) for number in self.numbers)
        return "\n".join(
            f"--- node {number}\n{log.read_text(errors='replace')}"
            for number, log in logs
            if log.exists()
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A node alone ends in order within a moment. A cluster whose majority is gone may
        # wait for it in vain, and what it has stored is of no use any more.
        self.close()

    def _make(self) -> None:
        with self._owned():
            ports = iter(self._ports.enter_context(reserve_ports(4 * len(self.numbers))))
        cluster = {one: Address(next(ports), next(ports)) for one in self.numbers}
        for number in self.numbers:
            self.store(number).mkdir(parents=True)
            settings = self._settings
            if self._doors is not None:
                self._doors[number], self._peers[number] = next(ports), next(ports)
                settings = _behind_a_door(cluster[number], self._doors[number], self._peers[number])
                settings |= self._settings
            node = Node(number, self.store(number), cluster, settings)
            node.prepare(self._distribution, self._cluster)
            self._nodes[number] = node

    def _launch(self, number: int) -> None:
        assert not self.is_running(number), "it runs already"
        command = self._nodes[number].command(self._distribution)
        with self._owned():
            self._processes[number] = launch(command, self._log(number))

    def _running(self, node: int) -> subprocess.Popen[bytes]:
        assert self.is_running(node), f"node {node} does not run"
        return self._processes[node]

    def _log(self, number: int) -> Path:
        return self._directory / f"node-{number}.log"

    def _wait_all(self, nodes: Iterable[int]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        for number in nodes:
            self._wait_ready(number, deadline)

    def _wait_ready(self, number: int, deadline: float) -> None:
        while (left := deadline - time.monotonic()) > 0:
            if not self.is_running(number):
                raise AssertionError(f"node {number} ended at once\n{self.log_text()}")
            try:
                known = self.ask(number, left)
            except (OSError, NotKafka):
                known = None
            if known is not None:
                assert known.cluster == self._cluster, f"a stranger answers for node {number}"
                if all(one in known.brokers for one in self.numbers if self.is_running(one)):
                    return
            time.sleep(_POLL)
        raise AssertionError(f"node {number} was not ready in time\n{self.log_text()}")


def _behind_a_door(own: Address, door: int, peers: int) -> dict[str, str]:
    """The settings of a node that tells its clients to go to `door`, and the other nodes to come
    to `peers`."""
    listeners = f"CLIENT://{HOST}:{own.client},PEER://{HOST}:{peers}"
    return {
        "listeners": f"{listeners},CONTROLLER://{HOST}:{own.controller}",
        "advertised.listeners": f"CLIENT://{HOST}:{door},PEER://{HOST}:{peers}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,PEER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PEER",
    }


class Tansu:
    """One Tansu, for what a broker without idempotent producers can show.

    Args:
        directory: for the log.
        program: its path.
        owned: entered around whatever takes processes or descriptors.
    """

    def __init__(
        self,
        directory: Path,
        program: str,
        owned: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._stack = ExitStack()
        self._log = directory / "tansu.log"
        with owned():
            [self._port] = self._stack.enter_context(reserve_ports(1))
            self._process = launch(tansu_command(program, self._port, "tests"), self._log)
        self._stack.callback(self._end)
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap(self) -> str:
        """Where to connect."""
        return f"{HOST}:{self._port}"

    def log_text(self) -> str:
        """All it has logged."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """Kill it and give its port back."""
        self._stack.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                _ask(self._port, 1.0)
            except OSError:
                time.sleep(_POLL)
            else:
                return
        raise AssertionError(f"tansu was not ready in time\n{self.log_text()}")


def _ask(port: int, timeout: float) -> Metadata:
    with socket.create_connection((HOST, port), timeout) as connection:
        connection.sendall(metadata_request())
        answer = connection.makefile("rb")
        head = answer.read(4)
        if len(head) < 4:
            raise ConnectionResetError("the broker ended the connection")
        return parse_metadata(answer.read(answer_length(head)))
