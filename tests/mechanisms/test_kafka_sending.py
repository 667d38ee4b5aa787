"""How batches go out, by a producer of aiokafka's and a connection that the tests answer."""

from __future__ import annotations

import asyncio
import gc
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.api import RequestHeader_v1
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.structs import TopicPartition

from tbus.transports.kafka import _sending
from tbus.transports.kafka._sending import Batch, Sending, bound_requests
from tests.mechanisms.kafka_kit import run

ONE, TWO, OTHER = TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("other", 3)

REQUESTS = ProduceRequest._CLASSES


class HandConnection:
    """What was written, to be answered by the test."""

    def __init__(self) -> None:
        self._requests: list[tuple[int, Any, asyncio.Future[Any]]] = []
        self._request_timeout = 30.0
        self._versions = {0: (0, 11)}
        self._client_id = "me"
        self._writer = self
        self.open = True
        self.closed: list[object] = []
        self.error: Exception | None = None
        self.sent: list[dict[TopicPartition, bytes]] = []
        """The batches of every request."""

    @property
    def kind(self) -> Any:
        """The request that this broker understands, as the client describes it."""
        version = min(self._versions[0][1], 7)
        return next(one for one in REQUESTS if version == one.API_VERSION)

    def connected(self) -> bool:
        return self.open

    def _next_correlation_id(self) -> int:
        return 1000 + len(self.sent)

    def write(self, data: bytes) -> None:
        """Take a request, which the client's own description of it must fit."""
        if self.error is not None:
            raise self.error
        source = io.BytesIO(data)
        assert int.from_bytes(source.read(4)) == len(data) - 4
        kind = self.kind
        header = RequestHeader_v1.SCHEMA.decode(source)
        assert header == (0, kind.API_VERSION, 1000 + len(self.sent), "me")
        transaction, acks, wait, topics = kind.SCHEMA.decode(source)
        assert (transaction, acks, wait, source.read()) == (None, -1, 40000, b"")
        self.sent.append(
            {
                TopicPartition(topic, number): batch
                for topic, batches in topics
                for number, batch in batches
            }
        )

    def close(self, reason: object = None) -> None:
        self.open = False
        self.closed.append(reason)

    def answer(self, number: int = -1, *, code: int = 0, offset: int = 5) -> None:
        """All of a request is stored, or nothing."""
        topics: dict[str, list[tuple[int, ...]]] = {}
        for part in self.sent[number]:
            about = (part.partition, code, offset, -1)
            topics.setdefault(part.topic, []).append(
                about if self._versions[0][1] < 5 else (*about, 0)
            )
        self.answer_with(number, topics)

    def answer_with(self, number: int, topics: dict[str, list[tuple[int, ...]]]) -> None:
        """Answer as the client would read it."""
        correlation, request, answer = self._requests[number]
        body = correlation.to_bytes(4) + self.kind.RESPONSE_TYPE(list(topics.items()), 0).encode()
        source = io.BytesIO(body)
        assert request.parse_response_header(source).correlation_id == correlation
        answer.set_result(request.RESPONSE_TYPE.decode(source))


