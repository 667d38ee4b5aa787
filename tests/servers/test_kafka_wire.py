"""Reading what a Kafka broker says of its cluster."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus.servers._kafka_wire import (
    LARGEST,
    Metadata,
    NotKafka,
    answer_length,
    metadata_request,
    parse_metadata,
)


def text(value: str | None) -> bytes:
    if value is None:
        return struct.pack(">h", -1)
    return struct.pack(">h", len(value.encode())) + value.encode()


def written(metadata: Metadata) -> bytes:
    """As a broker writes it, by the protocol guide; then the topics, of which it has none."""
    body = struct.pack(">ii", 1, len(metadata.brokers))
    for node, (host, port) in metadata.brokers.items():
        body += struct.pack(">i", node) + text(host) + struct.pack(">i", port) + text(None)
    return body + text(metadata.cluster) + struct.pack(">ii", metadata.controller, 0)


int32 = st.integers(-(2**31), 2**31 - 1)
metadata = st.builds(
    Metadata,
    cluster=st.none() | st.text(max_size=40),
    brokers=st.dictionaries(int32, st.tuples(st.text(max_size=20), int32), max_size=4),
    controller=int32,
)


@given(metadata)
def test_what_a_broker_writes_is_read(value: Metadata) -> None:
    assert parse_metadata(written(value)) == value


@given(metadata, st.data())
def test_an_answer_that_was_cut_short_is_none(value: Metadata, data: st.DataObject) -> None:
    body = written(value)[:-4]
    with pytest.raises(NotKafka):
        parse_metadata(body[: data.draw(st.integers(0, len(body) - 1))])


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_is_no_answer(body: bytes) -> None:
    try:
        parse_metadata(struct.pack(">i", 1) + body)
    except NotKafka:
        pass


def test_an_answer_to_another_question_is_none() -> None:
    with pytest.raises(NotKafka, match="another question"):
        parse_metadata(struct.pack(">i", 2) + written(Metadata("c", {}, 1))[4:])


@pytest.mark.parametrize("head", [b"HTTP", b"INFO", b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_the_beginning_of_something_else_is_no_length(head: bytes) -> None:
    with pytest.raises(NotKafka):
        answer_length(head)


def test_the_largest_length_is_one() -> None:
    assert answer_length(struct.pack(">i", LARGEST)) == LARGEST


def test_the_question_tells_its_own_length() -> None:
    question = metadata_request()
    assert struct.unpack(">i", question[:4]) == (len(question) - 4,)
