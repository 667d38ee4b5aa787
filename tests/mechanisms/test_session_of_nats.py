"""One connection to a real nats-server: what is written keeps its order."""

from __future__ import annotations

import asyncio

import pytest

from tbus._config import NatsOptions
from tbus._errors import TransportLost
from tbus.transports.nats._session import Session, publish_command
from tests.brokers.nats import NatsServer


def test_a_command_never_overtakes_the_subscription_that_was_made_before_it(
    nats_server: NatsServer,
) -> None:
    async def lines_up() -> bytes:
        session = await Session.connect(NatsOptions(), f"127.0.0.1:{nats_server.port}", "test")
        try:
            await session.ping(5)  # nothing is waiting to be written
            arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            # A batch is waiting to be written when the subscription is made: what follows
            # joins that batch, and the client's own writer comes later.
            session.write(publish_command("nobody", b"before"))
            await session.subscribe("here", lambda _s, _r, data, _h: arrived.set_result(data))
            session.write(publish_command("here", b"after"))
            async with asyncio.timeout(5):
                return await arrived
        finally:
            await session.close()

    assert asyncio.run(lines_up()) == b"after"


def test_a_server_without_tls_is_told_no_password_where_tls_is_wanted() -> None:
    told = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.14.0","headers":true}\r\n')
        told.extend(await reader.read())
        writer.close()

    async def connect() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1") as server:
            address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
            options = NatsOptions(tls=True, user="me", password="secret", connect_timeout=2.0)
            with pytest.raises(TransportLost, match="does not speak TLS"):
                await Session.connect(options, address, "test")

    asyncio.run(connect())
    assert told == b""
