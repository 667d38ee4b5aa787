"""Which messages may be what kills processes: the record of one partition, life by life."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus._suspects import MOST, Suspects

LIMIT = 9  # a third is 3


def next_owner(text: str, base: int = 10, in_flight: int = 3) -> Suspects:
    return Suspects(LIMIT, in_flight, text, base)


def die_often(times: int, base: int = 10) -> Suspects:
    """So many owners have died while this was the first message that was not settled."""
    suspects = next_owner("", base)
    for _ in range(times):
        suspects = next_owner(suspects.text(), base)
    return suspects


def test_where_nobody_has_died_nothing_is_asked():
    suspects = next_owner("")
    assert not suspects
    assert not next_owner(suspects.text(owned=False))
    assert suspects.judge(10) == (0, False)


def test_each_death_counts_against_the_first_message_that_is_not_settled():
    suspects = die_often(2)
    assert suspects.judge(10) == (2, False)
    assert suspects.judge(11) == (0, False)


def test_after_a_third_of_the_limit_all_that_may_have_been_in_flight_is_suspect():
    suspects = die_often(3)
    assert suspects.judge(10) == (3, True)
    assert suspects.judge(11) == (1, True)
    assert suspects.judge(12) == (1, True)
    assert suspects.judge(13) == (0, False)


def test_progress_between_two_deaths_begins_anew():
    suspects = die_often(2)
    suspects.settle({10})
    suspects = next_owner(suspects.text(), base=11)
    assert suspects.judge(11) == (1, False)


def test_from_then_on_only_what_was_begun_is_counted_and_all_stay_suspect():
    suspects = die_often(3)
    assert suspects.begin(10)
    suspects.settle({10})
    assert suspects.begin(11)
    for count in range(4, 4 + 5):
        suspects = next_owner(suspects.text(), base=11)
        assert suspects.judge(11) == (count, True)
        assert suspects.judge(12) == (1, True)
        assert suspects.begin(11)
    # Nine times in all: three together, and six alone.
    assert next_owner(suspects.text(), base=11).judge(11) == (LIMIT, True)


def test_who_is_handled_again_in_one_life_has_begun_once():
    suspects = die_often(3)
    assert suspects.begin(10)
    assert not suspects.begin(10)


def test_an_end_in_order_clears_all_but_those_somebody_died_of_alone():
    assert die_often(3).text(owned=False) == "e"
    suspects = die_often(3)
    suspects.begin(10)
    assert suspects.text(owned=False) == "e"  # it was cancelled, and has killed nobody
    suspects = next_owner(suspects.text())
    suspects.begin(10)
    assert suspects.text(owned=False) == "e10:4"
    assert next_owner(suspects.text(owned=False)).judge(10) == (4, True)


def test_what_is_settled_is_forgotten():
    suspects = die_often(3)
    suspects.judge(10)
    suspects.begin(10)
    suspects.settle({10})
    assert suspects.text() == "o"
    assert not next_owner(suspects.text(), base=11).judge(12)[1]


def test_without_a_limit_nobody_is_suspect_and_nothing_is_stored():
    suspects = Suspects(None, 3, "o10:99", 10)
    assert not suspects.judge(10)[1]
    assert suspects.text() == ""
    assert suspects.text(owned=False) == ""


@pytest.mark.parametrize("limit", [1, 2])
def test_the_smallest_limits_suspect_at_the_first_death(limit: int):
    suspects = Suspects(limit, 3, Suspects(limit, 3).text(), 10)
    assert suspects.judge(10) == (1, True)


def test_only_the_highest_counts_are_kept():
    text = "o" + ",".join(f"{position}:{position}" for position in range(10, 40))
    suspects = Suspects(1000, 3, text, 10)
    kept = suspects.text()
    assert kept.count(":") == MOST
    assert "39:39" in kept
    assert "10:" not in kept


@given(st.text(max_size=30) | st.from_regex(r"[oe][0-9:,]{0,30}", fullmatch=True))
def test_whatever_is_read_is_no_error(text: str):
    suspects = next_owner(text)
    again = next_owner(suspects.text(owned=False))
    assert again.text(owned=False) == suspects.text(owned=False)
