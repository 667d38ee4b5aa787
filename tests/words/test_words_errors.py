"""What is told of an exception that a handler raised."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from tbus._dead_letters import Failure, dead_letter_headers
from tbus._errors import describe, leaves_of, sole
from tbus._message import Delivery, Message, Position
from tbus._retry import GiveUp, Retry, decide

NURSERY = "Exceptions from Trio nursery"


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup(NURSERY, errors)


def deep(error: Exception, depth: int) -> Exception:
    for _ in range(depth):
        error = group(error)
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("missing"), "KeyError: 'missing'"),
        (group(KeyError("missing")), "ExceptionGroup of KeyError: 'missing'"),
        (group(group(OSError()), ValueError("b")), "ExceptionGroup of OSError; ValueError: b"),
        (
            group(*(ValueError(str(n)) for n in range(5))),
            "ExceptionGroup of ValueError: 0; ValueError: 1; ValueError: 2; and 2 more",
        ),
    ],
)
def test_what_is_told_of_a_group_is_what_it_holds(error: Exception, told: str) -> None:
    assert describe(error) == told


def test_a_long_text_in_a_group_leaves_room_for_the_others() -> None:
    told = describe(group(ValueError("x" * 5000), KeyError("second")))
    assert "second" in told
    assert len(told) <= 500


def test_groups_however_deep_and_large_are_told_of_at_once() -> None:
    assert describe(deep(ValueError("x"), 50_000)) == "ExceptionGroup of ValueError: x"
    assert sole(deep(error := ValueError("x"), 50_000)) is error
    many = group(*(ValueError(str(n)) for n in range(100_000)))
    began = time.process_time()
    assert describe(many).endswith("and 99997 more")
    assert time.process_time() - began < 1


def test_the_only_exception_in_a_group_stands_for_it() -> None:
    error = ValueError("x")
    both = group(error, KeyError())
    assert sole(error) is sole(group(error)) is sole(group(group(error))) is error
    assert sole(both) is both
    assert leaves_of(group(group(error), both)) == [error, *both.exceptions]


def test_a_message_given_up_for_a_group_names_what_it_holds() -> None:
    decision = decide(Retry(attempts=1), 1, group(KeyError("missing")), lambda: 0.5)
    assert decision == GiveUp("ExceptionGroup of KeyError: 'missing' (attempt 1 of 1)")


@pytest.mark.parametrize(
    ("errors", "kind", "text"),
    [
        ([KeyError("missing")], "KeyError", "'missing'"),
        (
            [KeyError("missing"), OSError()],
            "ExceptionGroup",
            "ExceptionGroup of KeyError: 'missing'; OSError",
        ),
    ],
)
def test_a_dead_letter_tells_what_a_group_held_and_its_whole_traceback(
    errors: list[Exception], kind: str, text: str
) -> None:
    delivery = Delivery(Position(0, 1), b"", (), 0.0, "k", True)
    failure = Failure("", group(*errors), 0.0, datetime.now(UTC).timestamp())
    headers = dict(dead_letter_headers(Message("t", "k", "g", delivery), failure, ""))
    assert headers["Tbus-Dead-Error-Type"] == kind
    assert headers["Tbus-Dead-Error"] == text
    assert NURSERY in headers["Tbus-Dead-Traceback"]
    assert "KeyError: 'missing'" in headers["Tbus-Dead-Traceback"]
