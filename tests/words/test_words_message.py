"""When a message was stored, as its handler is told."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from msgspec import structs

from tbus._dead_letters import Failure, dead_letter_headers, read_dead_letter
from tbus._message import Delivery, Message, Position

FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)


def stored(timestamp: float) -> Message:
    delivery = Delivery(Position(0, 1), b"", (), timestamp)
    return Message("orders", "k", "billing", delivery)


def test_a_time_is_told_in_utc_to_the_microsecond() -> None:
    assert stored(1_700_000_000.25).timestamp == datetime(
        2023, 11, 14, 22, 13, 20, 250_000, tzinfo=UTC
    )
    assert stored(-0.001).timestamp == datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("timestamp", "told"),
    [
        (253_402_300_799.0, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (253_402_300_800.0, LAST),
        ((2**63 - 1) / 1000, LAST),
        (math.inf, LAST),
        (-62_135_596_801.0, FIRST),
        (-(2**63) / 1000, FIRST),
    ],
)
def test_a_time_that_python_has_no_word_for_is_told_as_its_first_or_last(
    timestamp: float, told: datetime
) -> None:
    assert stored(timestamp).timestamp == told


def test_a_message_from_beyond_all_years_can_be_dead_lettered_and_read_again() -> None:
    message = stored((2**63 - 1) / 1000)
    headers = dead_letter_headers(message, Failure("broken", None, 1.0, 2.0), "service")
    delivery = structs.replace(message.delivery, headers=headers)
    letter = read_dead_letter("orders.dead", delivery)
    assert letter is not None
    assert (letter.timestamp, letter.stored) == (LAST, LAST)
