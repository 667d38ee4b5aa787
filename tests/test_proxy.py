"""The proxy breaks connections exactly as it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.brokers.proxy import Direction, TcpProxy, open_proxy

TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT


@attrs.define
class Pair:
    """A client and the server's side of its connection, with the proxy between them."""

    proxy: TcpProxy
    client: trio.SocketStream
    server: trio.SocketStream
    listener: trio.SocketListener


@asynccontextmanager
async def connected() -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await stack.enter_async_context(listener)
        port = listener.socket.getsockname()[1]
        proxy = await stack.enter_async_context(open_proxy(port))
        client = await trio.open_tcp_stream("127.0.0.1", proxy.port)
        await stack.enter_async_context(client)
        server = await stack.enter_async_context(await listener.accept())
        await proxy.wait_connections_made(1)
        yield Pair(proxy, client, server, listener)


async def receive(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            break
        data += more
    return data


async def test_bytes_pass_both_ways_and_are_counted():
    async with connected() as pair:
        await pair.client.send_all(b"question")
        assert await receive(pair.server, 8) == b"question"
        await pair.server.send_all(b"answer")
        assert await receive(pair.client, 6) == b"answer"
        await pair.proxy.wait_passed(TO_CLIENT, 6)
        assert pair.proxy.bytes_passed(TO_SERVER) == 8
        assert pair.proxy.bytes_passed(TO_CLIENT) == 6
        assert pair.proxy.connections_made == 1


async def test_an_end_passes_and_leaves_the_other_way_open():
    async with connected() as pair:
        await pair.client.send_eof()
        assert await pair.server.receive_some() == b""
        await pair.server.send_all(b"still here")
        assert await receive(pair.client, 10) == b"still here"


async def test_a_connection_that_both_sides_ended_is_forgotten():
    async with connected() as pair:
        await pair.client.aclose()
        assert await pair.server.receive_some() == b""
        await pair.server.aclose()
        await pair.proxy.wait_connections(0)


async def test_a_cut_resets_both_sides_at_once():
    async with connected() as pair:
        assert pair.proxy.cut() == 1
        assert pair.proxy.connections == 0
        for side in (pair.client, pair.server):
            with pytest.raises(trio.BrokenResourceError) as caught:
                await side.receive_some()
            assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_cut_reaches_a_connection_that_waits_to_send():
    async with connected() as pair:
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await pair.client.send_all(bytes(50_000_000))

            nursery.start_soon(flood)
            await pair.proxy.wait_passed(TO_SERVER, 100_000)
            await wait_all_tasks_blocked(0.05)
            assert pair.proxy.cut() == 1
        with pytest.raises(trio.BrokenResourceError):
            await receive(pair.server, 50_000_000)


async def test_after_a_cut_a_new_connection_passes():
    async with connected() as pair:
        pair.proxy.cut()
        async with await trio.open_tcp_stream("127.0.0.1", pair.proxy.port):
            await pair.proxy.wait_connections_made(2)
            assert pair.proxy.connections == 1


async def test_cut_on_passes_what_comes_before_the_pattern_and_nothing_after():
    async with connected() as pair:
        pair.proxy.cut_on(b"+ACK", TO_SERVER)
        await pair.client.send_all(b"one two +ACK three")
        assert await receive(pair.server, 100) == b"one two "
        with pytest.raises(trio.BrokenResourceError):
            await pair.client.receive_some()
        assert pair.proxy.connections == 0


async def test_cut_on_finds_a_pattern_that_comes_in_two_pieces():
    async with connected() as pair:
        pair.proxy.cut_on(b"+ACK", TO_SERVER)
        await pair.client.send_all(b"one +A")
        assert await receive(pair.server, 6) == b"one +A"
        await pair.client.send_all(b"CK two")
        assert await receive(pair.server, 100) == b""
        with pytest.raises(trio.BrokenResourceError):
            await pair.client.receive_some()


async def test_cut_on_cuts_once():
    async with connected() as pair:
        pair.proxy.cut_on(b"now", TO_CLIENT)
        await pair.server.send_all(b"now")
        assert await receive(pair.client, 3) == b""
        async with (
            await trio.open_tcp_stream("127.0.0.1", pair.proxy.port) as again,
            await pair.listener.accept() as server,
        ):
            await server.send_all(b"now")
            assert await receive(again, 3) == b"now"
            assert pair.proxy.connections == 1


async def test_cut_after_passes_exactly_that_many_bytes_and_cuts_once():
    async with connected() as pair:
        pair.proxy.cut_after(7, TO_SERVER)
        await pair.client.send_all(b"1234")
        assert await receive(pair.server, 4) == b"1234"
        await pair.client.send_all(b"5678")
        assert await receive(pair.server, 100) == b"567"
        with pytest.raises(trio.BrokenResourceError):
            await pair.client.receive_some()
        assert pair.proxy.connections == 0
        assert pair.proxy.bytes_passed(TO_SERVER) == 7
        async with await trio.open_tcp_stream("127.0.0.1", pair.proxy.port) as again:
            await again.send_all(b"many more than seven")
            await pair.proxy.wait_passed(TO_SERVER, 27)
            assert pair.proxy.connections == 1


async def test_cut_after_counts_one_direction_alone():
    async with connected() as pair:
        pair.proxy.cut_after(3, TO_CLIENT)
        await pair.client.send_all(b"question")
        assert await receive(pair.server, 8) == b"question"
        await pair.server.send_all(b"answer")
        assert await receive(pair.client, 100) == b"ans"
        with pytest.raises(trio.BrokenResourceError):
            await receive(pair.server, 1)


async def test_cut_after_cuts_when_what_is_held_is_released():
    async with connected() as pair:
        pair.proxy.hold()
        await pair.client.send_all(b"1234")
        await wait_all_tasks_blocked(0.01)
        pair.proxy.cut_after(2, TO_SERVER)
        pair.proxy.release()
        assert await receive(pair.server, 100) == b"12"


async def test_refused_connections_are_reset_and_open_ones_go_on():
    async with connected() as pair:
        pair.proxy.refuse()
        # The reset may come before the client has seen that it was connected.
        with pytest.raises((OSError, trio.BrokenResourceError)):
            async with await trio.open_tcp_stream("127.0.0.1", pair.proxy.port) as refused:
                await refused.receive_some()
        assert pair.proxy.connections_refused == 1
        await pair.client.send_all(b"hello")
        assert await receive(pair.server, 5) == b"hello"
        pair.proxy.accept()
        async with await trio.open_tcp_stream("127.0.0.1", pair.proxy.port):
            await pair.proxy.wait_connections_made(2)
            assert pair.proxy.connections == 2


async def test_what_is_held_is_passed_on_in_order_after_the_release():
    async with connected() as pair:
        pair.proxy.hold()
        await pair.client.send_all(b"1")
        await pair.server.send_all(b"a")
        await wait_all_tasks_blocked(0.01)
        assert pair.proxy.bytes_passed(TO_SERVER) == pair.proxy.bytes_passed(TO_CLIENT) == 0
        await pair.client.send_all(b"2")
        await pair.client.send_eof()
        pair.proxy.release()
        assert await receive(pair.server, 3) == b"12"
        assert await receive(pair.client, 1) == b"a"


async def test_one_direction_can_be_held_alone():
    async with connected() as pair:
        pair.proxy.hold(TO_CLIENT)
        await pair.client.send_all(b"question")
        assert await receive(pair.server, 8) == b"question"
        await pair.server.send_all(b"answer")
        await wait_all_tasks_blocked(0.01)
        assert pair.proxy.bytes_passed(TO_CLIENT) == 0
        pair.proxy.release(TO_CLIENT)
        assert await receive(pair.client, 6) == b"answer"


async def test_a_hold_stops_a_transfer_that_waits_for_room():
    async with connected() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.client.send_all, bytes(20_000_000))
        await pair.proxy.wait_passed(TO_SERVER, 100_000)
        await wait_all_tasks_blocked(0.05)
        pair.proxy.hold()
        passed = pair.proxy.bytes_passed(TO_SERVER)
        assert len(await receive(pair.server, passed)) == passed
        await wait_all_tasks_blocked(0.01)
        assert pair.proxy.bytes_passed(TO_SERVER) == passed
        pair.proxy.release()
        assert len(await receive(pair.server, 20_000_000 - passed)) == 20_000_000 - passed


