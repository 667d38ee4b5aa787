"""Each check of the fault suite can fail: fed with a book, and with what a program might say."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from tests.chaos.book import Book, Event, line
from tests.faults.suite.checks import Promise, broken
from tests.faults.suite.faults import Bound
from tests.faults.suite.grounds import Ground
from tests.faults.suite.job import Facts
from tests.faults.suite.log_tally import Lines, LogTally
from tests.faults.suite.stage import Ledger

PROMISE = Promise(repeats=2, exit=3.0)
WELL = Facts(exits=[0.4], most=1, lines=3, loudest="tbus: hello", memory=5.0)
STORED = [(key, number) for key in "ab" for number in (1, 2, 3)]


def judged(
    directory: Path, *handled: tuple[str, int], facts: Facts = WELL, promise: Promise = PROMISE
) -> list[str]:
    """What does not hold, when these were handled in this order."""
    book, ledger = Book(directory / "book"), Ledger(directory / "stored")
    events: list[Event] = [("t", *one) for one in handled]
    book.path.write_bytes(b"".join(line(event, 1, 0, 1, 0.0) for event in events))
    ledger.path.write_text("".join(f"t {key} {number}\n" for key, number in STORED))
    return broken(book.judge(ledger.read_on()), facts, promise)


def test_nothing_is_reported_of_a_run_in_which_all_held(tmp_path: Path) -> None:
    assert not judged(tmp_path, *STORED)


def test_an_acknowledged_event_that_nobody_handled_is_reported(tmp_path: Path) -> None:
    [problem] = judged(tmp_path, *STORED[:-1])
    assert problem == "1 acknowledged events were handled by nobody"


def test_an_event_that_was_handled_and_not_acknowledged_is_no_problem(tmp_path: Path) -> None:
    assert not judged(tmp_path, *STORED, ("b", 4))


def test_a_first_completion_behind_a_later_one_of_its_key_is_reported(tmp_path: Path) -> None:
    [problem] = judged(tmp_path, ("a", 2), ("a", 1), *STORED[2:])
    assert problem.startswith("1 first completions came behind")


def test_a_repeat_behind_a_later_event_is_no_inversion(tmp_path: Path) -> None:
    assert not judged(tmp_path, *STORED, ("a", 1))


def test_more_repeats_than_the_bound_are_reported(tmp_path: Path) -> None:
    assert not judged(tmp_path, *STORED, *STORED[:2])
    [problem] = judged(tmp_path, *STORED, *STORED[:3])
    assert problem == "3 completions were repeats, more than 2"


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        (attrs.evolve(WELL, most=2), "2 lines within a second were the same: tbus: hello"),
        (attrs.evolve(WELL, exits=[0.1, 3.2]), "leaving took 3.2 s, more than 3.0"),
        (attrs.evolve(WELL, exits=[]), "no bus was left"),
        (attrs.evolve(WELL, left=["thread 'x'"]), "left behind: thread 'x'"),
        (attrs.evolve(WELL, memory=48.1), "the program grew by 48.1 MiB, more than 48.0"),
        (
            attrs.evolve(WELL, ends=["TransportLost"]),
            "buses ended because of ['TransportLost'], expected was []",
        ),
    ],
)
def test_what_the_program_says_is_held_to_its_limits(
    facts: Facts, problem: str, tmp_path: Path
) -> None:
    assert judged(tmp_path, *STORED, facts=facts) == [problem]


def test_a_bus_that_should_have_ended_and_did_not_is_reported(tmp_path: Path) -> None:
    promise = attrs.evolve(PROMISE, ends=("ConsumerGone",))
    [problem] = judged(tmp_path, *STORED, promise=promise)
    assert problem == "buses ended because of [], expected was ['ConsumerGone']"


def test_a_run_in_which_nothing_was_acknowledged_shows_nothing(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    [problem] = broken(book.judge(set()), WELL, PROMISE)
    assert "this shows nothing" in problem


def test_a_bound_counts_each_time_and_the_programs_own_repeats_where_no_id_is_recognised() -> None:
    here, there = Ground("here"), Ground("there")
    there.recognises = False
    facts = Facts(again=7)
    assert Bound(10, "").allows(3, facts, here) == 30
    assert Bound(10, "").allows(3, facts, there) == 37


# --- the log -----------------------------------------------------------------------------


def test_the_same_said_twice_within_a_second_is_counted_whatever_its_values() -> None:
    tally = LogTally()
    for number in range(3):
        tally.note("tbus", f"lost 127.0.0.1:{number}", 10.0 + number * 0.4)
    assert tally.lines() == Lines(3, 3, "tbus: lost *")


def test_the_same_said_once_a_second_is_no_storm() -> None:
    tally = LogTally()
    for number in range(5):
        tally.note("tbus", "lost", 10.0 + number)
    assert tally.lines() == Lines(5, 1, "tbus: lost")


def test_other_words_and_other_loggers_are_other_lines() -> None:
    tally = LogTally()
    for logger, text in [("tbus", "lost"), ("tbus", "back"), ("tbus.nats", "lost")]:
        tally.note(logger, text, 10.0)
    lines = tally.lines()
    assert (lines.total, lines.most) == (3, 1)
