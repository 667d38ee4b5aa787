"""The brokers: how members come to one, and what may be done to it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from tbus import Bus, open_bus
from tbus.testing.harness import unique_name
from tests.brokers.kafka import KafkaCluster
from tests.brokers.nats import NatsServer
from tests.brokers.proxy import TcpProxy, start_proxy

from .crowd import Member, disconnect, start_process, start_task
from .member import Job

DOWN = 0.5
"""Seconds for which a broker that was killed stays away, at most."""


class Broker(Protocol):
    """What members and the publisher connect to.

    Attributes:
        url: where the publisher connects.
        settings: of every bus.
        clock: one that all who write the book share.
    """

    url: str
    settings: dict[str, Any]
    clock: Callable[[], float]

    async def start_member(self, nursery: trio.Nursery, job: Job, log: Path) -> Member | None:
        """One more; None if it did not find the broker."""
        ...

    async def kill(self) -> None:
        """End it without a word, and start it again soon."""

    def cut(self, bus: Bus) -> None:
        """Break the connections of the publisher's bus."""


class Standing:
    """A broker that somebody else has started: nothing is done to it."""

    settings: dict[str, Any]
    clock = staticmethod(time.monotonic)

    def __init__(self, url: str) -> None:
        self.url = url
        self.settings = {}

    async def start_member(self, nursery: trio.Nursery, job: Job, log: Path) -> Member | None:
        return await start_process(nursery, job, log, _no_way_to_cut)

    async def kill(self) -> None:
        raise NotImplementedError

    def cut(self, bus: Bus) -> None:
        _no_way_to_cut()


class Kafka(Standing):
    """One Apache Kafka. It tells its clients where to connect, so there is no proxy between."""

    def __init__(self, cluster: KafkaCluster) -> None:
        super().__init__(f"kafka://{cluster.bootstrap}")
        self.settings = {"kafka": {"session_timeout": 3.0, "rebalance_timeout": 5.0, "drain": 2.0}}
        self._cluster = cluster

    async def kill(self) -> None:
        self._cluster.kill()
        await trio.sleep(random.random() * DOWN)
        self._cluster.start()  # not in another thread: it would be killed with that


class Nats(Standing):
    """One nats-server; the publisher and each member have a proxy of their own before it."""

    def __init__(self, server: NatsServer, proxy: TcpProxy) -> None:
        super().__init__(proxy.url)
        self._server = server
        self._proxy = proxy

    async def start_member(self, nursery: trio.Nursery, job: Job, log: Path) -> Member | None:
        proxy = await start_proxy(nursery, self._server.port)
        return await start_process(nursery, attrs.evolve(job, url=proxy.url), log, proxy.cut)

    async def kill(self) -> None:
        self._server.kill()
        await trio.sleep(random.random() * DOWN)
        self._server.start()  # not in another thread: it would be killed with that

    def cut(self, bus: Bus) -> None:
        self._proxy.cut()


@asynccontextmanager
async def before_nats(server: NatsServer) -> AsyncIterator[Nats]:
    """A nats-server that runs."""
    async with trio.open_nursery() as nursery:
        yield Nats(server, await start_proxy(nursery, server.port))
        nursery.cancel_scope.cancel()


class Memory(Standing):
    """A memory broker of this process. Its members are tasks, on the clock of the event loop."""

    clock = staticmethod(trio.current_time)

    async def start_member(self, nursery: trio.Nursery, job: Job, log: Path) -> Member | None:
        return await start_task(nursery, job)

    def cut(self, bus: Bus) -> None:
        disconnect(bus)


@asynccontextmanager
async def in_memory() -> AsyncIterator[Memory]:
    """A memory broker that lives until the end of the block."""
    url = f"memory://{unique_name('chaos')}"
    async with open_bus(url):
        yield Memory(url)


def _no_way_to_cut() -> None:
    raise NotImplementedError("there is nothing between this broker and its clients")
