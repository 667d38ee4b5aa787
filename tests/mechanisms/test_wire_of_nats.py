"""What the NATS transport writes and reads, without a server: names, headers, commands,
the configuration of streams."""

from __future__ import annotations

import string
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus._topic import TopicOptions, check_topic
from tbus.transports.nats._headers import decode_headers, decode_status, encode_headers
from tbus.transports.nats._names import consumer_name, stream_name, topic_of_stream
from tbus.transports.nats._session import publish_command
from tbus.transports.nats._streams import to_config, to_options

token = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=8)
names = st.lists(token, min_size=1, max_size=4).map(".".join)
header_names = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=":"),
    min_size=1,
    max_size=12,
).filter(lambda name: not name.startswith("Nats-") and name != "X-Aggregate-ID")
header_values = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=30
).map(str.strip)
pairs = st.lists(st.tuples(header_names, header_values), max_size=5).map(tuple)


# --- names ---


@given(names)
def test_a_streams_name_is_turned_back_into_its_topic(topic: str) -> None:
    check_topic(topic)
    stream = stream_name(topic)
    assert not set(stream) & set(". *>/\\")
    assert topic_of_stream(stream) == topic


@given(names, names, st.none() | st.integers(0, 99), st.none() | st.integers(0, 99))
def test_two_groups_or_partitions_never_share_a_consumer(
    one: str, other: str, first: int | None, second: int | None
) -> None:
    same = consumer_name(one, first) == consumer_name(other, second)
    assert same is ((one, first) == (other, second))
    assert not set(consumer_name(one, first)) & set(". *>/\\")


@pytest.mark.parametrize("between", ["", ".", "_", "-", "--"])
def test_a_groups_name_cannot_look_like_a_partition_of_another(between: str) -> None:
    assert consumer_name("billing", 1) != consumer_name(f"billing{between}1")


# --- headers ---


@given(pairs, st.none() | st.text(string.printable.strip(), min_size=1))
def test_headers_come_back_in_order_with_every_repeat_and_nothing_of_our_own(
    headers: Any, key: str | None
) -> None:
    block = encode_headers(headers, "id-1", key)
    assert decode_headers(block) == (headers, key)


def test_a_header_that_comes_twice_comes_twice() -> None:
    headers = (("via", "a"), ("Via", "b"), ("via", "a"))
    assert decode_headers(encode_headers(headers, "id", None)) == (headers, None)


@given(pairs, st.uuids().map(str))
def test_the_block_is_what_the_protocol_asks_for(headers: Any, message_id: str) -> None:
    block = encode_headers(headers, message_id, "k")
    assert block.startswith(b"NATS/1.0\r\n")
    assert block.endswith(b"\r\n\r\n")
    lines = block[: -len(b"\r\n\r\n")].split(b"\r\n")[1:]
    assert lines.count(f"Nats-Msg-Id: {message_id}".encode()) == 1
    assert len(lines) == 2 + len(headers)


@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r"])
def test_an_id_that_another_program_gave_makes_no_header_of_its_own(line_end: str) -> None:
    block = encode_headers((("a", "b"),), f"id{line_end}Nats-Rollup: all", None)
    assert decode_headers(block) == ((("a", "b"),), None)
    lines = block.decode().splitlines()
    assert lines == ["NATS/1.0", lines[1], "a: b", ""]
    other = encode_headers((("a", "b"),), f"id2{line_end}Nats-Rollup: all", None)
    assert other != block  # it is still known by its id


@pytest.mark.parametrize("block", [None, encode_headers((), "id", None)])
def test_an_event_without_headers_has_none(block: bytes | None) -> None:
    assert decode_headers(block) == ((), None)


def test_headers_from_another_program_are_read_however_they_are_spaced() -> None:
    block = b"NATS/1.0\r\nA:1\r\nb:   2  \r\nno colon\r\nc: x:y\r\nX-Aggregate-ID:k\r\n\r\n"
    assert decode_headers(block) == ((("A", "1"), ("b", "2"), ("c", "x:y")), "k")


