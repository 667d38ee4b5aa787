"""What a dead letter carries, how it is read again, and the id by which it is stored once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tbus._dead_letters import (
    MAX_TEXT,
    DeadLetter,
    Failure,
    dead_letter_headers,
    dead_letter_id,
    own_size,
    read_dead_letter,
    redriven_headers,
    redriven_id,
    shortened,
)
from tbus._message import Delivery, Headers, Message, Position
from tbus._publisher import check_headers


def make(headers: Headers = (), **fields: Any) -> Message:
    delivery = Delivery(Position(2, 7), b"body", headers, 1700000000.25)
    return structs.replace(Message("orders", "k", "billing", delivery, 3), **fields)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 - with its traceback, as handlers raise it
        return caught


def _raise(error: Exception) -> None:
    raise error


def bury(
    message: Message, reason: str = "why", error: Exception | None = None, **options: Any
) -> Headers:
    source = options.pop("source", "me")
    failure = Failure(reason, error, 1700000100.0, 1700000130.5)
    return dead_letter_headers(message, failure, source, **options)


def dig(headers: Headers, key: str | None = "k", body: bytes = b"body") -> DeadLetter:
    """The letter, as somebody reads it who got it from the broker."""
    delivery = Delivery(Position(0, 1), body, headers, 1700000200.0, key, True)
    letter = read_dead_letter("orders.dead", delivery)
    assert letter is not None
    return letter


# --- what is written ---------------------------------------------------------------------


def test_the_originals_headers_come_first_and_are_untouched() -> None:
    original = (("a", "1"), ("b", "2"), ("a", "3"))
    headers = bury(make(original))
    assert headers[:3] == original
    assert all(name.startswith("Tbus-Dead-") for name, _ in headers[3:])


def test_it_tells_where_the_message_came_from_and_why_it_is_here() -> None:
    headers = dict(bury(make(), "too often", raised(ValueError("x")), source="shop"))
    traceback = headers.pop("Tbus-Dead-Traceback")
    assert headers == {
        "Tbus-Dead-Topic": "orders",
        "Tbus-Dead-Position": "2:7",
        "Tbus-Dead-Timestamp": "2023-11-14T22:13:20.250000Z",
        "Tbus-Dead-Group": "billing",
        "Tbus-Dead-Key": "k",
        "Tbus-Dead-Id": dead_letter_id(make()),
        "Tbus-Dead-Attempts": "3",
        "Tbus-Dead-First-Failed": "2023-11-14T22:15:00.000000Z",
        "Tbus-Dead-Last-Failed": "2023-11-14T22:15:30.500000Z",
        "Tbus-Dead-Source": "shop",
        "Tbus-Dead-Reason": "too often",
        "Tbus-Dead-Error-Type": "ValueError",
        "Tbus-Dead-Error": "x",
    }
    assert "test_dead_letters.py" in traceback
    assert traceback.endswith("ValueError: x")


def test_what_is_not_known_is_left_out() -> None:
    headers = dict(bury(make(key=None, group=None), source=""))
    assert not {"Tbus-Dead-Key", "Tbus-Dead-Group", "Tbus-Dead-Source"} & set(headers)


def test_the_servers_own_headers_are_not_taken_along() -> None:
    assert bury(make((("Nats-Sequence", "1"), ("own", "2"))))[0] == ("own", "2")


anything = st.characters(categories=["Cs", "Cc", "L", "Z", "P"])
texts = st.text(anything, max_size=50) | st.text(anything, max_size=50).map(lambda t: t * 100)


@given(reason=texts, error=texts, key=st.none() | texts, source=texts, limit=st.integers(0, 3000))
def test_every_header_is_one_that_every_broker_carries(
    reason: str, error: str, key: str | None, source: str, limit: int
) -> None:
    headers = bury(
        make(key=key), reason, raised(ValueError(error)), source=source, traceback_limit=limit
    )
    assert check_headers(headers) == headers
    for name, value in headers:
        assert len(value) <= (limit if name.endswith("Traceback") else MAX_TEXT), name
        value.encode()


def test_an_error_whose_text_cannot_be_told_is_told_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    headers = dict(bury(make(), "why", raised(Mute())))
    assert headers["Tbus-Dead-Error-Type"] == "Mute"


def test_an_exception_of_which_no_traceback_can_be_made_is_buried_all_the_same() -> None:
    class Hostile(Exception):
        @property
        def __notes__(self) -> list[str]:  # type: ignore[override]
            raise RuntimeError

    headers = dict(bury(make(), "why", raised(Hostile("x"))))
    assert headers["Tbus-Dead-Error"] == "x"
    assert "RuntimeError" in headers["Tbus-Dead-Traceback"]


# --- tracebacks --------------------------------------------------------------------------


def test_a_traceback_can_be_left_out() -> None:
    headers = dict(bury(make(), "why", raised(ValueError("x")), traceback_limit=0))
    assert "Tbus-Dead-Traceback" not in headers
    assert headers["Tbus-Dead-Error"] == "x"


@pytest.mark.parametrize("limit", [1, 10, 100, 1000])
def test_a_long_traceback_is_cut_and_keeps_its_end(limit: int) -> None:
    error = raised(ValueError("x\n" * 5000 + "end"))
    traceback = dict(bury(make(), "why", error, traceback_limit=limit))["Tbus-Dead-Traceback"]
    assert traceback.startswith("…")
    assert len(traceback) <= limit
    if limit >= 10:
        assert traceback.endswith("end")


def test_a_traceback_begins_with_the_handler() -> None:
    namespace: dict[str, Any] = {"__name__": "tbus._caller"}
    exec("def call(function, error):\n    return function(error)", namespace)
    error = ValueError("x")
    with pytest.raises(ValueError, match="x"):
        namespace["call"](_raise, error)
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # less the frame of this test
    letter = dig(bury(make(), "why", error))
    assert "in _raise" in letter.traceback
    assert "in call" not in letter.traceback


def test_a_traceback_that_never_left_tbus_is_kept_whole() -> None:
    namespace: dict[str, Any] = {"__name__": "tbus._caller"}
    exec("def call(error):\n    raise error", namespace)
    error = ValueError("x")
    with pytest.raises(ValueError, match="x"):
        namespace["call"](error)
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next
    assert "in call" in dig(bury(make(), "why", error)).traceback


def test_a_traceback_is_read_with_its_lines() -> None:
    letter = dig(bury(make(), "why", raised(ValueError("two\nlines"))))
    first, *_, before_last, last = letter.traceback.split("\n")
    assert first == "Traceback (most recent call last):"
    assert '\n  File "' in letter.traceback
    assert (before_last, last) == ("ValueError: two", "lines")


# --- what is read ------------------------------------------------------------------------


@given(
    reason=st.text(anything, max_size=80),
    error=st.text(anything, max_size=80),
    group=st.none() | st.text(anything, max_size=30),
    original=st.lists(st.tuples(st.sampled_from(["a", "b", "Tbus-Dead-Topic"]), st.just("v"))),
)
def test_a_letter_is_read_as_it_was_written(
    reason: str, error: str, group: str | None, original: list[tuple[str, str]]
) -> None:
    headers = bury(make(tuple(original), group=group), reason, raised(ValueError(error)))
    letter = dig(headers)
    assert (letter.reason, letter.error, letter.group) == (reason, error, group)
    assert letter.headers == tuple(original)


def test_a_letter_tells_all_that_is_known() -> None:
    letter = dig(bury(make((("a", "1"),)), "why", raised(ValueError("x"))))
    assert attrs.evolve(letter, traceback="") == DeadLetter(
        id=dead_letter_id(make()),
        topic="orders",
        position=Position(2, 7),
        timestamp=datetime(2023, 11, 14, 22, 13, 20, 250000, tzinfo=UTC),
        key="k",
        group="billing",
        attempts=3,
        first_failed=datetime(2023, 11, 14, 22, 15, tzinfo=UTC),
        last_failed=datetime(2023, 11, 14, 22, 15, 30, 500000, tzinfo=UTC),
        reason="why",
        error_type="ValueError",
        error="x",
        traceback="",
        source="me",
        body=b"body",
        headers=(("a", "1"),),
        stored_in="orders.dead",
        stored_at=Position(0, 1),
        stored=datetime(2023, 11, 14, 22, 16, 40, tzinfo=UTC),
    )


def test_a_letter_that_was_dead_lettered_again_holds_the_first_one_untouched() -> None:
    first = bury(make((("a", "1"),)), "why")
    delivery = Delivery(Position(0, 1), b"body", first, 1700000200.0)
    second = dig(bury(Message("orders.dead", "k", "alerts", delivery), "again"))
    assert (second.topic, second.group, second.reason) == ("orders.dead", "alerts", "again")
    assert second.headers == first
    assert dig(second.headers).headers == (("a", "1"),)


def test_what_a_transport_adds_behind_is_nobodys() -> None:
    assert dig((*bury(make((("a", "1"),))), ("Id-Of-Kafka", "x"))).headers == (("a", "1"),)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("a", "1"),),
        (("Tbus-Dead-Reason", "x"),),
        (("Tbus-Dead-Topic", "orders"),),
        tuple(p for p in bury(make()) if p[0] != "Tbus-Dead-Id"),
        tuple(p for p in bury(make()) if p[0] != "Tbus-Dead-Position"),
        tuple((n, "0:x" if n.endswith("Position") else v) for n, v in bury(make())),
        tuple((n, "soon" if n.endswith("Timestamp") else v) for n, v in bury(make())),
    ],
)
def test_another_message_is_no_letter(headers: Headers) -> None:
    delivery = Delivery(Position(0, 1), b"", headers, 1700000200.0)
    assert read_dead_letter("orders.dead", delivery) is None


def test_what_is_less_important_may_be_nonsense() -> None:
    headers = tuple((n, "?" if n.endswith(("Attempts", "-Failed")) else v) for n, v in bury(make()))
    letter = dig(headers)
    assert (letter.attempts, letter.first_failed, letter.last_failed) == (0, None, None)


# --- less of it --------------------------------------------------------------------------


def test_a_letter_is_shortened_by_its_traceback_then_by_the_errors_text_then_no_more() -> None:
    original = (("a", "1"), ("Tbus-Dead-Error", "the original's own"))
    whole = bury(make(original), "r" * 1000, raised(ValueError("x" * 1000)))
    without_traceback = shortened(whole)
    assert without_traceback == tuple(p for p in whole if p[0] != "Tbus-Dead-Traceback")
    assert without_traceback is not None
    smallest = shortened(without_traceback)
    assert smallest is not None
    assert smallest[:2] == original
    assert set(dict(smallest[2:])) == set(dict(whole[2:])) - {
        "Tbus-Dead-Traceback",
        "Tbus-Dead-Error",
    }
    assert len(dig(smallest).reason) <= 120
    assert own_size(smallest) < 800 < own_size(without_traceback)
    assert shortened(smallest) is None


def test_a_letter_without_traceback_is_shortened_by_the_errors_text_at_once() -> None:
    headers = bury(make(), "why", raised(ValueError("x")), traceback_limit=0)
    assert shortened(headers) == tuple(p for p in headers if p[0] != "Tbus-Dead-Error")


# --- its id ------------------------------------------------------------------------------


def test_a_letter_has_one_id_however_often_it_is_stored() -> None:
    assert dead_letter_id(make()) == dead_letter_id(make(attempt=9))


@pytest.mark.parametrize(
    "other",
    [
        {"topic": "bills"},
        {"group": "shipping"},
        {"group": None},
        {"delivery": Delivery(Position(2, 8), b"body", (), 1700000000.25)},
        {"delivery": Delivery(Position(1, 7), b"body", (), 1700000000.25)},
        {"delivery": Delivery(Position(2, 7), b"body", (), 1700000001.25)},
    ],
)
def test_another_message_or_group_has_another_id(other: dict[str, Any]) -> None:
    assert dead_letter_id(make()) != dead_letter_id(make(**other))


# --- redriven ----------------------------------------------------------------------------


def test_what_is_redriven_says_so_behind_the_originals_headers() -> None:
    letter = dig(bury(make((("a", "1"), ("a", "2")))))
    assert redriven_headers(letter) == (
        ("a", "1"),
        ("a", "2"),
        ("Tbus-Redriven-From", "orders.dead 0:1"),
        ("Tbus-Redriven-Letter", letter.id),
        ("Tbus-Redriven-Group", "billing"),
        ("Tbus-Redriven-Count", "1"),
    )


def test_what_comes_back_a_second_time_counts_and_names_the_last_letter_alone() -> None:
    again = make(redriven_headers(dig(bury(make((("a", "1"),))))), group="shipping")
    headers = redriven_headers(dig(bury(again)))
    assert headers[0] == ("a", "1")
    assert [name for name, _ in headers].count("Tbus-Redriven-Letter") == 1
    assert dict(headers)["Tbus-Redriven-Letter"] == dead_letter_id(again)
    assert dict(headers)["Tbus-Redriven-Group"] == "shipping"
    assert dict(headers)["Tbus-Redriven-Count"] == "2"


def test_a_redrive_has_one_id_until_it_is_on_record() -> None:
    letter = dig(bury(make()))
    assert redriven_id(letter) == redriven_id(dig(bury(make(), "another reason")))
    assert redriven_id(letter) != redriven_id(attrs.evolve(letter, redriven=1))
    assert redriven_id(letter) != letter.id
