"""Reads a client's connections: answers go from the socket into one buffer, and from there.

Lives in the clients' loop. The client reads through asyncio's streams: what has come is copied into
a buffer, then out of it, cut up once more, and a task is woken for each answer, one pass of the
loop later. Answers to a fetch are megabytes, and each copy of them takes new pages from the system.
Here they are read into memory that is kept from one to the next, until a small one says that there
is no more of that; and an answer is taken where its last byte is read.

All else is the client's own: its protocol is told when the connection ends, and its task, which
goes on waiting for bytes that never come to it, then closes the connection as it would.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
import weakref
from typing import Any

from aiokafka.conn import AIOKafkaConnection, AIOKafkaProtocol, CloseReason
from aiokafka.protocol.fetch import FetchResponse_v11

logger = logging.getLogger("tbus.kafka")

SMALL = 8 * 1024
"""Bytes of the buffer of a connection by which nothing large comes."""

FETCH = 1
"""What a fetch is called. Source: Kafka's protocol guide, API keys."""

_LENGTH = 4
"""Bytes in front of an answer that tell its length."""

_PRIVATE = {"_handle_frame", "_last_action", "_protocol", "_reader", "_requests", "_writer"}


def read_answers(client: Any) -> None:
    """Have a client of aiokafka's read this way, by every connection that it makes from now on; one
    that is another one inside goes on in its own way."""
    if not _PRIVATE.issubset(
        (*AIOKafkaConnection.__init__.__code__.co_names, *dir(AIOKafkaConnection))
    ):
        return
    connect = client._get_conn

    async def get_connection(*args: Any, **kwargs: Any) -> Any:
        connection = await connect(*args, **kwargs)
        if connection is not None:
            _take_over(connection)
        return connection

    client._get_conn = get_connection


def _take_over(connection: Any) -> None:
    """Read what comes by a connection from now on, if nothing is on its way at the moment."""
    writer = connection._writer
    if (
        type(connection) is AIOKafkaConnection
        and writer is not None
        and not connection._requests
        and not connection._reader._buffer
        and type(writer.transport.get_protocol()) is AIOKafkaProtocol
    ):
        writer.transport.set_protocol(_Reading(connection))


class _Reading(asyncio.BufferedProtocol):
    """Reads for one connection, which it does not keep alive."""

    def __init__(self, connection: AIOKafkaConnection) -> None:
        self._connection = weakref.ref(connection)
        self._protocol = connection._protocol
        self._view = memoryview(bytearray(SMALL))
        self._end = 0
        """Of what has come, in the buffer."""

    # What has come

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where what comes next is to be put."""
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """So much has come."""
        end = self._end = self._end + nbytes
        at, view = 0, self._view
        length = 0
        while end - at >= _LENGTH:
            begin = at + _LENGTH
            length = int.from_bytes(view[at:begin])
            if end - begin < length:
                break
            at = begin + length
            self._handle(view[begin:at])
        self._keep(at, max(SMALL, _LENGTH + length))

    def _keep(self, at: int, size: int) -> None:
        """Have what is left from there on at the front of a buffer of at least `size` bytes."""
        left = self._view[at : self._end]
        self._end = len(left)
        if size > len(self._view) or size == SMALL < len(self._view):
            self._view = memoryview(bytearray(max(size, len(left))))
            self._view[: len(left)] = left
        elif at:
            self._view[: len(left)] = bytes(left)

    def _handle(self, answer: memoryview) -> None:
        connection: Any = self._connection()
        if connection is None or connection._reader is None:
            return  # it was closed
        try:
            request = connection._requests[0][1]
            ours = request is not None and (request.API_KEY == FETCH or len(answer) >= SMALL)
            if not (ours and self._take(connection, answer)):
                connection._handle_frame(bytes(answer))
        except Exception as error:  # noqa: BLE001 - as the client's own task does
            logger.warning("reading an answer: %r", error)
            connection.close(CloseReason.CONNECTION_BROKEN, error)

    def _take(self, connection: Any, answer: memoryview) -> bool:
        """What the client does with an answer, but without a copy of it; False if something is out
        of the ordinary, which is for the client to find."""
        expected, request, future = connection._requests[0]
        source = _Bytes(answer)
        if request.parse_response_header(source).correlation_id != expected:
            return False
        if not future.done():
            kind = request.RESPONSE_TYPE
            if kind is FetchResponse_v11 and _is_empty(fetched := source.left()):
                source = _Bytes(memoryview(bytes(fetched[:_BEFORE_TOPICS]) + _NO_TOPICS))
            future.set_result(kind.decode(source))
        connection._last_action = time.monotonic()
        connection._requests.popleft()
        return True

    # What the client's own protocol is told

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def eof_received(self) -> bool | None:
        stay: bool | None = self._protocol.eof_received()
        return stay

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)


class _Bytes:
    """Where the client's decoders read from: only what they take is copied."""

    __slots__ = ("_at", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def read(self, size: int | None = None) -> bytes:
        """So many bytes; without a number all that are left."""
        at = self._at
        self._at = len(self._view) if size is None else at + size
        return bytes(self._view[at : self._at])

    def left(self) -> memoryview:
        """What was not taken yet."""
        return self._view[self._at :]


_HEAD = struct.Struct(">ihii")
"""Of an answer to a fetch: throttle, error, session, count of topics."""
_PARTITION = struct.Struct(">ihqqqiii")
"""Number, error, three offsets, count of aborted transactions, replica, bytes of records."""
_NO_TOPICS = bytes(4)
_BEFORE_TOPICS = _HEAD.size - len(_NO_TOPICS)


def _is_empty(fetched: memoryview) -> bool:
    """Whether an answer brings nothing, not even an error. An idle reader is told so of each of its
    partitions, several times a second; the client, which does nothing with it, would take ten
    times as long to find out."""
    try:
        _, error, _, topics = _HEAD.unpack_from(fetched)
        at = _HEAD.size
        for _ in range(topics):
            at += 2 + int.from_bytes(fetched[at : at + 2])
            count = int.from_bytes(fetched[at : at + 4])
            at += 4
            if at > len(fetched):
                return False  # whatever number of topics it speaks of
            for _ in range(count):
                about = _PARTITION.unpack_from(fetched, at)
                if about[1] or about[5] > 0 or about[7] > 0:
                    return False
                at += _PARTITION.size
    except struct.error:
        return False
    return not error and at == len(fetched)