class Rig:
    """A producer that has its numbers, and one broker."""

    def __init__(self) -> None:
        self.client: Any = AIOKafkaProducer(
            bootstrap_servers="nowhere:9", enable_idempotence=True, acks="all"
        )
        bound_requests(self.client)
        self.client._txn_manager.set_pid_and_epoch(7, 0)
        self.client.client.cluster.leader_for_partition = lambda _: 1
        self.client.client.force_metadata_update = lambda: None  # nobody is there to be asked
        self.connection = HandConnection()
        self.client.client._conns[1, ConnectionGroup.DEFAULT] = self.connection
        self.sending = Sending(self.client, self._start)
        self.tasks: set[asyncio.Task[None]] = set()

    def _start(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        async def call() -> None:
            await function(*args)

        task = asyncio.get_running_loop().create_task(call())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def store(self, partition: TopicPartition, *bodies: bytes) -> asyncio.Future[int]:
        """Store a batch, and send; returns the offset that it is stored at."""
        batch = Batch(self.client)
        for number, body in enumerate(bodies):
            batch.append(number, 1, None, body, [])
        batch.count = len(bodies)
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def answered(offset: int, error: BaseException | None) -> None:
            if error is None:
                outcome.set_result(offset)
            else:
                outcome.set_exception(error)

        self.sending.store(batch, partition, answered)
        self.sending.send()
        return outcome

    def drain(self) -> dict[TopicPartition, bytes]:
        """What the client itself would send now, as it would."""
        drained, _ = self.client._message_accumulator.drain_by_nodes(
            ignore_nodes=(), muted_partitions=self.client._sender._muted_partitions
        )
        self.drained = drained.get(1, {})
        return {part: bytes(batch.get_data_buffer()) for part, batch in self.drained.items()}

    def is_left_to_client(self) -> bool:
        return bool(self.client._message_accumulator.waiter().done())

    def end(self) -> None:
        """As if it were stopped, which a client that was never started cannot be."""
        self.client.client._conns.clear()
        self.client._closed = True


def with_rig(test: Callable[[Rig], Awaitable[None]]) -> Callable[[], None]:
    async def main() -> None:
        rig = Rig()
        try:
            await test(rig)
        finally:
            rig.end()
        assert not rig.tasks

    def runner() -> None:
        run(main)
        gc.collect()

    runner.__name__ = runner.__qualname__ = test.__name__
    return runner


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@with_rig
async def test_a_batch_goes_out_at_once_and_is_answered_with_its_offset(rig):
    answer = rig.store(ONE, b"a")
    assert [list(batches) for batches in rig.connection.sent] == [[ONE]]
    assert not rig.is_left_to_client()
    rig.connection.answer(offset=41)
    assert await answer == 41


@with_rig
async def test_what_comes_while_a_broker_works_goes_together_when_it_has_answered(rig):
    rig.store(ONE, b"a")
    second = rig.store(TWO, b"b")
    await settle()
    assert len(rig.connection.sent) == 1
    rig.connection.answer()
    await settle()
    third = rig.store(ONE, b"c")
    assert [list(batches) for batches in rig.connection.sent] == [[ONE], [TWO]]
    rig.connection.answer()
    await settle()
    assert second.done()
    assert list(rig.connection.sent[2]) == [ONE]
    rig.connection.answer()
    await third


@with_rig
async def test_a_batch_of_a_partition_that_the_client_sends_itself_is_left_to_it(rig):
    rig.client._sender._muted_partitions.add(ONE)
    rig.store(ONE, b"a")
    rig.store(TWO, b"b")
    assert [list(batches) for batches in rig.connection.sent] == [[TWO]]
    assert rig.is_left_to_client()
    assert rig.drain() == {}
    rig.client._sender._muted_partitions.discard(ONE)
    assert list(rig.drain()) == [ONE]


@with_rig
async def test_behind_a_batch_that_waits_for_the_client_nothing_overtakes_it(rig):
    rig.connection.open = False
    first = rig.store(ONE, b"a")
    rig.connection.open = True
    rig.store(ONE, b"b")
    assert rig.connection.sent == []
    assert b"a" in rig.drain()[ONE]
    rig.drained[ONE].done(7)
    assert await first == 7
    assert b"b" in rig.drain()[ONE]


@with_rig
async def test_of_a_partition_one_batch_is_under_way(rig):
    rig.store(ONE, b"a")
    rig.store(ONE, b"b")
    rig.store(TWO, b"c")
    assert rig.drain() == {}
    rig.connection.answer()
    await settle()
    assert [list(batches) for batches in rig.connection.sent] == [[ONE], [ONE, TWO]]


@with_rig
async def test_two_batches_of_a_partition_never_share_a_request(rig):
    rig.store(TWO, b"a")
    second, third = rig.store(ONE, b"b"), rig.store(ONE, b"c")
    rig.connection.answer()
    await settle()
    assert list(rig.connection.sent[1]) == [ONE]
    rig.connection.answer(offset=8)
    await settle()
    rig.connection.answer(offset=9)
    assert [await second, await third] == [8, 9]


@with_rig
async def test_batches_of_a_partition_are_numbered_on(rig):
    rig.store(ONE, b"a", b"b")
    rig.connection.answer()
    await settle()
    rig.store(ONE, b"c")
    numbers = [
        (one.producer_id, one.producer_epoch, one.base_sequence)
        for one in (DefaultRecordBatch(sent[ONE]) for sent in rig.connection.sent)
    ]
    assert numbers == [(7, 0, 0), (7, 0, 2)]


@pytest.mark.parametrize("most", [3, 4, 5, 6])
def test_an_older_broker_is_asked_in_its_own_words(most):
    @with_rig
    async def test(rig: Rig) -> None:
        rig.connection._versions[0] = (0, most)
        rig.store(OTHER, b"a")
        stored = [rig.store(part, b"b") for part in (ONE, TWO)]
        rig.connection.answer()
        await settle()
        rig.connection.answer(offset=41)
        assert [await one for one in stored] == [41, 41]

    test()


@pytest.mark.parametrize("versions", [(0, 2), (9, 11)])
def test_a_broker_of_other_words_is_left_to_the_client(versions):
    @with_rig
    async def test(rig: Rig) -> None:
        rig.connection._versions[0] = versions
        rig.store(ONE, b"a")
        assert rig.is_left_to_client()
        assert rig.connection.sent == []

    test()


@with_rig
async def test_every_batch_of_an_answer_has_its_own_offset(rig):
    rig.store(TWO, b"a")
    outcomes = {part: rig.store(part, b"b") for part in (ONE, OTHER)}
    rig.connection.answer()
    await settle()
    rig.connection.answer_with(1, {"other": [(3, 0, 30, -1, 0)], "t": [(0, 0, 10, -1, 0)]})
    assert {part: await stored for part, stored in outcomes.items()} == {ONE: 10, OTHER: 30}


@with_rig
async def test_a_batch_that_an_answer_does_not_tell_of_has_failed(rig):
    rig.store(OTHER, b"a")
    told, forgotten = rig.store(ONE, b"b"), rig.store(TWO, b"c")
    rig.connection.answer()
    await settle()
    rig.connection.answer_with(1, {"t": [(0, 0, 10, -1, 0)]})
    assert await told == 10
    with pytest.raises(kafka.KafkaError, match="does not say"):
        await forgotten


@pytest.mark.parametrize("ended", ["closed", "failed"])
def test_a_producer_that_has_ended_takes_nothing(ended):
    @with_rig
    async def test(rig: Rig) -> None:
        if ended == "closed":
            await rig.client._message_accumulator.close()
        else:
            rig.client._message_accumulator.fail_all(kafka.ProducerFenced())
        with pytest.raises(kafka.ProducerClosed if ended == "closed" else kafka.ProducerFenced):
            await rig.store(ONE, b"a")
        assert rig.connection.sent == []
        assert not rig.is_left_to_client()

    test()


@with_rig
async def test_a_batch_that_was_refused_for_a_while_is_repeated_as_it_was(rig):
    """With the numbers that tell the broker that it is the same."""
    answer = rig.store(ONE, b"a", b"b")
    rig.connection.answer(code=kafka.NotLeaderForPartitionError.errno)
    await settle()
    assert not rig.is_left_to_client()
    later = rig.store(ONE, b"c")
    await asyncio.sleep(1)
    assert rig.is_left_to_client()
    assert rig.drain() == rig.connection.sent[0]
    rig.drained[ONE].done(5)
    assert await answer == 5
    assert not later.done()
    assert b"c" in rig.drain()[ONE]


@with_rig
async def test_a_refusal_that_will_not_pass_is_the_batches_outcome(rig):
    refused, stored = rig.store(ONE, b"a"), rig.store(TWO, b"b")
    rig.connection.answer(code=kafka.MessageSizeTooLargeError.errno)
    with pytest.raises(kafka.MessageSizeTooLargeError):
        await refused
    await settle()
    rig.connection.answer()
    await stored


@with_rig
async def test_an_answer_about_other_batches_fails_those_that_it_does_not_tell_of(rig):
    lost, later = rig.store(ONE, b"a"), rig.store(TWO, b"b")
    rig.connection.answer_with(-1, {"t": [(7, 0, 10, -1, 0)]})
    with pytest.raises(kafka.KafkaError, match=r"does not say|after an answer"):
        await lost
    await settle()
    rig.connection.answer()
    assert await later == 5


def test_a_request_takes_no_more_than_a_broker_reads(monkeypatch):
    monkeypatch.setattr(_sending, "MOST", 500)

    @with_rig
    async def test(rig: Rig) -> None:
        first = rig.store(OTHER, b"a")
        stored = [rig.store(TopicPartition("t", number), bytes(200)) for number in range(4)]
        for wanted in ([OTHER], [("t", 0)], [("t", 1)], [("t", 2)], [("t", 3)]):
            assert list(rig.connection.sent[-1]) == wanted
            rig.connection.answer()
            await settle()
        assert [await one for one in (first, *stored)] == [5] * 5

    test()


def test_what_the_client_repeats_is_no_more_than_a_broker_reads(monkeypatch):
    monkeypatch.setattr(_sending, "MOST", 600)

    @with_rig
    async def test(rig: Rig) -> None:
        rig.connection.open = False
        large = [TopicPartition("t", number) for number in range(3)]
        for part in large:
            rig.store(part, bytes(200))
        rig.store(ONE, bytes(1000))
        sent = []
        while request := rig.drain():
            assert len(request) == 1 or sum(map(len, request.values())) <= 600
            sent += [(part, DefaultRecordBatch(one).base_sequence) for part, one in request.items()]
            for batch in rig.drained.values():
                batch.done(5)
        assert sent == [(ONE, 0), (large[1], 0), (ONE, 1), (large[2], 0)]

    test()


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"\x00", b"\x7f" * 40, b"\x00\x00\x00\x01\x00\x01\xff\x00\x00\x00\x01" + bytes(30)],
    ids=["nothing", "a byte", "millions of topics", "a name that is no text"],
)
def test_an_answer_that_is_rubbish_fails_its_batch_and_no_later_one(rubbish):
    @with_rig
    async def test(rig: Rig) -> None:
        answer = rig.store(ONE, b"a")
        rig.connection._requests[-1][2].set_result(rubbish)
        with pytest.raises(kafka.KafkaError, match="after an answer"):
            await answer
        await settle()
        later = rig.store(ONE, b"b")
        rig.connection.answer()
        assert await later == 5

    test()


