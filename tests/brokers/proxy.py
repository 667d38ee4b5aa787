"""A TCP proxy that breaks connections on request: cuts, silence, refusal, delay.

The laws:

1. A call that changes something has changed it when it returns: after `cut`, no connection
   is left; after `hold`, nothing more is passed on.
2. Nothing is lost but what is cut: bytes held or delayed are passed on in order afterwards,
   an end of stream among them.
3. A held direction is not read any further than the chunk that is in hand, so the sender
   meets TCP's own backpressure, as with a network that stands still.
4. Everything runs in the nursery given; closing the proxy resets what is open.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum

import attrs
import trio

_CHUNK = 65536
# Closing such a socket sends RST at once, and drops what had not been sent.
_RESET = struct.pack("ii", 1, 0)


class Direction(Enum):
    """Which way bytes go."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


BOTH = (Direction.TO_SERVER, Direction.TO_CLIENT)


@attrs.define(eq=False)
class _Way:
    """One direction of the proxy, over all its connections."""

    open: trio.Event = attrs.Factory(trio.Event)
    delay: float = 0.0
    passed: int = 0
    cut_on: bytes | None = None
    cut_after: int | None = None
    moved: trio.Event = attrs.Factory(trio.Event)


@attrs.define(eq=False)
class _Connection:
    client: trio.SocketStream
    server: trio.SocketStream | None = None
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    ended: set[Direction] = attrs.Factory(set)
    gone: bool = False


class TcpProxy:
    """Between a client and a server; made by `open_proxy`.

    Attributes:
        port: the loopback port that it listens on.
        connections_made: how many it has accepted and passed on so far.
        connections_refused: how many it has reset at once.
    """

    def __init__(self, listener: trio.SocketListener, target: tuple[str, int]) -> None:
        self._listener = listener
        self._target = target
        self._ways = {direction: _Way() for direction in Direction}
        for way in self._ways.values():
            way.open.set()
        self._connections: set[_Connection] = set()
        self._refusing = False
        self._changed = trio.Event()
        self.port: int = listener.socket.getsockname()[1]
        self.connections_made = 0
        self.connections_refused = 0

    @property
    def url(self) -> str:
        """For a NATS client."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    def bytes_passed(self, direction: Direction) -> int:
        """How many have been handed to the other side's socket so far. The other side may
        read them a moment before they are counted: see `wait_passed`."""
        return self._ways[direction].passed

    async def wait_passed(self, direction: Direction, total: int) -> None:
        """Wait until `bytes_passed` is at least `total`."""
        way = self._ways[direction]
        while way.passed < total:
            await way.moved.wait()
        await trio.lowlevel.checkpoint()

    async def wait_connections_made(self, total: int) -> None:
        """Wait until `connections_made` is at least `total`."""
        while self.connections_made < total:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()

    async def wait_connections(self, number: int) -> None:
        """Wait until exactly `number` connections are open."""
        while self.connections != number:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()

    def cut(self) -> int:
        """Reset every open connection on both sides, now; returns how many there were."""
        cut = list(self._connections)
        for connection in cut:
            self._reset(connection)
        return len(cut)

    def cut_on(self, pattern: bytes, direction: Direction) -> None:
        """Cut the next connection in which `pattern` is about to pass, once.

        What came before the pattern in the stream is passed on, and then that side sees an
        end; neither the pattern nor what follows is passed, and the side that sent it sees
        a reset. Of a pattern that came in two pieces the first has passed. Only what is read
        after this call is looked at.
        """
        assert pattern, "an empty pattern is everywhere"
        self._ways[direction].cut_on = pattern

    def cut_after(self, bytes_count: int, direction: Direction) -> None:
        """Cut the connection in which the `bytes_count`-th byte from now on passes, once.

        Bytes of all connections count, also those that are held or delayed now. That byte
        is the last to pass; its receiver then sees an end, and its sender a reset.
        """
        assert bytes_count > 0, "for a cut before any byte there is `cut`"
        self._ways[direction].cut_after = bytes_count

    def refuse(self) -> None:
        """Reset new connections at once, until `accept`. Open ones go on."""
        self._refusing = True

    def accept(self) -> None:
        """Let new connections in again."""
        self._refusing = False

    def hold(self, *directions: Direction) -> None:
        """Pass nothing on, either way or as named, until `release`: a silent network. New
        connections are accepted, and silent as well."""
        for direction in directions or BOTH:
            way = self._ways[direction]
            if way.open.is_set():
                way.open = trio.Event()

    def release(self, *directions: Direction) -> None:
        """Pass on what was held, and go on."""
        for direction in directions or BOTH:
            self._ways[direction].open.set()

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Pass each chunk that is read from now on `seconds` later, in order; 0 ends it.

        One chunk at a time waits: it slows a stream down, as a long way with a small window.
        """
        for direction in directions or BOTH:
            self._ways[direction].delay = seconds

    def half_close(self, direction: Direction) -> None:
        """End every open connection's stream in one direction, as if the sender had; the
        other direction goes on. What is held in it, or comes in it later, goes lost."""
        for connection in self._connections:
            connection.ended.add(direction)
            sink = _sink(connection, direction)
            if sink is not None:
                _shut(sink)

    async def serve(self) -> None:
        """Accept and pass on until cancelled; then every connection is reset."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    client = await self._listener.accept()
                    if self._refusing:
                        self.connections_refused += 1
                        _reset_stream(client)
                        continue
                    # From here on a cut sees it, although it has no other side yet.
                    connection = _Connection(client)
                    self._connections.add(connection)
                    self._tell()
                    nursery.start_soon(self._carry, connection)
        finally:
            self.cut()
            self._listener.socket.close()

    async def _carry(self, connection: _Connection) -> None:
        with connection.scope:
            try:
                connection.server = await trio.open_tcp_stream(*self._target)
                connection.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections_made += 1
                self._tell()
                async with trio.open_nursery() as nursery:
                    for direction in BOTH:
                        nursery.start_soon(self._pass, connection, direction)
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                # Either side broke, or nobody listens: the other side sees a reset.
                self._reset(connection)
        if not connection.gone:
            # Both sides said that they had ended.
            self._forget(connection)
            connection.client.socket.close()
            if connection.server is not None:
                connection.server.socket.close()

    async def _pass(self, connection: _Connection, direction: Direction) -> None:
        assert connection.server is not None
        source, sink = connection.client, connection.server
        if direction is Direction.TO_CLIENT:
            source, sink = sink, source
        way = self._ways[direction]
        seen = b""
        while True:
            data = await source.receive_some(_CHUNK)
            if way.delay:
                await trio.sleep(way.delay)
            await _wait_open(way)
            if way.cut_after is not None and direction not in connection.ended:
                last, way.cut_after = way.cut_after, None
                if len(data) >= last:
                    await _send(way, sink, data[:last])
                    self._cut_gently(connection, sink)
                    return
                way.cut_after = last - len(data)
            pattern = way.cut_on
            if pattern is not None and data:
                window = seen + data
                at = window.find(pattern)
                if at >= 0:
                    way.cut_on = None
                    await _send(way, sink, data[: max(0, at - len(seen))])
                    self._cut_gently(connection, sink)
                    return
                seen = window[-(len(pattern) - 1) :] if len(pattern) > 1 else b""
            else:
                seen = b""
            if not data:
                _shut(sink)
                return
            if direction not in connection.ended and not connection.gone:
                try:
                    await _send(way, sink, data)
                except OSError:
                    # It was ended by hand while this was on its way.
                    if direction not in connection.ended and not connection.gone:
                        raise

    def _cut_gently(self, connection: _Connection, sink: trio.SocketStream) -> None:
        """Reset it, but let the sink's kernel take what was passed on to it first."""
        self._forget(connection)
        source = connection.client if sink is connection.server else connection.server
        assert source is not None
        sink.socket.close()
        _reset_stream(source)
        connection.scope.cancel()

    def _reset(self, connection: _Connection) -> None:
        if connection.gone:
            return
        self._forget(connection)
        _reset_stream(connection.client)
        if connection.server is not None:
            _reset_stream(connection.server)
        connection.scope.cancel()

    def _forget(self, connection: _Connection) -> None:
        connection.gone = True
        self._connections.discard(connection)
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


