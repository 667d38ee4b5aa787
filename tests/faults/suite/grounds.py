"""The grounds that faults happen on: a broker, with a proxy before each of its nodes.

What a ground cannot suffer it has no method for; which deed goes with which ground is the list's
business.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tbus.testing.harness import unique_name
from tests.brokers.kafka import KafkaCluster
from tests.brokers.nats import NatsServer
from tests.brokers.proxy import TcpProxy

from .job import COMMIT_COUNT
from .surroundings import SteppedClock

QUICK = {
    "session_timeout": 3.0,
    "rebalance_timeout": 5.0,
    "drain": 2.0,
    "commit_count": COMMIT_COUNT,
}
"""A Kafka group that gives up on its members sooner than by default, so that it happens here."""


USER = "tbus"
PASSWORD = "secret"


def nats_wants(password: str) -> str:
    """Lines of a nats-server's configuration."""
    return f'authorization {{ user: "{USER}", password: "{password}" }}\n'


def kafka_wants(password: str) -> dict[str, str]:
    """Settings of a Kafka node."""
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return {
        "listener.security.protocol.map": (
            "CLIENT:SASL_PLAINTEXT,PEER:PLAINTEXT,CONTROLLER:PLAINTEXT"
        ),
        "listener.name.client.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.client.plain.sasl.jaas.config": f'{login} user_{USER}="{password}";',
    }


class Ground:
    """A broker that runs.

    Attributes:
        url: where the program connects.
        settings: of its bus.
        nodes: of the broker, by number.
        proxies: one before each of them.
        recognises: whether the broker recognises a repeated event id.
        disk: the broker's own small one, if it has one.
        clock: that can be stepped, if there is one.
        environment: that the program gets besides its own.
    """

    nodes: tuple[int, ...] = (1,)
    recognises = True
    disk: Path | None = None
    clock: SteppedClock | None = None

    def __init__(self, url: str, **settings: Any) -> None:
        self.url = url
        self.settings = settings
        self.proxies: dict[int, TcpProxy] = {}
        self.environment: dict[str, str] = {}

    def kill(self, node: int) -> None:
        """SIGKILL."""
        raise NotImplementedError

    async def start(self, node: int) -> None:
        """Start it again; returns when it is ready."""
        raise NotImplementedError

    def stop(self, node: int) -> None:
        """End it in order."""
        raise NotImplementedError

    def suspend(self, node: int) -> None:
        """SIGSTOP."""
        raise NotImplementedError

    def resume(self, node: int) -> None:
        """SIGCONT."""
        raise NotImplementedError

    async def set_password(self, password: str) -> None:
        """Take this one from now on, and no other."""
        raise NotImplementedError

    async def mend(self) -> None:
        """All is as at the beginning."""
        if self.clock is not None:
            self.clock.step(0.0)
        for proxy in self.proxies.values():
            proxy.accept()
            proxy.delay(0)
            proxy.release()


class Memory(Ground):
    """The program's own broker. What may be done to it, the program does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(f"memory://{unique_name('faults')}", memory=options)


class Nats(Ground):
    """One nats-server."""

    def __init__(self, server: NatsServer, proxy: TcpProxy, **options: Any) -> None:
        super().__init__(proxy.url, nats=options)
        self.proxies = {1: proxy}
        self.server = server

    def kill(self, node: int) -> None:
        self.server.kill()

    async def start(self, node: int) -> None:
        self.server.start()

    def stop(self, node: int) -> None:
        self.server.stop()

    def suspend(self, node: int) -> None:
        self.server.suspend()

    def resume(self, node: int) -> None:
        self.server.resume()

    async def set_password(self, password: str) -> None:
        self.server.reconfigure(nats_wants(password))

    async def mend(self) -> None:
        await super().mend()
        if self.server.is_running():
            self.server.resume()
        else:
            self.server.start()


class Kafka(Ground):
    """One Apache Kafka, or several of one cluster."""

    recognises = False

    def __init__(self, cluster: KafkaCluster, proxies: dict[int, TcpProxy], **options: Any) -> None:
        where = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies.values())
        super().__init__(f"kafka://{where}", kafka={**QUICK, **options})
        self.nodes = tuple(cluster.numbers)
        self.proxies = proxies
        self.cluster = cluster

    def kill(self, node: int) -> None:
        self.cluster.kill(node)

    async def start(self, node: int) -> None:
        await self.cluster.start_meanwhile(node)

    def stop(self, node: int) -> None:
        self.cluster.stop(node)

    def suspend(self, node: int) -> None:
        self.cluster.pause(node)

    def resume(self, node: int) -> None:
        self.cluster.resume(node)

    async def set_password(self, password: str) -> None:
        # A broker reads it when it starts.
        self.cluster.reconfigure(kafka_wants(password))
        for node in self.nodes:
            self.cluster.stop(node)
            await self.cluster.start_meanwhile(node)

    async def mend(self) -> None:
        await super().mend()
        self.cluster.mend()


def nats_of(ground: Ground) -> Nats:
    """The same, for a deed that is for NATS alone."""
    assert isinstance(ground, Nats)
    return ground
