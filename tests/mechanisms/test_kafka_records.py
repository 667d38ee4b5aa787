"""From an event to a Kafka record and back: key, value, headers, bytes."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus import Envelope
from tbus._message import Delivery, Headers, Position
from tbus._transport import Outgoing
from tbus.transports.kafka._records import (
    MIRROR,
    decode_headers,
    encode_headers,
    encode_key,
    to_deliveries,
)

# What Kafka takes in a header's name is a string without lone surrogates.
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.text(max_size=20).filter(lambda text: not _has_other_surrogates(text))
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=6).map(tuple)


def _has_other_surrogates(text: str) -> bool:
    """Others than those that stand for bytes which are no UTF-8."""
    return any(0xD800 <= ord(one) <= 0xDFFF and not 0xDC80 <= ord(one) <= 0xDCFF for one in text)


class Parsed(NamedTuple):
    offset: int = 7
    timestamp: int = 1_700_000_000_123
    key: bytes | None = None
    value: bytes | None = b""
    headers: tuple[tuple[str, bytes | None], ...] = ()


def outgoing(body: bytes = b"", headers: Headers = (), key: str | None = None) -> Outgoing:
    return Outgoing("t", body, key, headers, "the-id", 1.0, lambda *_: None)


def enveloped(envelope: Envelope, headers: Headers = ()) -> Outgoing:
    event = outgoing(envelope.encode(), headers, envelope.aggregate_id)
    event.id = envelope.event_id
    event.envelope = envelope
    return event


def only(record: Parsed) -> Delivery:
    (delivery,) = to_deliveries(3, 5, [record])
    return delivery


@given(PAIRS)
def test_headers_come_back_as_they_were_given(pairs):
    headers, _ = encode_headers(outgoing(headers=pairs))
    back, by_tbus = decode_headers(headers)
    assert by_tbus
    # Bytes that together are UTF-8 after all come back as what they say.
    assert [name for name, _ in back] == [name for name, _ in pairs]
    assert [_bytes(value) for _, value in back] == [_bytes(value) for _, value in pairs]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@given(PAIRS, st.booleans())
def test_the_size_of_headers_is_never_less_than_they_take(pairs, as_envelope):
    given = (
        enveloped(Envelope.new("a", "E", {}, event_version=2**63 - 1, trace_id="t"), pairs)
        if as_envelope
        else outgoing(headers=pairs)
    )
    headers, size = encode_headers(given)
    assert size >= sum(len(name) + len(value) + 4 for name, value in headers)


def test_headers_of_an_envelope_mirror_its_fields_under_the_names_of_the_other_services():
    envelope = Envelope.new(
        "order-1",
        "OrderPlaced",
        {"total": 42},
        event_version=3,
        trace_id="trace",
        correlation_id="correlation",
        tenant_id=9,
    )
    headers, _ = encode_headers(enveloped(envelope, (("X-Event-Type", "mine"),)))
    assert headers == [
        (MIRROR, b"7"),
        ("X-Event-ID", envelope.event_id.encode()),
        ("X-Aggregate-ID", b"order-1"),
        ("X-Event-Version", b"3"),
        ("X-Event-Type", b"OrderPlaced"),
        ("X-Trace-ID", b"trace"),
        ("X-Correlation-ID", b"correlation"),
        ("X-Tenant-ID", b"9"),
        ("X-Event-Type", b"mine"),
    ]
    assert decode_headers(headers) == ((("X-Event-Type", "mine"),), True)


def test_a_publisher_may_use_the_mirror_s_own_name():
    pairs = ((MIRROR, "1"), (MIRROR, "99"), ("a", ""))
    headers, _ = encode_headers(outgoing(headers=pairs))
    assert decode_headers(headers) == (pairs, True)


@pytest.mark.parametrize(
    "count",
    [b"", b"-1", b"many", None, "²".encode(), b"1.0", pytest.param(b"9" * 5000, id="too long")],
)
def test_a_mirror_that_no_tbus_has_written_is_the_publisher_s_own(count):
    headers = ((MIRROR, count), ("a", b"1"))
    back, by_tbus = decode_headers(headers)
    assert not by_tbus
    assert [name for name, _ in back] == [MIRROR, "a"]


def test_a_mirror_that_claims_more_headers_than_there_are_leaves_none():
    assert decode_headers(((MIRROR, b"99"), ("a", b"1"))) == ((), True)


def test_headers_of_other_programs_may_be_null_or_no_text():
    headers = (("null", None), ("bytes", b"\xff\xfe"), ("null", b"again"))
    back, by_tbus = decode_headers(headers)
    assert not by_tbus
    assert back[0] == ("null", "")
    assert back[1][1].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert back[2] == ("null", "again")


@given(st.binary(max_size=40))
def test_a_key_of_any_bytes_is_the_same_bytes_when_it_is_published_again(key):
    delivery = only(Parsed(key=key))
    assert encode_key(delivery.key) == key


def test_no_key_is_not_an_empty_key():
    assert only(Parsed(key=None)).key is None
    assert only(Parsed(key=b"")).key == ""
    assert encode_key(None) is None
    assert encode_key("") == b""


def test_a_record_says_where_it_stands_when_it_was_stored_and_who_owns_it():
    delivery = only(Parsed(value=b"body"))
    assert delivery.position == Position(3, 7)
    assert delivery.timestamp == 1_700_000_000.123
    assert delivery.epoch == 5
    assert delivery.body == b"body"
    assert delivery.size > len(delivery.body)


def test_a_tombstone_is_an_empty_body():
    assert only(Parsed(key=b"k", value=None)).body == b""


def test_records_are_told_apart_though_one_is_much_like_the_next():
    mirrored = (MIRROR, b"1"), ("X-Event-ID", b"1")
    deliveries = to_deliveries(
        0,
        1,
        [
            Parsed(offset=1, timestamp=1000, key=b"k", headers=mirrored),
            Parsed(offset=2, timestamp=1000, key=None, headers=(*mirrored, ("own", b"1"))),
            Parsed(offset=3, timestamp=0, key=b"k"),
            Parsed(offset=5, timestamp=2000, key=b"k", headers=mirrored),
        ],
    )
    found = [(d.position.offset, d.timestamp, d.key, d.keyed, d.headers) for d in deliveries]
    assert found == [
        (1, 1.0, "k", True, ()),
        (2, 1.0, None, True, (("own", "1"),)),
        (3, 0.0, "k", False, ()),
        (5, 2.0, "k", True, ()),
    ]
