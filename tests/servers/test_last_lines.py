"""The bounded end of a server's log."""

from __future__ import annotations

import pytest

from tbus.servers._log import LastLines


def test_only_the_last_lines_are_kept() -> None:
    log = LastLines()
    log.feed(b"".join(b"line %d\n" % number for number in range(1000)))
    assert log.lines() == tuple(f"line {number}" for number in range(980, 1000))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_the_same_however_they_come(size: int) -> None:
    log = LastLines()
    data = "eins\nzwei\r\n\n  \ndrei ü\nvier".encode()
    for start in range(0, len(data), size):
        log.feed(data[start : start + size])
    assert log.lines() == ("eins", "zwei", "drei ü", "vier")


def test_an_endless_line_takes_no_more_room() -> None:
    log = LastLines()
    for _ in range(100):
        log.feed(b"x" * 65536)
    assert log.lines() == ("x" * 500,)
    log.feed(b"\nnext\n")
    assert log.lines() == ("x" * 500, "next")


def test_a_secret_is_not_seen_not_even_where_a_line_is_cut() -> None:
    log = LastLines(hide=["secret"])
    log.feed(b"a secret b sec")
    assert log.lines()[0].startswith("a *** b")
    log.feed(b"ret c\n")
    log.feed(b"x" * 497 + b"secret\n")
    assert log.lines() == ("a *** b *** c", "x" * 497 + "***")


def test_escape_sequences_are_made_harmless() -> None:
    log = LastLines()
    log.feed(b"a\x1b[2Jb\x00c\n")
    assert log.lines() == ("a\\x1b[2Jb\\x00c",)
