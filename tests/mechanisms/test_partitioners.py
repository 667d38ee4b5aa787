"""Each partitioner against what the client that it follows answers itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from sys import getrefcount
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiokafka")

from tbus.transports.kafka._partitioners import LONGEST_KEPT, partitioner

VECTORS = Path(__file__).parent.parent / "vectors"

Name = Literal["murmur2", "fnv1a"]
BOTH: tuple[Name, ...] = ("murmur2", "fnv1a")


def read(name: str) -> tuple[list[int], list[tuple[bytes, int, list[int]]]]:
    """The partition counts, and for each key its signed hash and its partitions."""
    lines = (VECTORS / f"{name}.tsv").read_text().splitlines()
    _, _, *counts = next(line for line in lines if line.startswith("counts")).split("\t")
    rows = []
    for line in lines:
        if not line.startswith(("#", "counts")):
            key, digest, *partitions = line.split("\t")
            rows.append((bytes.fromhex(key), int(digest), [int(each) for each in partitions]))
    return [int(count) for count in counts], rows


@pytest.mark.parametrize("name", BOTH)
def test_every_key_goes_where_the_other_client_sends_it(name: Name) -> None:
    counts, rows = read(name)
    assert len(rows) > 200
    pick = partitioner(name)
    for _ in range(2):  # the second time from memory
        for key, _, expected in rows:
            got = [pick(key, range(count), range(count)) for count in counts]
            assert got == expected, key


@pytest.mark.parametrize("name", BOTH)
def test_the_vectors_reach_the_edges(name: Name) -> None:
    _, rows = read(name)
    digests = {digest for _, digest, _ in rows}
    assert {0, 1, 2**31 - 1, -(2**31), 1 - 2**31, -1} <= digests
    assert sum(digest < 0 for digest in digests) > 80
    keys = {key for key, _, _ in rows}
    assert b"" in keys
    assert max(map(len, keys)) > LONGEST_KEPT


def test_hashes_are_those_that_their_authors_published() -> None:
    known = {key: digest % 2**32 for key, digest, _ in read("fnv1a")[1]}
    assert known[b""] == 0x811C9DC5
    assert known[b"a"] == 0xE40C292C
    assert known[b"foobar"] == 0xBF9CF968
    known = {key: digest for key, digest, _ in read("murmur2")[1]}
    assert known[b"21"] == -973932308
    assert known[b"foobar"] == -790332482


@pytest.mark.parametrize("name", BOTH)
def test_long_keys_are_not_kept(name: Name) -> None:
    pick = partitioner(name)
    short, long = bytes(LONGEST_KEPT), bytes(LONGEST_KEPT + 1)
    before = getrefcount(short), getrefcount(long)
    pick(short, range(4), ())
    pick(long, range(4), ())
    assert getrefcount(short) > before[0]
    assert getrefcount(long) == before[1]


@pytest.mark.parametrize("name", BOTH)
def test_a_keys_partition_depends_on_no_order_of_the_lists_and_on_no_leader(name: Name) -> None:
    pick = partitioner(name)
    for key in (b"", b"a", b"order-7", bytes(LONGEST_KEPT + 1)):
        usual = pick(key, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
        others = [number for number in range(5) if number != usual]
        assert pick(key, [3, 0, 4, 2, 1], [1]) == usual
        assert pick(key, [4, 3, 2, 1, 0], others) == usual
        assert pick(key, [0, 1, 2, 3, 4], []) == usual


@pytest.mark.parametrize("name", BOTH)
def test_without_a_key_records_spread_over_the_partitions_that_have_a_leader(name: Name) -> None:
    pick = partitioner(name)
    seen = Counter(pick(None, [0, 1, 2, 3], [3, 1]) for _ in range(2000))
    assert set(seen) == {1, 3}
    assert min(seen.values()) > 800  # nine standard deviations


@pytest.mark.parametrize("name", BOTH)
def test_without_a_key_and_without_leaders_any_partition_serves(name: Name) -> None:
    pick = partitioner(name)
    assert {pick(None, [0, 1, 2], []) for _ in range(500)} == {0, 1, 2}


@pytest.mark.parametrize("name", BOTH)
@given(key=st.binary(max_size=300), count=st.integers(1, 64))
def test_every_answer_is_a_partition_and_stays_the_same(name: Name, key: bytes, count: int) -> None:
    pick = partitioner(name)
    first = pick(key, range(count), ())
    assert 0 <= first < count
    assert pick(key, range(count), ()) == partitioner(name)(key, range(count), ()) == first
