"""How a client's connections are read: whatever the pieces, the same answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from aiokafka import errors as kafka
from aiokafka.conn import AIOKafkaConnection, AIOKafkaProtocol
from aiokafka.protocol.fetch import FetchRequest_v11, FetchResponse_v11
from hypothesis import given
from hypothesis import strategies as st

from tbus.transports.kafka._produce import Answerable
from tbus.transports.kafka._reading import SMALL, _is_empty, _Reading, read_answers

RECORDS = bytes(range(256)) * 100
SESSION = 7
QUESTION = FetchRequest_v11(-1, 1, 1, 1, 0, 0, -1, [], [], "")


class Heard:
    """A connection that remembers what it is told."""

    def __init__(self) -> None:
        self._reader: Any = self
        self._protocol: Any = self
        self._requests = [(None, None, None)]
        self.answers: list[bytes] = []
        self.closed = False

    def _handle_frame(self, answer: bytes) -> None:
        self.answers.append(answer)
        if answer == b"broken":
            raise ValueError("no answer")

    def close(self, reason: object, error: Exception) -> None:
        assert reason is not None
        assert error is not None
        self.closed = True
        self._reader = None


def framed(answers: Iterable[bytes]) -> bytes:
    return b"".join(len(one).to_bytes(4) + one for one in answers)


def feed(reading: _Reading, data: bytes, cuts: Iterable[int] = ()) -> None:
    """As an event loop does, which never gives more than there is room for."""
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    at = 0
    for end in ends:
        while at < end:
            room = reading.get_buffer(-1)
            assert room, "an event loop takes an empty buffer for an error"
            size = min(len(room), end - at)
            room[:size] = data[at : at + size]
            reading.buffer_updated(size)
            at += size


lengths = st.integers(0, 40) | st.integers(SMALL - 6, SMALL + 6) | st.integers(0, 5 * SMALL)


@given(st.lists(lengths, max_size=12), st.lists(st.integers(0, 1 << 18), max_size=12))
def test_answers_are_the_same_wherever_they_are_cut(sizes, cuts):
    answers = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    connection = Heard()
    reading = _Reading(connection)
    feed(reading, framed(answers), cuts)
    assert connection.answers == answers


def test_the_memory_of_large_answers_is_kept_until_a_small_one_comes():
    connection = Heard()
    reading = _Reading(connection)
    feed(reading, framed([b"x" * 50 * SMALL]))
    large = reading.get_buffer(-1).obj
    feed(reading, framed([b"y" * 49 * SMALL]))
    assert reading.get_buffer(-1).obj is large
    feed(reading, framed([b"z"]))
    assert len(reading.get_buffer(-1)) == SMALL
    assert [len(answer) for answer in connection.answers] == [50 * SMALL, 49 * SMALL, 1]


def test_an_answer_that_nobody_understands_closes_the_connection_and_nothing_more_is_taken():
    connection = Heard()
    reading = _Reading(connection)
    feed(reading, framed([b"fine", b"broken", b"late"]))
    assert connection.answers == [b"fine", b"broken"]
    assert connection.closed


def fetched(
    correlation: int, records: bytes | None = RECORDS, *, error: int = 0, aborted: Any = None
) -> bytes:
    about = (0, 9, 9, 0, None, -1, b"")
    parts = [(3, *about), (4, error, 9, 9, 0, aborted, -1, records)]
    body: bytes = FetchResponse_v11(0, 0, SESSION, [("s", [(0, *about)]), ("t", parts)]).encode()
    return correlation.to_bytes(4) + body


def with_connection(number: int) -> tuple[Any, asyncio.Future[Any]]:
    """A connection by which a fetch is under way."""
    loop = asyncio.get_running_loop()
    connection: Any = AIOKafkaConnection("nowhere", 9)
    future: asyncio.Future[Any] = loop.create_future()
    connection._requests.append((number, QUESTION, future))
    connection._reader = asyncio.StreamReader()
    return connection, future


def test_what_was_fetched_is_decoded_out_of_the_buffer():
    async def main() -> None:
        connection, future = with_connection(7)
        before, connection._last_action = connection._last_action, 0.0
        feed(_Reading(connection), framed([fetched(7)]), range(0, 30_000, 1000))
        [_, (topic, parts)] = future.result().topics
        assert topic == "t"
        assert parts[1] == (4, 0, 9, 9, 0, None, -1, RECORDS)
        assert not connection._requests
        assert connection._last_action >= before
        connection._reader = None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (fetched(7, b""), []),
        (fetched(7, None), []),
        (fetched(7, b"x"), ["s", "t"]),
        (fetched(7, b"", error=3), ["s", "t"]),
        (fetched(7, b"", aborted=[(1, 2)]), ["s", "t"]),
        ((7).to_bytes(4) + FetchResponse_v11(0, 0, SESSION, []).encode(), []),
    ],
)
def test_that_there_is_nothing_new_is_told_about_no_partition_and_all_else_about_each(answer, told):
    async def main() -> None:
        connection, future = with_connection(7)
        feed(_Reading(connection), framed([answer]))
        response = future.result()
        assert type(response) is FetchResponse_v11
        assert response.session_id == SESSION
        assert [topic for topic, _ in response.topics] == told
        connection._reader = None

    asyncio.run(main())


def test_a_long_answer_about_stored_batches_comes_whole():
    async def main() -> None:
        connection, _ = with_connection(7)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        connection._requests[0] = (7, Answerable(), future)
        feed(_Reading(connection), framed([(7).to_bytes(4) + RECORDS]))
        assert future.result() == RECORDS
        connection._reader = None

    assert len(RECORDS) > SMALL
    asyncio.run(main())


def test_an_answer_that_speaks_of_millions_of_topics_is_not_gone_through():
    answer = bytes(10) + (2**31 - 1).to_bytes(4)
    assert not _is_empty(memoryview(answer))


def test_an_answer_to_another_question_is_told_in_the_clients_own_way():
    async def main() -> None:
        connection, future = with_connection(7)
        closed: list[object] = []

        def close(reason: object) -> None:
            closed.append(reason)

        connection.close = close
        feed(_Reading(connection), framed([fetched(8)]))
        with pytest.raises(kafka.CorrelationIdError):
            future.result()
        assert closed
        connection._reader = None

    asyncio.run(main())


def test_connections_of_a_client_are_read_this_way_and_end_as_its_own_do():
    async def main() -> None:
        served: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.set_result(writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        loop = asyncio.get_running_loop()

        class Client:
            """Connects as the client's connection does, without the first questions."""

            async def _get_conn(self, _: int) -> Any:
                connection: Any = AIOKafkaConnection(*server.sockets[0].getsockname())
                connection._closed_fut = loop.create_future()
                reader = asyncio.StreamReader()
                protocol = AIOKafkaProtocol(connection._closed_fut, reader, loop=loop)
                transport, _ = await loop.create_connection(
                    lambda: protocol, connection.host, connection.port
                )
                writer = asyncio.StreamWriter(transport, protocol, reader, loop)
                connection._reader, connection._writer = reader, writer
                connection._protocol = protocol
                connection._read_task = connection._create_reader_task()
                return connection

        client = Client()
        read_answers(client)
        connection = await client._get_conn(1)
        assert type(connection._writer.transport.get_protocol()) is _Reading
        future: asyncio.Future[Any] = loop.create_future()
        connection._requests.append((7, QUESTION, future))
        broker = await served
        broker.write(framed([fetched(7)]))
        assert (await future).topics[1][0] == "t"
        lost: asyncio.Future[Any] = loop.create_future()
        connection._requests.append((8, QUESTION, lost))
        broker.close()
        with pytest.raises(kafka.KafkaConnectionError):
            await lost
        assert not connection.connected()
        await connection.close()
        server.close()

    asyncio.run(asyncio.wait_for(main(), 10))
