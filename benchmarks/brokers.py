"""One broker of each kind that is asked for, for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import attrs

from tbus.servers import open_kafka_server, open_nats_server

MEMORY = 2 << 30
"""Bytes that nats-server may take for topics in memory: those of a million messages."""


@attrs.frozen
class Brokers:
    """What runs.

    Attributes:
        urls: where each kind is; with what is secret in it, so it is for no result and no
            command line.
        names: what each is, for people.
    """

    urls: dict[str, str]
    names: dict[str, str]


@asynccontextmanager
async def open_brokers(kinds: Iterable[str]) -> AsyncIterator[Brokers]:
    """Start them, and stop them at the end of the block.

    Args:
        kinds: "memory", "nats", "kafka", or the last two with "+embedded", for which nothing
            is started here: each bus starts its own.
    """
    found = Brokers({}, {})
    async with AsyncExitStack() as stack:
        for kind in set(kinds):
            if kind == "nats":
                server = await stack.enter_async_context(open_nats_server(memory=MEMORY))
                found.urls[kind] = (
                    f"nats://{server.user}:{server.password}@{server.host}:{server.port}"
                )
            elif kind == "kafka":
                kafka = open_kafka_server(kind="kafka", for_load=True)
                broker = await stack.enter_async_context(kafka)
                found.names[kind] = broker.name
                found.urls[kind] = f"kafka://{broker.address}"
            else:
                found.urls[kind] = f"{kind}://"
        yield found
