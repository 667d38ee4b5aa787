"""What a NATS connection carries is cut into the messages that it holds, however it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from tbus.transports.nats import _parser
from tbus.transports.nats._parser import MessageParser

Got = tuple[bytes, bytes, bytes, bytes | None]

SUBJECTS = st.text("abcXYZ019._$*>-", min_size=1, max_size=20).map(str.encode)


class Client:
    """What nats-py's parser asks of its client."""

    def __init__(self) -> None:
        self.told: list[object] = []

    async def _process_ping(self) -> None:
        self.told.append("ping")

    async def _process_pong(self) -> None:
        self.told.append("pong")

    async def _process_err(self, text: str) -> None:
        self.told.append(text)

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.told.append(info)


def parser_into(told: list[object], client: Client | None = None) -> MessageParser:
    client = client or Client()
    client.told = told
    parser = MessageParser(client)

    def receive(subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        told.append((subject, reply, data, headers))

    parser.receivers[b"7"] = receive
    return parser


def run(step: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """No step waits for anything: so it needs no loop."""
    with pytest.raises(StopIteration):
        step().send(None)


def wire(message: Got) -> bytes:
    subject, reply, data, headers = message
    to = b" ".join(word for word in (subject, b"7", reply) if word)
    if headers is None:
        return b"MSG %b %d\r\n%b\r\n" % (to, len(data), data)
    return b"HMSG %b %d %d\r\n%b%b\r\n" % (
        to, len(headers), len(headers) + len(data), headers, data,
    )  # fmt: skip


MESSAGES = st.tuples(
    SUBJECTS,
    st.one_of(st.just(b""), SUBJECTS),
    st.binary(max_size=50) | st.sampled_from([b"PING\r\n", b"MSG a 7 3\r\n", b"\r\n\r\n"]),
    st.none() | st.sampled_from([b"NATS/1.0\r\n\r\n", b"NATS/1.0 503\r\nA: b\r\n\r\n"]),
)
OTHERS: dict[bytes, object] = {
    b"PING\r\n": "ping",
    b"PONG\r\n": "pong",
    b"-ERR 'Stale Connection'\r\n": "'stale connection'",
    b'INFO {"port": 1}\r\n': {"port": 1},
}


@given(
    st.lists(MESSAGES | st.sampled_from([*OTHERS, b"+OK\r\n"]), max_size=8),
    st.lists(st.integers(1, 40)),
)
@example([(b"s", b"r", b"x" * 500, b"NATS/1.0\r\n\r\n")], [1] * 600)
def test_every_message_and_line_comes_in_order_however_the_bytes_are_read(parts, sizes):
    told: list[object] = []
    parser = parser_into(told)
    stream = b"".join(part if isinstance(part, bytes) else wire(part) for part in parts)
    for size in [*sizes, len(stream)]:
        run(partial(parser.parse, stream[:size]))
        stream = stream[size:]
    wanted = [OTHERS.get(part) if isinstance(part, bytes) else part for part in parts]
    assert told == [one for one in wanted if one is not None]


def test_a_message_for_nobody_is_dropped_and_what_follows_is_not():
    told: list[object] = []
    run(lambda: parser_into(told).parse(b"MSG a 8 2\r\nhi\r\nMSG a 7 2\r\nho\r\n"))
    assert told == [(b"a", b"", b"ho", None)]


def test_a_large_message_is_put_together_once_not_at_every_read(monkeypatch):
    # Counted: how often the bytes that wait are looked at.
    told: list[object] = []
    parser = parser_into(told)
    run(lambda: parser.parse(b"MSG a 7 1000000\r\n"))
    joined: list[int] = []

    def join(rest: bytearray) -> bytes:
        joined.append(len(rest))
        return bytes(rest)

    monkeypatch.setattr(_parser, "bytes", join, raising=False)
    for _ in range(1000):
        run(lambda: parser.parse(b"x" * 1000))
    assert not told
    run(lambda: parser.parse(b"\r\n"))
    assert told == [(b"a", b"", b"x" * 1_000_000, None)]
    assert joined == [1_000_019]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"MSG a 7 many\r\n",
        b"HMSG a 7 x 3\r\n",
        b"MSG a 7\r\n",
        b"MSG a 7 -5\r\n",
        b"HMSG a 7 -5 3\r\n",
        b"HMSG a 7 5 3\r\n",
        b"MSG\ta 7 3\r\n",
        b"MSG a b c d e f g\r\n",
        b"INFO {not json}\r\n",
        b"-ERR \r\n",
        b"x" * 5000 + b"\r\n",
        b"\r\n",
    ],
)
async def test_what_is_no_line_of_nats_is_a_protocol_error(rubbish):
    with pytest.raises(ProtocolError):
        parser_into([]).parse(rubbish).send(None)


async def test_a_line_without_an_end_is_refused_once_it_is_too_long(monkeypatch):
    monkeypatch.setattr(_parser, "LONGEST_LINE", 100)
    parser = parser_into([])
    for _ in range(10):
        run(lambda: parser.parse(b"x" * 10))
    with pytest.raises(ProtocolError):
        parser.parse(b"x").send(None)


def test_what_a_receiver_raises_is_raised_in_the_loop_and_the_next_message_comes():
    raised: list[object] = []
    told: list[object] = []

    def fail(*_: object) -> None:
        raise LookupError("nobody expected this")

    async def read() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: raised.append(context["exception"]))
        parser = parser_into(told)
        parser.receivers[b"8"] = fail
        await parser.parse(b"MSG a 8 2\r\nhi\r\nMSG a 7 2\r\nho\r\n")
        await asyncio.sleep(0)

    asyncio.run(read())
    assert told == [(b"a", b"", b"ho", None)]
    assert [str(error) for error in raised] == ["nobody expected this"]


def test_another_connection_begins_with_nothing_of_the_last_one():
    told: list[object] = []
    parser = parser_into(told)
    run(lambda: parser.parse(b"MSG a 7 100\r\nbegun"))
    parser.reset()
    run(lambda: parser.parse(b"MSG a 7 2\r\nhi\r\n"))
    assert told == [(b"a", b"", b"hi", None)]
    assert asyncio.iscoroutinefunction(parser.parse)  # as the client awaits it
