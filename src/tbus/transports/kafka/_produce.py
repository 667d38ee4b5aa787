"""A request to store batches, and its answer, in bytes.

The client's own encoder and decoder go through a description of the protocol, field by field, in
Python: a third of what publishing costs the clients' loop when 100 tasks wait for their receipts.
Source: Kafka's protocol guide, Produce, versions 3 to 7, which are requested alike.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import attrs
from aiokafka.protocol import produce
from aiokafka.structs import TopicPartition

PRODUCE = 0
"""What the request is called."""

VERSIONS = range(3, 8)
"""What is spoken here. The client speaks no later one."""

_HEAD = struct.Struct(">ihhih")
"""Length of all that follows, name, version, number, length of the client's name."""
_TERMS = struct.Struct(">hhii")
"""No transaction, acknowledgements, milliseconds, count of topics."""
_BATCH = struct.Struct(">ii")
"""Partition, length."""
_STORED = struct.Struct(">ihqq")
"""Of an answer: partition, error, offset, time."""
_BEGIN = 8
"""Bytes of an answer's partition more, from version 5 on: where its log begins."""


@attrs.frozen
class Terms:
    """What all requests by a connection have in common."""

    version: int
    client: bytes
    acks: int
    timeout: int

    def encode(self, number: int, batches: Iterable[tuple[TopicPartition, bytes]]) -> bytes:
        """A request of that number, with its length in front."""
        topics: dict[str, list[bytes]] = {}
        for partition, records in batches:
            parts = topics.get(partition.topic)
            if parts is None:
                parts = topics[partition.topic] = []
            parts.append(_BATCH.pack(partition.partition, len(records)))
            parts.append(records)
        chunks = [b"", self.client, _TERMS.pack(-1, self.acks, self.timeout, len(topics))]
        for topic, parts in topics.items():
            name = topic.encode()
            chunks.append(len(name).to_bytes(2) + name + (len(parts) // 2).to_bytes(4))
            chunks += parts
        length = _HEAD.size - 4 + sum(map(len, chunks))
        chunks[0] = _HEAD.pack(length, PRODUCE, self.version, number, len(self.client))
        return b"".join(chunks)


@attrs.frozen
class _Header:
    correlation_id: int


@attrs.frozen
class Answerable:
    """What the client keeps of a request, to read its answer by: all of it, as it came."""

    API_KEY = PRODUCE

    @property
    def RESPONSE_TYPE(self) -> Answerable:  # noqa: N802 - the client's name
        return self

    def parse_response_header(self, source: Any) -> _Header:
        return _Header(int.from_bytes(source.read(4)))

    def decode(self, source: Any) -> bytes:
        answer: bytes = source.read()
        return answer


def stored_at(answer: bytes, version: int) -> dict[tuple[str, int], int] | None:
    """Where each batch of a request begins, by topic and partition; None unless all is stored, or
    if it cannot be read: then it is for the client to say why not."""
    try:
        return _read(answer, version)
    except (struct.error, UnicodeDecodeError):
        return None


def _read(answer: bytes, version: int) -> dict[tuple[str, int], int] | None:
    found: dict[tuple[str, int], int] = {}
    step = _STORED.size + (_BEGIN if version >= 5 else 0)
    at = 4
    for _ in range(int.from_bytes(answer[:at])):
        begin = at + 2
        end = begin + int.from_bytes(answer[at:begin])
        topic = answer[begin:end].decode()
        at = end + 4
        if at > len(answer):
            return None  # whatever number of topics it speaks of
        for _ in range(int.from_bytes(answer[end:at])):
            partition, error, offset, _ = _STORED.unpack_from(answer, at)
            if error:
                return None
            found[topic, partition] = offset
            at += step
    return found


def decode(answer: bytes, version: int) -> Any:
    """An answer as the client decodes it."""
    return getattr(produce, f"ProduceResponse_v{version}").decode(BytesIO(answer))
