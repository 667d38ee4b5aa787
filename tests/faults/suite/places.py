"""Which ground a fault needs, and how it comes about."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from tbus.servers._kafka_node import Distribution
from tests.brokers.kafka import KafkaCluster
from tests.brokers.nats import NatsServer
from tests.brokers.proxy import start_proxy

from .grounds import Ground, Kafka, Memory, Nats
from .surroundings import small_disk, stepped_clock, with_clock


@attrs.frozen
class Place:
    """Which ground a fault needs.

    Attributes:
        name: as the table shows it.
        kind: "memory", "nats" or "kafka".
        nodes: how many.
        options: of the bus's section for that kind.
        config: of the server: lines for nats-server, settings for Kafka.
        disk: MiB of a disk of the broker's own; None: the machine's.
        clock: whose wall clock can be stepped: "program", "broker" or nobody's.
    """

    name: str
    kind: str
    nodes: int = 1
    options: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    config: str = ""
    disk: int | None = None
    clock: str | None = None

    @asynccontextmanager
    async def open(
        self, directory: Path, distribution: Distribution | None = None
    ) -> AsyncIterator[Ground]:
        """Start it, and end it with the block.

        Args:
            directory: an empty one.
            distribution: of Kafka, for a place that needs it.

        Raises:
            NotHere: this machine cannot do it.
        """
        with ExitStack() as stack:
            disk = clock = None
            store = directory / "broker"
            if self.disk is not None:
                disk = stack.enter_context(small_disk(directory / "disk", self.disk))
                store = disk / "broker"
            if self.clock is not None:
                clock = stepped_clock(directory)
                if self.clock == "broker":
                    assert distribution is not None
                    distribution = with_clock(distribution, clock, directory)
            async with self._open(store, distribution) as ground:
                ground.disk, ground.clock = disk, clock
                if self.clock == "program" and clock is not None:
                    ground.environment = clock.environment
                yield ground

    @asynccontextmanager
    async def _open(self, store: Path, distribution: Distribution | None) -> AsyncIterator[Ground]:
        if self.kind == "memory":
            yield Memory(**self.options)
        elif self.kind == "nats":
            with NatsServer(store, config=self.config) as server:
                async with trio.open_nursery() as nursery:
                    proxy = await start_proxy(nursery, server.port)
                    yield Nats(server, proxy, **self.options)
                    nursery.cancel_scope.cancel()
        else:
            settings = dict(one.split("=", 1) for one in self.config.splitlines())
            cluster = KafkaCluster(
                store, self.nodes, distribution=distribution, settings=settings, doors=True
            )
            with cluster:
                async with trio.open_nursery() as nursery:
                    proxies = {
                        one: await start_proxy(nursery, cluster.port(one), listen=cluster.door(one))
                        for one in cluster.numbers
                    }
                    yield Kafka(cluster, proxies, **self.options)
                    nursery.cancel_scope.cancel()
