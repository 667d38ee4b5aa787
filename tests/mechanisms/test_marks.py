"""What is written beside a committed position, and read again, or not."""

from __future__ import annotations

from binascii import crc32

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tbus._marks import Mark, decode, encode

LIMIT = 4096
HIGHEST = 2**63 - 1


def runs_of(settled: set[int]) -> tuple[tuple[int, int], ...]:
    starts = sorted(each for each in settled if each - 1 not in settled)
    ends = sorted(each for each in settled if each + 1 not in settled)
    return tuple(zip(starts, ends, strict=True))


def settled_by(mark: Mark) -> set[int]:
    return {each for first, last in mark.runs for each in range(first, last + 1)}


@st.composite
def marks(draw: st.DrawFn) -> Mark:
    base = draw(st.integers(0, 300) | st.integers(2**40, 2**41))
    width = draw(st.sampled_from([10, 300, 5000]))
    inside = st.integers(base + 1, base + width)
    settled: set[int] = set()
    for first, length in draw(st.lists(st.tuples(inside, st.integers(1, 40)), max_size=60)):
        settled.update(range(first, first + length))
    failed = draw(st.dictionaries(st.integers(base, base + width), st.integers(1, 400)))
    attempts = tuple(sorted((at, count) for at, count in failed.items() if at not in settled))
    return Mark(base, runs_of(settled), attempts)


@given(marks())
@example(Mark(0))
@example(Mark(HIGHEST, (), ((HIGHEST, 1),)))
@example(Mark(0, ((2**62, 2**62), (HIGHEST, HIGHEST)), ((1, 2**40),)))
@example(Mark(0, ((1, HIGHEST),)))
def test_what_was_written_is_read(mark: Mark) -> None:
    text = encode(mark, LIMIT)
    assert text.isascii()
    assert decode(text, mark.base) == mark


@given(marks(), st.integers(0, 300))
def test_no_text_is_longer_than_it_may_be_and_none_says_too_much(mark: Mark, limit: int) -> None:
    text = encode(mark, limit)
    assert len(text) <= limit
    read = decode(text, mark.base)
    if read is None:
        assert text == ""
        assert limit < len(encode(Mark(mark.base), LIMIT))
        return
    kept = settled_by(read)
    assert kept <= settled_by(mark)
    assert all(each in kept for each in settled_by(mark) if each <= max(kept, default=0))
    assert read.attempts == mark.attempts[: len(read.attempts)]


@given(marks(), st.data())
def test_a_changed_character_is_noticed(mark: Mark, data: st.DataObject) -> None:
    text = encode(mark, LIMIT)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(max_codepoint=300))
    assert decode(text[:at] + other + text[at + 1 :], mark.base) in (None, mark)
    if other != text[at]:
        assert decode(text[:at] + other + text[at + 1 :], mark.base) is None


@given(marks(), st.data())
def test_a_text_that_was_cut_or_lengthened_is_none_of_ours(mark: Mark, data: st.DataObject) -> None:
    text = encode(mark, LIMIT)
    assert decode(text[: data.draw(st.integers(0, len(text) - 1))], mark.base) is None
    assert decode(text + data.draw(st.text(min_size=1, max_size=3)), mark.base) is None


@given(marks(), st.integers(0, 2**42))
def test_a_text_for_another_base_is_none_of_ours(mark: Mark, base: int) -> None:
    assume(base != mark.base)
    assert decode(encode(mark, LIMIT), base) is None


@given(st.text() | st.text(alphabet="tbus1:0dA=\ud800"), st.integers(-1, 20))
@example("", 0)
@example('{"timestamp": 1}', 0)
@example("tbus2:0:00000000:d:", 0)
def test_other_programs_texts_are_none_of_ours(text: str, base: int) -> None:
    assert decode(text, base) is None


