"""What is read of answers that are here: nothing behind a failure, whoever reads next."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from tbus._message import Delivery
from tbus.transports.kafka._fetching import Fetching
from tbus.transports.kafka._share import Share
from tbus.transports.kafka._topic_consumer import TopicConsumer

PART = TopicPartition("t", 0)


class Broken(Exception):
    pass


class HalfRead:
    """An answer whose first slice cannot be read; what stands behind it could."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, epoch: int) -> list[Delivery]:
        assert epoch == 5
        self.reads += 1
        if self.reads == 1:
            raise Broken
        return []


def reading(answer: HalfRead) -> Fetching:
    request: Any = SimpleNamespace(
        topic="t", group="g", max_in_flight=100, max_in_flight_bytes=1 << 20,
        max_deliveries=None, start="earliest",
    )  # fmt: skip

    def never(*_: object) -> None:
        raise AssertionError

    consumer = TopicConsumer(request, tell=never, fail=never, drain=never, lose=never)
    share = Share(0, 5, 0, None, 0)
    consumer.add(share)
    nothing: Any = None
    fetching = Fetching(nothing, nothing, {"t": consumer})
    found: Any = answer
    fetching._fetched[PART] = share, found
    return fetching


def test_nothing_is_read_behind_a_slice_that_could_not_be_read():
    async def main() -> None:
        answer = HalfRead()
        fetching = reading(answer)
        fetching.read_on()
        assert fetching._kick.done(), "nobody is woken to tell of it"
        fetching.read_on()
        with pytest.raises(Broken):
            fetching._read()
        assert answer.reads == 1

    asyncio.run(main())


def test_a_failure_amid_taking_ends_the_round_that_takes():
    """It is found where room was made, while the reader's own round waits for something."""

    async def main() -> None:
        answer = HalfRead()
        fetching: Any = reading(answer)
        loop = asyncio.get_running_loop()
        fetching._consumer = SimpleNamespace(
            _fetcher=SimpleNamespace(
                error_future=loop.create_future(), _records={}, _create_fetch_waiter=None,
                _partition_records=None, _consumer_record=None,
            ),
            _coordinator=None,
        )  # fmt: skip

        async def fetch() -> None:
            fetching.read_on()

        fetching._fetch = fetch
        with pytest.raises(Broken):
            await fetching.run()
        assert answer.reads == 1

    asyncio.run(main())