@with_rig
async def test_a_broker_that_does_not_answer_loses_its_connection_and_the_client_goes_on(rig):
    answer = rig.store(ONE, b"a")
    await asyncio.sleep(29.9)
    assert rig.connection.open
    await asyncio.sleep(1)
    assert rig.connection.closed != []
    assert not answer.done()
    assert list(rig.client._message_accumulator._batches) == [ONE]
    assert rig.is_left_to_client()


@with_rig
async def test_an_answer_in_time_leaves_the_connection_alone(rig):
    rig.store(ONE, b"a")
    await asyncio.sleep(29)
    rig.connection.answer()
    await asyncio.sleep(29)
    assert rig.connection.open


@with_rig
async def test_without_a_connection_the_client_makes_one(rig):
    rig.connection.open = False
    rig.store(ONE, b"a")
    assert rig.is_left_to_client()
    assert rig.connection.sent == []
    assert list(rig.client._message_accumulator._batches) == [ONE]


@pytest.mark.parametrize("leader", [None, -1])
def test_without_a_leader_the_client_looks_for_one(leader):
    @with_rig
    async def test(rig: Rig) -> None:
        rig.client.client.cluster.leader_for_partition = lambda _: leader
        rig.client.client._conns[leader, ConnectionGroup.DEFAULT] = rig.connection
        rig.store(ONE, b"a")
        assert rig.is_left_to_client()
        assert rig.connection.sent == []

    test()


@with_rig
async def test_a_connection_that_breaks_while_it_is_written_to_costs_no_batch(rig):
    rig.connection.error = OSError("broken")
    answer = rig.store(ONE, b"a")
    rig.connection.error = None
    await asyncio.sleep(1)
    assert rig.connection.closed != []
    assert rig.is_left_to_client()
    assert list(rig.drain()) == [ONE]
    rig.drained[ONE].done(5)
    await answer


@with_rig
async def test_what_the_client_makes_of_an_answer_fails_its_batches_and_nothing_else(rig):
    answer = rig.store(ONE, b"a")
    rig.client.client.force_metadata_update = None
    rig.connection.answer(code=kafka.NotLeaderForPartitionError.errno)
    with pytest.raises(kafka.KafkaError, match="NoneType"):
        await answer
    await settle()
    later = rig.store(ONE, b"b")
    rig.connection.answer()
    await later
