"""Real nats-servers, as the conformance suite needs them."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import trio

from tbus import Bus, open_bus
from tbus.testing import Ability, ProcessCensus, take_census
from tbus.testing.harness import unique_name
from tests.brokers.kafka import KafkaCluster
from tests.brokers.nats import NatsServer
from tests.brokers.proxy import TcpProxy, start_proxy


class SharedHarness:
    """A broker that others use too: nothing is done to it but what a client may do."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def url(self) -> str:
        return self._url

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    def open_bus(self, **overrides: Any) -> AbstractAsyncContextManager[Bus]:
        return open_bus(self.url, **overrides)

    def topic(self) -> str:
        return unique_name("topic")

    def census(self) -> ProcessCensus:
        return take_census()

    async def cut(self) -> None:
        raise NotImplementedError

    async def suspend(self) -> None:
        raise NotImplementedError

    async def resume(self) -> None:
        raise NotImplementedError

    async def kill(self) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        raise NotImplementedError

    async def remove_consumer(self, topic: str, group: str) -> None:
        raise NotImplementedError


class NatsHarness(SharedHarness):
    """A nats-server."""

    abilities = (
        Ability.DEDUPLICATE
        | Ability.FILL
        | Ability.REMOVE_CONSUMER
        | Ability.KEEP_ATTEMPTS
        | Ability.COUNT_DELIVERIES
    )

    def __init__(self, server: NatsServer) -> None:
        super().__init__(server.url)
        self.server = server

    async def remove_consumer(self, topic: str, group: str) -> None:
        answer = ask(self.server, f"$JS.API.CONSUMER.DELETE.{topic}.{group}")
        assert answer["success"], answer


class KafkaHarness(SharedHarness):
    """Kafka."""

    abilities = Ability.KEEP_ATTEMPTS

    def __init__(self, address: str) -> None:
        super().__init__(f"kafka://{address}")


class BreakableKafkaHarness(KafkaHarness):
    """A broker of the test's own: to suspend and kill."""

    abilities = Ability.SUSPEND | Ability.RESTART

    def __init__(self, node: KafkaCluster) -> None:
        super().__init__(node.bootstrap)
        self.node = node

    def census(self) -> ProcessCensus:
        """Less the broker."""
        held = take_census()
        return attrs.evolve(
            held,
            processes=frozenset(one for one in held.processes if "kafka.Kafka" not in one.command),
        )

    async def suspend(self) -> None:
        self.node.pause()

    async def resume(self) -> None:
        self.node.resume()

    async def kill(self) -> None:
        self.node.kill()

    async def start(self) -> None:
        self.node.start()


class BreakableNatsHarness(NatsHarness):
    """A server of the test's own, behind a proxy: to cut, suspend, kill. On Trio only."""

    abilities = NatsHarness.abilities | Ability.CUT | Ability.SUSPEND | Ability.RESTART

    _proxy: TcpProxy
    _nursery: trio.Nursery

    @property
    def url(self) -> str:
        return self._proxy.url

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._proxy = await start_proxy(nursery, self.server.port)
            yield
            nursery.cancel_scope.cancel()

    def census(self) -> ProcessCensus:
        """Less the server and the proxy, which sees the end of a connection a moment later."""
        held = take_census()
        own_tasks = set(_descend(self._nursery))
        streams = [s for c in self._proxy._connections for s in (c.client, c.server)]
        own_files = {s.socket.fileno() for s in streams if s is not None}
        return ProcessCensus(
            held.threads,
            frozenset(one for one in held.processes if "nats-server" not in one.command),
            frozenset(one for one in held.files if one.descriptor not in own_files),
            held.tasks - own_tasks,
        )

    async def cut(self) -> None:
        self._proxy.cut()

    async def suspend(self) -> None:
        self.server.suspend()

    async def resume(self) -> None:
        self.server.resume()

    async def kill(self) -> None:
        self.server.kill()

    async def start(self) -> None:
        self.server.start()


def _descend(nursery: trio.Nursery) -> Iterator[trio.lowlevel.Task]:
    for task in nursery.child_tasks:
        yield task
        for inner in task.child_nurseries:
            yield from _descend(inner)


def ask(server: NatsServer, subject: str, body: object = None) -> Any:
    """Ask the server over a connection of this call's own, with no client library."""
    payload = b"" if body is None else json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", server.port), 5.0) as connection:
        connection.sendall(
            b'CONNECT {"verbose":false,"headers":false}\r\nSUB answer 1\r\n'
            + f"PUB {subject} answer {len(payload)}\r\n".encode()
            + payload
            + b"\r\n"
        )
        lines = connection.makefile("rb")
        while not lines.readline().startswith(b"MSG "):
            pass
        return json.loads(lines.readline())
