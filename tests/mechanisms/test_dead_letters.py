"""What a dead letter carries, and the id by which it is stored once."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus._dead_letters import MAX_TEXT, dead_letter_headers, dead_letter_id
from tbus._message import Delivery, Message, Position
from tbus._publisher import check_headers


def make(headers: tuple[tuple[str, str], ...] = (), **fields: Any) -> Message:
    delivery = Delivery(Position(2, 7), b"body", headers, 1700000000.0)
    return attrs.evolve(Message("orders", "k", "billing", delivery, 3), **fields)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 - with its traceback, as handlers raise it
        return caught


def test_the_originals_headers_come_first_and_are_untouched() -> None:
    original = (("a", "1"), ("b", "2"), ("a", "3"))
    headers = dead_letter_headers(make(original), "why", None, "me")
    assert headers[:3] == original
    assert all(name.startswith("Tbus-Dead-") for name, _ in headers[3:])


def test_it_tells_where_the_message_came_from_and_why_it_is_here() -> None:
    headers = dict(dead_letter_headers(make(), "too often", raised(ValueError("x")), "shop"))
    traceback = headers.pop("Tbus-Dead-Traceback")
    assert headers == {
        "Tbus-Dead-Topic": "orders",
        "Tbus-Dead-Position": "2:7",
        "Tbus-Dead-Group": "billing",
        "Tbus-Dead-Key": "k",
        "Tbus-Dead-Attempts": "3",
        "Tbus-Dead-Reason": "too often",
        "Tbus-Dead-Source": "shop",
        "Tbus-Dead-Error-Type": "ValueError",
        "Tbus-Dead-Error": "x",
    }
    assert "test_dead_letters.py" in traceback
    assert traceback.endswith("ValueError: x")


def test_a_traceback_can_be_left_out() -> None:
    error = raised(ValueError("x"))
    headers = dict(dead_letter_headers(make(), "why", error, "me", tracebacks=False))
    assert "Tbus-Dead-Traceback" not in headers
    assert headers["Tbus-Dead-Error"] == "x"


def test_what_is_not_known_is_left_out() -> None:
    headers = dict(dead_letter_headers(make(key=None, group=None), "why", None, ""))
    assert not {"Tbus-Dead-Key", "Tbus-Dead-Group", "Tbus-Dead-Source"} & set(headers)


def test_the_servers_own_headers_are_not_taken_along() -> None:
    headers = dead_letter_headers(make((("Nats-Sequence", "1"), ("own", "2"))), "why", None, "me")
    assert headers[0] == ("own", "2")


anything = st.characters(categories=["Cs", "Cc", "L", "Z", "P"])
texts = st.text(anything, max_size=50) | st.text(anything, max_size=50).map(lambda t: t * 100)


@given(reason=texts, error=texts, key=st.none() | texts, source=texts)
def test_every_header_is_one_that_every_broker_carries(
    reason: str, error: str, key: str | None, source: str
) -> None:
    message = make(key=key)
    headers = dead_letter_headers(message, reason, raised(ValueError(error)), source)
    assert check_headers(headers) == headers
    for name, value in headers:
        assert len(value) <= MAX_TEXT, name
        value.encode()


def test_a_text_that_is_no_unicode_can_be_sent_all_the_same() -> None:
    error = raised(OSError("cannot open 'caf\udce9'"))
    headers = dict(dead_letter_headers(make(), "why", error, "me"))
    assert headers["Tbus-Dead-Error"].encode() == b"cannot open 'caf?'"


def test_an_error_whose_text_cannot_be_told_is_told_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    headers = dict(dead_letter_headers(make(), "why", raised(Mute()), "me"))
    assert headers["Tbus-Dead-Error-Type"] == "Mute"


def test_a_long_traceback_keeps_its_end() -> None:
    headers = dict(dead_letter_headers(make(), "why", raised(ValueError("x" * 5000 + "end")), "me"))
    assert headers["Tbus-Dead-Traceback"].endswith("end")


def test_a_letter_has_one_id_however_often_it_is_stored() -> None:
    assert dead_letter_id(make()) == dead_letter_id(make(attempt=9))


@pytest.mark.parametrize(
    "other",
    [
        {"topic": "bills"},
        {"group": "shipping"},
        {"group": None},
        {"delivery": Delivery(Position(2, 8), b"body", (), 1700000000.0)},
        {"delivery": Delivery(Position(1, 7), b"body", (), 1700000000.0)},
        {"delivery": Delivery(Position(2, 7), b"body", (), 1700000001.0)},
    ],
)
def test_another_message_or_group_has_another_id(other: dict[str, Any]) -> None:
    assert dead_letter_id(make()) != dead_letter_id(make(**other))