def test_the_servers_own_headers_are_not_the_users() -> None:
    block = b"NATS/1.0\r\nNats-Msg-Id: 1\r\nNats-Pin-Id: p\r\nown: 1\r\n\r\n"
    assert decode_headers(block) == ((("own", "1"),), None)


def test_bytes_that_are_no_utf8_are_read_all_the_same() -> None:
    (pair,), _ = decode_headers(b"NATS/1.0\r\na: \xff\r\n\r\n")
    assert pair == ("a", "\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    ("block", "status", "text", "fields"),
    [
        (b"NATS/1.0 503\r\n\r\n", "503", "", {}),
        (b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", "100", "Idle Heartbeat", {}),
        (b"NATS/1.0 409 Consumer Deleted\r\n\r\n", "409", "Consumer Deleted", {}),
        (
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\nNats-Last-Stream: 9\r\n\r\n",
            "100",
            "Idle Heartbeat",
            {"Nats-Last-Consumer": "7", "Nats-Last-Stream": "9"},
        ),
        (b"NATS/1.0\r\nA: 1\r\n\r\n", "", "", {"A": "1"}),
    ],
)
def test_a_status_is_read_with_its_description_and_fields(
    block: bytes, status: str, text: str, fields: dict[str, str]
) -> None:
    assert decode_status(block) == (status, text, fields)


# --- commands ---


def parse_publish(command: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Subject, reply, header block and payload, by the sizes that the line tells."""
    line, _, rest = command.partition(b"\r\n")
    verb, subject, *reply, total = line.split(b" ")
    header_size = 0
    if verb == b"HPUB":
        header_size = int(reply.pop())
    else:
        assert verb == b"PUB"
    assert rest[int(total) :] == b"\r\n"
    assert len(reply) <= 1
    return subject, b"".join(reply), rest[:header_size], rest[header_size : int(total)]


@given(names, st.binary(max_size=50), st.just("") | names, st.just(()) | pairs, st.booleans())
def test_a_publish_says_exactly_how_long_it_is(
    subject: str, payload: bytes, reply: str, headers: Any, with_headers: bool
) -> None:
    block = encode_headers(headers, "id", None) if with_headers else b""
    command = publish_command(subject, payload, reply=reply, headers=block)
    assert parse_publish(command) == (subject.encode(), reply.encode(), block, payload)


# --- streams ---

seconds = st.integers(1, 10**7).map(float)
options = st.builds(
    TopicOptions,
    partitions=st.integers(1, 50),
    replicas=st.integers(1, 5),
    storage=st.sampled_from(["file", "memory"]),
    retention_time=st.none() | seconds,
    max_bytes=st.none() | st.integers(1, 2**40),
    max_messages=st.none() | st.integers(1, 10**9),
    compression=st.sampled_from(["none", "snappy"]),
    description=st.text(max_size=20),
    duplicate_window=seconds,
)


@given(options)
def test_a_stream_says_what_its_topic_was_asked_to_be(wanted: TopicOptions) -> None:
    found = to_options(to_config("s", "t", "t", wanted))
    # The server takes no window that is longer than the age.
    window = min(wanted.duplicate_window, wanted.retention_time or wanted.duplicate_window)
    assert found == attrs.evolve(wanted, duplicate_window=window)


@given(options)
def test_no_stream_of_ours_loses_anything(wanted: TopicOptions) -> None:
    config = to_config("s", "t", "t", wanted)
    assert config["retention"] == "limits"
    assert config["discard"] == "new"
    assert config["max_consumers"] == -1
    (subject,) = config["subjects"]
    # No other topic's events: a topic's name has no `+`.
    assert subject == ("t" if wanted.partitions == 1 else f"t.+{wanted.partitions}.*")
    assert config["metadata"]["tbus.topic"] == "t"


@pytest.mark.parametrize("compression", ["gzip", "gzip:6", "lz4", "zstd:3", "s2", "snappy"])
def test_any_compression_is_the_one_that_the_server_has(compression: str) -> None:
    config = to_config("s", "t", "t", TopicOptions(compression=compression))
    assert config["compression"] == "s2"


def test_a_stream_that_somebody_else_made_can_be_read() -> None:
    assert to_options({"name": "s"}) == TopicOptions(retention_time=None, duplicate_window=0)
