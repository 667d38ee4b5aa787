"""Makes deliveries of what a client has fetched of a partition, a slice at a time.

The client's own way is an object for each record, out of functions that call each other: together
they take as long as the parsing. And such objects, with lists of their headers, would wait for
room in their hundreds, where the garbage collector goes through them again and again.

Which batches count is left to the client: it checks them, and passes over those of aborted
transactions. For that it is given batches that seem to have one record, which stands for all; the
records are read here. What this takes of the client's private parts, `check_client` looks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka import errors as kafka
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords

from ..._errors import ConfigurationError
from ..._message import Delivery
from ._records import to_deliveries

SLICE = 500
"""Records that are read of one partition at once, at most: a few milliseconds of work."""

_PRIVATE = ("_create_fetch_waiter", "_partition_records", "_records", "_consumer_record")


def check_client(fetcher: Any) -> None:
    """See that a consumer's fetcher has what is used here, and in `_fetching`.

    Raises:
        ConfigurationError: this version of the client is another one inside.
    """
    parts = {
        *FetchResult.__init__.__code__.co_names,
        *PartitionRecords.__init__.__code__.co_names,
        *dir(PartitionRecords),
        *dir(fetcher),
    }
    if not parts.issuperset(_PRIVATE):
        raise ConfigurationError("this version of aiokafka is not supported", field="aiokafka")


def take_whole(fetched: Any) -> None:
    """Have the client return all that it has of a partition as one `Fetched`, where it would return
    records of its own.

    Args:
        fetched: what it has: a `FetchResult`, an error or nothing.
    """
    if type(fetched) is FetchResult and type(fetched._partition_records) is PartitionRecords:
        fetched._partition_records = _Answer(fetched._partition_records)


class Fetched:
    """What was fetched of a partition, to be read a slice at a time.

    Args:
        partition: its number.
        first: the offset that was asked for.
        batches: checked, in order.
    """

    def __init__(self, partition: int, first: int, batches: list[Any]) -> None:
        self._partition = partition
        self._first = first
        self._batches = batches
        self._batches.reverse()
        self._rest: Iterator[Any] = iter(())
        """What is left of a batch."""

    def read(self, epoch: int) -> list[Delivery]:
        """The next slice; one that is not full is the last.

        Args:
            epoch: of the partition's owner.
        """
        found: list[Delivery] = []
        while (room := SLICE - len(found)) > 0:
            more = to_deliveries(self._partition, epoch, islice(self._rest, room))
            batch_ends = len(more) < room
            if more:
                first = self._first
                if more[0].position.offset < first:  # a batch comes whole, from its beginning
                    more = [one for one in more if one.position.offset >= first]
                found += more
            if batch_ends:
                if not self._batches:
                    break
                self._rest = islice(self._batches.pop(), None)  # it can be begun but once
        return found


class _Answer:
    """What stands where the client looks for its records: a single one, which is all of them.

    Attributes:
        next_fetch_offset: what comes after it.
    """

    def __init__(self, records: Any) -> None:
        self.next_fetch_offset: int = records.next_fetch_offset
        self._records = records
        records._records = _Wholes(records._records)
        records._consumer_record = _get_whole

    def __iter__(self) -> Iterator[Fetched]:
        """It, unless there is nothing in it."""
        records = self._records
        partition: int = records._tp.partition
        batches: list[Any] = []
        try:
            for whole in records:
                batches.append(whole.batch)  # noqa: PERF401 - kept when the next one is broken
        except kafka.CorruptRecordException:
            if not batches:
                raise
            # What stands before it can be read; it is fetched again, and then it is the first.
        # The end of a batch is not its last record where records were compacted away.
        first, self.next_fetch_offset = self.next_fetch_offset, records.next_fetch_offset
        return iter((Fetched(partition, first, batches),) if batches else ())


class _Wholes:
    """The client's batches, each as a `_Whole`."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.has_next = batches.has_next

    def next_batch(self) -> _Whole:
        return _Whole(self._batches.next_batch())


class _Whole:
    """A batch, and the one record in it that stands for all."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batch, name)

    def __iter__(self) -> Iterator[_Whole]:
        return iter((self,))

    def __next__(self) -> Any:
        """The record of a control batch."""
        return next(self.batch)

    @property
    def offset(self) -> int:
        """Of its last record."""
        return int(self.batch.next_offset) - 1


def _get_whole(_: object, whole: _Whole) -> _Whole:
    return whole
