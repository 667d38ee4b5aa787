"""Where a message's key is found."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus._envelope import Envelope
from tbus._errors import InvalidEnvelope
from tbus._keys import KEY_HEADERS, find_key
from tbus._message import Delivery, Message, Position


def make(
    body: bytes = b"plain",
    headers: tuple[tuple[str, str], ...] = (),
    key: str | None = None,
    *,
    keyed: bool = False,
) -> Delivery:
    return Delivery(Position(0, 1), body, headers, 0.0, key, keyed)


ENVELOPE = Envelope.new("from-envelope", "Happened", {"a": 1}).encode()


def test_an_envelope_says_its_key_and_is_decoded_once() -> None:
    key, decoded = find_key(make(ENVELOPE, (("X-Aggregate-ID", "from-header"),), "from-broker"))
    assert key == "from-envelope"
    assert isinstance(decoded, Envelope)
    assert decoded.encode() == ENVELOPE


def test_a_header_says_the_key_of_a_body_that_is_no_envelope() -> None:
    for body in (b"plain", b"{broken", b"", b"{}"):
        key, _ = find_key(make(body, (("X-Aggregate-ID", "from-header"),), "from-broker"))
        assert key == "from-header"


def test_the_brokers_own_key_is_the_last_one_that_is_asked() -> None:
    assert find_key(make(key="from-broker")) == ("from-broker", None)
    assert find_key(make(headers=(("other", "x"),), key="from-broker")) == ("from-broker", None)
    assert find_key(make()) == (None, None)


def test_the_headers_names_have_an_order_of_their_own() -> None:
    headers = tuple((name, name.swapcase()) for name in reversed(KEY_HEADERS))
    for wanted in KEY_HEADERS:
        assert find_key(make(headers=headers))[0] == wanted.swapcase()
        headers = tuple(pair for pair in headers if pair[0] != wanted)


def test_an_empty_header_is_no_key() -> None:
    headers = (("X-Aggregate-ID", ""), ("aggregate-id", "k"))
    assert find_key(make(headers=headers))[0] == "k"


def test_a_body_that_only_begins_like_an_envelope_says_nothing() -> None:
    assert find_key(make(b"{broken", key="k")) == ("k", None)


def test_a_message_keeps_no_error_that_holds_who_asked_for_its_envelope() -> None:
    message = Message("topic", "k", None, make(b"{broken"))
    with pytest.raises(InvalidEnvelope) as first:
        message.envelope  # noqa: B018 - it raises
    with pytest.raises(InvalidEnvelope) as second:
        message.envelope  # noqa: B018
    assert second.value is not first.value
    assert not gc.is_tracked(message)


@pytest.mark.parametrize("key", ["given", None])
def test_a_key_that_was_given_to_tbus_is_not_looked_for_elsewhere(key: str | None) -> None:
    delivery = make(ENVELOPE, (("X-Aggregate-ID", "from-header"),), key, keyed=True)
    assert find_key(delivery) == (key, None)


@given(
    st.binary(max_size=30) | st.binary(max_size=30).map(b"{".__add__),
    st.lists(st.tuples(st.sampled_from([*KEY_HEADERS, "x"]), st.text(max_size=3))).map(tuple),
    st.none() | st.text(max_size=3),
)
def test_no_body_and_no_header_stops_the_pull_loop(
    body: bytes, headers: tuple[tuple[str, str], ...], key: str | None
) -> None:
    found, _ = find_key(make(body, headers, key))
    assert found is None or isinstance(found, str)
