"""What a client has fetched of a partition, by slices: batches as a broker sends them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from aiokafka import errors as kafka
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchError, FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c_py
from aiokafka.structs import TopicPartition

from tbus import ConfigurationError
from tbus.transports.kafka import _unpacking
from tbus.transports.kafka._unpacking import SLICE, Fetched, check_client, take_whole

PART = TopicPartition("t", 2)

ABORT = struct.pack(">hh", 0, 0)
"""Key of the control record that ends an aborted transaction."""

CONTROL = 0x20
"""Bit of a batch's attributes."""


def batch(
    first: int,
    count: int,
    *,
    last: int | None = None,
    producer: int = -1,
    control: bytes | None = None,
    transactional: bool = False,
) -> bytes:
    """Records `first`, `first + 1`, ...; with `last`, those from there to `last` were removed."""
    builder = DefaultRecordBatchBuilder(2, 0, transactional, producer, 0, 0, 1 << 20)
    for number in range(count):
        body = b"%d" % (first + number)
        builder.append(number, 1000, control, body, [])
    built = bytearray(builder.build())
    if last is not None:
        built[23:27] = struct.pack(">i", last - first)
    if control is not None:
        built[22] |= CONTROL
    built[0:8] = struct.pack(">q", first)
    built[17:21] = struct.pack(">I", calc_crc32c_py(bytes(built[21:])))
    return bytes(built)


class Assignment:
    """Of the client: one partition, and where it stands."""

    active = True
    paused = False

    def __init__(self, position: int) -> None:
        self.position = position

    def state_value(self, _: TopicPartition) -> Assignment:
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


class Answer:
    """What a broker has answered, as the client holds it."""

    def __init__(self, *batches: bytes, since: int = 0, aborted: Any = ()) -> None:
        records = PartitionRecords(
            PART, MemoryRecords(b"".join(batches)), aborted, since, None, None, True, READ_COMMITTED
        )
        self.stands = Assignment(since)
        self.result = FetchResult(
            PART, assignment=self.stands, partition_records=records, backoff=0.0
        )

    def take(self) -> list[Fetched]:
        take_whole(self.result)
        taken: list[Fetched] = self.result.getall(SLICE)
        assert not self.result.has_more()  # the client asks for more
        return taken

    def slices(self) -> list[list[int]]:
        return [slice_ for fetched in self.take() for slice_ in slices(fetched)]

    def all(self) -> list[int]:
        return [offset for slice_ in self.slices() for offset in slice_]


def slices(fetched: Fetched) -> list[list[int]]:
    found: list[list[int]] = []
    while True:
        deliveries = fetched.read(7)
        for one in deliveries:
            assert one.position.partition == PART.partition
            assert one.epoch == 7
            assert one.body == b"%d" % one.position.offset
        found.append([one.position.offset for one in deliveries])
        if len(deliveries) < SLICE:
            assert fetched.read(7) == []
            return found


def test_every_record_of_every_batch_comes_once_and_in_order() -> None:
    answer = Answer(batch(0, 3), batch(3, 1), batch(4, 20))
    assert answer.slices() == [list(range(24))]
    assert answer.stands.position == 24


@pytest.mark.parametrize("count", [SLICE - 1, SLICE, SLICE + 1, 2 * SLICE + 3])
def test_no_slice_is_longer_than_asked_for_and_the_last_is_shorter(count: int) -> None:
    answer = Answer(batch(0, count - 2), batch(count - 2, 2))
    [fetched] = answer.take()
    assert answer.stands.position == count  # from there the client goes on at once
    found = slices(fetched)
    assert [len(slice_) for slice_ in found[:-1]] == [SLICE] * (count // SLICE)
    assert [offset for slice_ in found for offset in slice_] == list(range(count))


def test_what_stands_before_the_offset_that_was_asked_for_does_not_come() -> None:
    answer = Answer(batch(0, 5), batch(5, 10), since=8)
    assert answer.all() == list(range(8, 15))


def test_gaps_are_passed_also_where_a_batch_ends_with_one() -> None:
    answer = Answer(batch(0, 2, last=9), batch(20, 2, last=39))
    assert answer.all() == [0, 1, 20, 21]
    assert answer.stands.position == 40  # else the last batch would be fetched again and again


def test_a_fetch_with_nothing_to_read_is_passed_as_well() -> None:
    answer = Answer(batch(0, 1, control=ABORT, transactional=True, producer=4))
    assert answer.all() == []
    assert answer.stands.position == 1


def test_what_belongs_to_an_aborted_transaction_does_not_come() -> None:
    answer = Answer(
        batch(0, 2),
        batch(2, 2, producer=4, transactional=True),
        batch(4, 2, producer=5, transactional=True),
        batch(6, 1, control=ABORT, transactional=True, producer=4),
        batch(7, 2, producer=4, transactional=True),
        aborted=[(4, 2)],
    )
    assert answer.all() == [0, 1, 4, 5, 7, 8]
    assert answer.stands.position == 9


def test_what_stands_before_a_broken_batch_is_read_and_that_one_is_fetched_again() -> None:
    broken = bytearray(batch(2, 2))
    broken[-1] ^= 1
    answer = Answer(batch(0, 2), bytes(broken))
    assert answer.all() == [0, 1]
    assert answer.stands.position == 2


def test_a_broken_batch_that_comes_first_is_told() -> None:
    broken = bytearray(batch(2, 2))
    broken[-1] ^= 1
    answer = Answer(bytes(broken), batch(4, 1), since=2)
    take_whole(answer.result)
    with pytest.raises(kafka.CorruptRecordException):
        answer.result.getall(SLICE)
    assert answer.stands.position == 2


def test_an_answer_is_taken_once_and_errors_are_left_as_they_are() -> None:
    answer = Answer(batch(0, 1))
    take_whole(answer.result)
    assert answer.all() == [0]
    take_whole(answer.result)
    error = FetchError(error=kafka.OffsetOutOfRangeError({}), backoff=0.0)
    take_whole(error)
    take_whole(None)
    with pytest.raises(kafka.OffsetOutOfRangeError):
        error.check_raise()


def test_a_client_that_is_another_one_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fetcher:
        def __init__(self) -> None: ...
        def _create_fetch_waiter(self) -> None: ...

    check_client(Fetcher())
    with pytest.raises(ConfigurationError, match="not supported"):
        check_client(object())
    monkeypatch.setattr(_unpacking, "FetchResult", Fetcher)
    with pytest.raises(ConfigurationError, match="not supported"):
        check_client(Fetcher())