async def test_a_held_connection_can_be_cut():
    async with connected() as pair:
        pair.proxy.hold()
        await pair.client.send_all(b"lost")
        await wait_all_tasks_blocked(0.01)
        assert pair.proxy.cut() == 1
        with pytest.raises(trio.BrokenResourceError):
            await pair.server.receive_some()


async def test_a_half_close_ends_one_direction_and_loses_what_comes_in_it():
    async with connected() as pair:
        pair.proxy.half_close(TO_CLIENT)
        assert await pair.client.receive_some() == b""
        await pair.server.send_all(b"lost")
        await pair.client.send_all(b"passes")
        assert await receive(pair.server, 6) == b"passes"
        assert pair.proxy.connections == 1
        assert pair.proxy.bytes_passed(TO_CLIENT) == 0


async def test_a_delay_holds_each_chunk_for_its_time():
    async with connected() as pair:
        pair.proxy.delay(0.05, TO_SERVER)
        began = trio.current_time()
        await pair.client.send_all(b"slow")
        assert await receive(pair.server, 4) == b"slow"
        assert trio.current_time() - began >= 0.05


async def test_nobody_behind_the_proxy_is_a_reset():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with open_proxy(port) as proxy:
        with pytest.raises((OSError, trio.BrokenResourceError)):
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as client:
                await client.receive_some()
        await proxy.wait_connections(0)
        assert proxy.connections_made == 0
