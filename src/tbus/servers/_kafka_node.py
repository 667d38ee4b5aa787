"""What one Apache Kafka node is told: its settings, its store, its command line.

A node is a broker and a controller in one process (KRaft, no ZooKeeper), alone or one of
a few that form a cluster. It is made small: two threads where a data centre's broker has
eight, little memory for the log's cleaner, topics of its own with few partitions.
"""

from __future__ import annotations

import base64
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from ._ports import HOST

HEAP = 256
"""Megabytes that a node's heap may grow to; it takes about 60 when idle."""

LOADED = ("-Xms1g", "-Xmx1g", "-XX:-UseSerialGC", "-XX:+UseG1GC", "-XX:TieredStopAtLevel=4")
"""What makes a node slower to start and its work quicker, in the place of what `command` gives:
the memory, collector and compilers of Kafka's own start script (kafka-server-start.sh)."""

# `{...}` is filled in below. Times are milliseconds.
_SETTINGS = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=CLIENT://{host}:{client},CONTROLLER://{host}:{controller}
advertised.listeners=CLIENT://{host}:{client}
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
log.dirs={logs}
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=3
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=4000
max.connections=256
num.network.threads=2
num.io.threads=2
background.threads=2
num.recovery.threads.per.data.dir=1
log.cleaner.dedupe.buffer.size=2097152
log.cleaner.io.buffer.size=65536
"""


@attrs.frozen
class Address:
    """Where a node listens on 127.0.0.1: for clients and brokers, and as controller."""

    client: int
    controller: int


@attrs.frozen
class Distribution:
    """What is needed to run a node.

    Attributes:
        name: "apache kafka" and its version.
        java: path of the Java program.
        jars: the directory of the broker's jars.
        checkpoint: the file with which a new store begins: which features are on.
        archive: the JVM's archive of the broker's classes, already parsed, which halves
            the time of a start; None: start without.
    """

    name: str
    java: str
    jars: Path
    checkpoint: Path
    archive: Path | None = None

    def command(self, main: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        """The command line that runs one of Kafka's programs."""
        jars = sorted(str(jar) for jar in self.jars.glob("*.jar"))
        return [
            self.java,
            f"-Xmx{HEAP}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            # Neither of them leaves a file behind that a killed JVM could not remove.
            "-XX:-UsePerfData",
            "-XX:+DisableAttachMechanism",
            # An archive that does not fit this JVM is passed over without a word.
            "-Xshare:auto",
            "-Xlog:disable",
            "-Xlog:all=error:stderr",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showThreadName=false",
            *options,
            # In one fixed order, as an archive holds good for one list only.
            "-cp",
            os.pathsep.join(jars),
            main,
            *arguments,
        ]


@attrs.frozen
class Node:
    """One node of a cluster.

    Args:
        number: its id, from 1 on.
        store: its directory, which is there.
        cluster: where each node of the cluster listens, by its id; itself among them.
        settings: more settings, or others than the usual.
    """

    number: int
    store: Path
    cluster: Mapping[int, Address]
    settings: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def logs(self) -> Path:
        """Where the partitions are."""
        return self.store / "data"

    @property
    def properties(self) -> Path:
        """The file of its settings."""
        return self.store / "node.properties"

    def prepare(self, distribution: Distribution, cluster_id: str) -> str:
        """Write the settings, and make the store if it is new.

        Returns:
            The cluster's id: of a store that was there before, the one that it has.

        Raises:
            OSError: the files cannot be written.
        """
        (self.store / "tmp").mkdir(mode=0o700, exist_ok=True)
        self.logs.mkdir(mode=0o700, exist_ok=True)
        self.write_properties()
        identity = self.logs / "meta.properties"
        if identity.exists():
            return _property(identity, "cluster.id") or cluster_id
        # Last: with it the store counts as made.
        shutil.copyfile(distribution.checkpoint, self.logs / "bootstrap.checkpoint")
        identity.write_text(
            f"version=1\ncluster.id={cluster_id}\nnode.id={self.number}\ndirectory.id={new_id()}\n",
            encoding="ascii",
        )
        return cluster_id

    def write_properties(self) -> None:
        """Write its settings to `properties`."""
        self.properties.write_text(self._settings_text(), encoding="ascii")

    def command(self, distribution: Distribution, *options: str) -> list[str]:
        """The command line that runs it."""
        return distribution.command(
            "kafka.Kafka",
            str(self.properties),
            options=(
                *_archive(distribution),
                # Libraries that a killed JVM leaves behind are gone with a temporary store.
                f"-Djava.io.tmpdir={self.store / 'tmp'}",
                f"-XX:ErrorFile={self.store / 'jvm-error.log'}",
                *options,
            ),
        )

    def _settings_text(self) -> str:
        own = self.cluster[self.number]
        nodes = len(self.cluster)
        text = _SETTINGS.format(
            node=self.number,
            host=HOST,
            client=own.client,
            controller=own.controller,
            voters=",".join(
                f"{number}@{HOST}:{address.controller}" for number, address in self.cluster.items()
            ),
            logs=_escaped(str(self.logs)),
            copies=min(nodes, 3),
            in_sync=2 if nodes >= 3 else 1,
        )
        # The last of two lines for one setting holds.
        more = "".join(f"{name}={_escaped(value)}\n" for name, value in self.settings.items())
        return text + more


def new_id() -> str:
    """A random id as Kafka writes them: 16 bytes in base64; none begins with a dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not text.startswith("-"):
            return text


def _archive(distribution: Distribution) -> list[str]:
    if distribution.archive is None:
        return []
    return [f"-XX:SharedArchiveFile={distribution.archive}"]


def _property(file: Path, name: str) -> str | None:
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == name:
            return value.strip()
    return None


def _escaped(value: str) -> str:
    """As a value of a Java properties file, which is ISO 8859-1 by definition."""
    text = value.replace("\\", "\\\\").encode("utf-16-be", "surrogatepass")
    units = [int.from_bytes(text[at : at + 2]) for at in range(0, len(text), 2)]
    return "".join(chr(one) if 32 < one < 127 else f"\\u{one:04x}" for one in units)
