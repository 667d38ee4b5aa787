"""Apache Kafka on this machine: fetched once, made ready once for this Java, and kept.

In the user's cache directory, `tbus/kafka-<version>` holds

    jars/                   the broker's jars and no others
    bootstrap.checkpoint    what a new store begins with, written by Kafka's own tool once:
                            running that tool for every new store would cost a second
    classes-<java>.jsa      the JVM's archive of the classes that a broker uses

The directory appears whole or not at all: it is filled under another name and renamed. One
process at a time does so; others wait for it. It may be removed whenever no broker starts.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import attrs

from .._errors import BusError, ConfigurationError
from ._cache import cache_directory, locked
from ._child import OwnedChild
from ._java import OLDEST, find_java, fingerprint, java_version
from ._kafka_node import Address, Distribution, Node, new_id
from ._kafka_ready import EndedEarly, wait_ready
from ._maven import fetch_jars, find_maven
from ._ports import reserve_ports
from ._tend import status, tend, told

# Of the line that has had its first corrections: newer than what most clusters run, so
# what is removed next is seen here first. 4.x needs no ZooKeeper, and Java 17 is enough.
VERSION = "4.2.1"
_JARS = (
    f"org.apache.kafka:kafka_2.13:{VERSION}",
    # Kafka logs to whatever it finds. This one has no threads, no files, no configuration.
    "org.slf4j:slf4j-simple:1.7.36",
)
_TIMEOUT = 120.0
# Java's status when SIGTERM has ended it and it has done all that it does at its end.
_TERMINATED = 128 + signal.SIGTERM
_logger = logging.getLogger(__name__)

Tell = Callable[[str], None]


class KafkaMissing(ConfigurationError):
    """There is no Java to run Apache Kafka with, or nothing to fetch it with."""


async def prepare_kafka(tell: Tell | None = None) -> Distribution:
    """Return an Apache Kafka that is ready to run, fetching it if it is not here.

    The first time takes from some seconds to minutes, as the network is; later there are
    only some files to look at. Cancelled, it leaves nothing half done.

    Args:
        tell: called with lines about the progress, if there is something to do; they are
            logged as well.

    Raises:
        KafkaMissing: no Java 17 or newer was found; or Kafka is not here yet and Maven,
            which fetches it, was not found.
        BusError: it could not be fetched or made ready.
    """
    java = find_java()
    if java is None:
        raise KafkaMissing(f"no Java {OLDEST} or newer was found in JAVA_HOME or on PATH")
    root = cache_directory() / f"kafka-{VERSION}"
    archive = root / f"classes-{fingerprint(java)}.jsa"
    found = Distribution(
        f"apache kafka {VERSION}", java, root / "jars", root / "bootstrap.checkpoint", archive
    )
    if not archive.exists():
        try:
            await _make(found, root, archive, _telling(tell))
        except OSError as error:
            raise BusError(
                f"Apache Kafka could not be put into {root}: {error}; make room, or name"
                " another directory for caches in XDG_CACHE_HOME",
                [error],
            ) from error
    if archive.stat().st_size == 0:
        return attrs.evolve(found, archive=None)
    return found


def _telling(tell: Tell | None) -> Tell:
    def both(line: str) -> None:
        _logger.info("%s", line)
        if tell is not None:
            tell(line)

    return both


async def _make(kafka: Distribution, root: Path, archive: Path, tell: Tell) -> None:
    major = await java_version(kafka.java)
    if major is None or major < OLDEST:
        raise KafkaMissing(
            f"{kafka.java} is Java {major or 'of an unknown version'}, and {kafka.name} needs"
            f" {OLDEST} or newer"
        )
    root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with locked(root.with_name(f"{root.name}.lock")):
        # Left by processes that were killed: nobody else is at it now.
        for left in root.parent.glob(f"{root.name}.part-*"):
            shutil.rmtree(left, ignore_errors=True)
        if not _is_there(root):
            with _part(root) as part:
                await _fetch(kafka, part, tell)
                part.rename(root)
        if not _is_there(archive):
            tell(f"making {kafka.name} ready for this Java, once")
            with _part(root) as part:
                await _archive_classes(kafka, part, part / "classes.jsa")
                (part / "classes.jsa").rename(archive)


@contextmanager
def _part(root: Path) -> Iterator[Path]:
    part = Path(tempfile.mkdtemp(prefix=f"{root.name}.part-", dir=root.parent))
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


async def _fetch(kafka: Distribution, part: Path, tell: Tell) -> None:
    maven = find_maven()
    if maven is None:
        raise KafkaMissing(f"{kafka.name} is not here yet, and no `mvn` to fetch it is on PATH")
    tell(f"fetching {kafka.name} with Maven, once (about 45 MB)")
    await fetch_jars(maven, _JARS, part, tell)
    tell(f"fetched {kafka.name}")
    fetched = attrs.evolve(kafka, jars=part / "jars", archive=None)
    await _write_checkpoint(fetched, part)


async def _write_checkpoint(kafka: Distribution, part: Path) -> None:
    """Let Kafka's own tool make a store, and keep the part of it that is alike for all."""
    nobody = Node(1, part / "store", {1: Address(1, 2)})
    nobody.logs.mkdir(parents=True)
    nobody.write_properties()
    arguments = ("format", "--cluster-id", new_id(), "--config", str(nobody.properties))
    child = OwnedChild(kafka.command("kafka.tools.StorageTool", *arguments))
    async with tend(child, "storage tool"):
        with anyio.move_on_after(_TIMEOUT):
            await child.wait_exit()
        if child.returncode != 0:
            raise BusError(f"Kafka's storage tool could not make a store. {told(child)}")
    (nobody.logs / "bootstrap.checkpoint").rename(part / "bootstrap.checkpoint")
    shutil.rmtree(nobody.store)


async def _archive_classes(kafka: Distribution, part: Path, archive: Path) -> None:
    """Run a broker once and have the JVM write down, at its end, the classes it used."""
    store = part / "store"
    store.mkdir()
    with reserve_ports(2) as ports:
        node = Node(1, store, {1: Address(*ports)})
        plain = attrs.evolve(kafka, archive=None)
        cluster = node.prepare(plain, new_id())
        child = OwnedChild(node.command(plain, f"-XX:ArchiveClassesAtExit={archive}"))
        async with tend(child, "Kafka") as tended:
            try:
                with anyio.fail_after(_TIMEOUT):
                    await wait_ready(child, ports[0], cluster)
            except (EndedEarly, TimeoutError) as error:
                raise BusError(
                    f"{kafka.name} was fetched, but does not run: {error!r}. {told(child)}",
                    [error],
                ) from error
            tended.patience = _TIMEOUT
    if child.returncode == _TERMINATED and _is_there(archive):
        _sync(archive)
    else:
        # A Java that can make none: noted by an empty file, and done without.
        _logger.info("Java made no archive of classes (%s)", status(child.returncode or 0))
        _make_empty(archive)
    os.chmod(archive, 0o400)


def _is_there(path: Path) -> bool:
    return path.exists()


def _sync(path: Path) -> None:
    """Have it on the disk before it gets its name: Java would crash on half an archive."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _make_empty(path: Path) -> None:
    path.write_bytes(b"")