async def _wait_open(way: _Way) -> None:
    # Held again while it waited: wait again. Open: no checkpoint, so nothing comes between
    # this and a send.
    while not way.open.is_set():
        await way.open.wait()


async def _send(way: _Way, sink: trio.SocketStream, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        if sink.socket.fileno() < 0:
            raise OSError("it was cut while this was on its way")
        # A `send` that had to wait would go on after a `hold`.
        await trio.lowlevel.wait_writable(sink.socket)
        await _wait_open(way)
        sent = await sink.socket.send(rest)
        rest = rest[sent:]
        way.passed += sent
        moved, way.moved = way.moved, trio.Event()
        moved.set()


def _sink(connection: _Connection, direction: Direction) -> trio.SocketStream | None:
    return connection.server if direction is Direction.TO_SERVER else connection.client


def _shut(stream: trio.SocketStream) -> None:
    # It may be shut already, or broken, which the other direction will see.
    with suppress(OSError):
        stream.socket.shutdown(socket.SHUT_WR)


def _reset_stream(stream: trio.SocketStream) -> None:
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.socket.close()


async def start_proxy(
    nursery: trio.Nursery, port: int, host: str = "127.0.0.1", *, listen: int = 0
) -> TcpProxy:
    """Listen on the loopback port `listen`, 0 for any that is free, and pass everything on to
    `host:port` until the nursery is cancelled."""
    [listener] = await trio.open_tcp_listeners(listen, host="127.0.0.1")
    proxy = TcpProxy(listener, (host, port))
    nursery.start_soon(proxy.serve)
    return proxy


@asynccontextmanager
async def open_proxy(port: int, host: str = "127.0.0.1") -> AsyncIterator[TcpProxy]:
    """The same, until the end of the block."""
    async with trio.open_nursery() as nursery:
        yield await start_proxy(nursery, port, host)
        nursery.cancel_scope.cancel()