@given(
    st.sampled_from(["", "b", "d", "x"]),
    st.text(alphabet="AB/+w8=:", max_size=12),
    st.sampled_from([0, 7, HIGHEST]),
)
@example("b", "gA:", 0)  # the base itself is settled
@example("d", "A:", 0)  # no base64
@example("d", "AA:", 0)  # half a pair
@example("d", "gA:", 0)  # half a number
@example("d", "////////////fwA:", 0)  # more than 63 bits
@example("d", ":AP////////////8B", 0)  # and for a count
@example("b", "f/8:", HIGHEST)  # beyond the highest position
def test_a_right_checksum_over_anything_raises_nothing(kind: str, rest: str, base: int) -> None:
    content = kind + rest
    text = f"tbus1:{base}:{crc32(content.encode()):08x}:{content}"
    read = decode(text, base)
    if read is not None:  # then it is a mark by all rules
        assert decode(encode(read, LIMIT), base) == read


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        (Mark(0), "tbus1:0:d01ec268:b:"),
        (Mark(1000, ((1002, 1002),)), "tbus1:1000:e04ef12d:bIA:"),
        (Mark(1000, ((1001, 1001), (1003, 1003), (1005, 1007))), "tbus1:1000:7e288415:bVw:"),
        (
            Mark(1000, ((1200, 1900), (5000, 5001)), ((1000, 3), (1002, 1))),
            "tbus1:1000:efdc9ae5:dxwG8BZoYAQ:AAIBAA",
        ),
    ],
)
def test_the_format_stays_what_its_version_says(mark: Mark, text: str) -> None:
    """If this fails, another release could not read what this one wrote: give the new format
    another version."""
    assert encode(mark, LIMIT) == text
    assert decode(text, mark.base) == mark


def test_a_thousand_settled_of_every_other_position_fit_easily() -> None:
    mark = Mark(10**9, runs_of(set(range(10**9 + 1, 10**9 + 2001, 2))))
    text = encode(mark, LIMIT)
    assert decode(text, mark.base) == mark
    assert len(text) < 400


def test_where_not_all_runs_fit_those_that_reach_farthest_are_written() -> None:
    dense = Mark(0, runs_of(set(range(1, 50_000, 2))))
    read = decode(encode(dense, LIMIT), 0)
    assert read is not None
    assert read.runs[-1][1] > 24_000  # a bitmap: 6 bits a character
    straddling = Mark(0, (*dense.runs[:10_000], (20_002, 90_000)))
    text = encode(straddling, LIMIT)
    read = decode(text, 0)
    assert read is not None
    assert len(text) <= LIMIT
    assert read.runs[-1][0] == 20_002
    assert 24_000 < read.runs[-1][1] < 90_000
    sparse = Mark(0, runs_of(set(range(1, 2_000_000)) - set(range(100, 2_000_000, 1000))))
    read = decode(encode(sparse, LIMIT), 0)
    assert read is not None
    assert read.runs[-1][1] > 900_000  # deltas: 3 bytes a run


def test_attempts_keep_a_quarter_of_the_room_and_what_the_runs_leave() -> None:
    runs = runs_of(set(range(20_001, 70_000, 2)))
    failing = tuple((position, 1) for position in range(9_000))
    crowded = decode(encode(Mark(0, runs, failing), LIMIT), 0)
    assert crowded is not None
    assert 350 < len(crowded.attempts) < 400
    assert crowded.runs
    alone = decode(encode(Mark(0, runs[:1], failing), LIMIT), 0)
    assert alone is not None
    assert alone.runs == runs[:1]
    assert len(alone.attempts) > 1500
    few = decode(encode(Mark(0, runs, failing[:10]), LIMIT), 0)
    assert few is not None
    assert few.attempts == failing[:10]


@pytest.mark.parametrize(
    "mark",
    [
        Mark(-1),
        Mark(2**63),
        Mark(5, ((5, 5),)),
        Mark(5, ((9, 8),)),
        Mark(5, ((7, 8), (9, 9))),
        Mark(5, ((9, 9), (7, 7))),
        Mark(5, ((7, 2**63),)),
        Mark(5, (), ((4, 1),)),
        Mark(5, (), ((6, 1), (6, 1))),
        Mark(5, (), ((6, 0),)),
        Mark(5, (), ((6, 2**63),)),
        Mark(5, (), ((2**63, 1),)),
    ],
)
def test_a_mark_that_breaks_the_rules_is_refused(mark: Mark) -> None:
    with pytest.raises(ValueError, match=r"base|runs|attempts"):
        encode(mark, LIMIT)
