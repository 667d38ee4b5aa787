"""The one question that tells whether a Kafka broker is ready, in bytes: no I/O.

A Metadata request of version 2, which brokers from 0.10.1 on understand; its layout is
that of Kafka's protocol guide. A broker that is starting takes the connection and answers
once it may serve clients.
"""

from __future__ import annotations

import struct

import attrs

_METADATA = 3
_VERSION = 2
_CORRELATION = 1
_LENGTH = struct.Struct(">i")
# More is no answer to this question, but some other server's idea of a greeting.
LARGEST = 1 << 20


class NotKafka(ValueError):
    """What came is no answer to the question."""


@attrs.frozen
class Metadata:
    """What a broker says of its cluster.

    Attributes:
        cluster: the cluster's id.
        brokers: where each broker is to be found, by its id.
        controller: the id of the broker that is told to be the controller; -1: none.
    """

    cluster: str | None
    brokers: dict[int, tuple[str, int]]
    controller: int


def metadata_request() -> bytes:
    """The question, without any topic."""
    client = b"tbus"
    body = struct.pack(
        f">hhih{len(client)}si", _METADATA, _VERSION, _CORRELATION, len(client), client, 0
    )
    return _LENGTH.pack(len(body)) + body


def answer_length(head: bytes) -> int:
    """How many bytes follow the four that an answer begins with.

    Raises:
        NotKafka: these are no answer's.
    """
    (length,) = _LENGTH.unpack(head)
    if not 4 <= length <= LARGEST:
        raise NotKafka(f"it began its answer with {head!r}")
    return int(length)


def parse_metadata(body: bytes) -> Metadata:
    """Read an answer, without its length.

    Raises:
        NotKafka: it is none.
    """
    try:
        answer = _Reader(body)
        if answer.number(">i") != _CORRELATION:
            raise NotKafka("it answers another question")
        brokers: dict[int, tuple[str, int]] = {}
        for _ in range(answer.number(">i")):
            node, host, port = answer.number(">i"), answer.text(), answer.number(">i")
            brokers[node] = host or "", port
            answer.text()  # the rack
        return Metadata(answer.text(), brokers, answer.number(">i"))
    except (struct.error, UnicodeDecodeError) as error:
        raise NotKafka(f"it answered {body[:80]!r}") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def text(self) -> str | None:
        length = self.number(">h")
        if length < 0:
            return None
        (value,) = struct.unpack_from(f"{length}s", self._data, self._at)
        self._at += length
        return bytes(value).decode()
