"""How batches go out, by a producer of aiokafka's and a connection that the tests answer."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.produce import ProduceResponse_v7
from aiokafka.structs import TopicPartition

from tbus.transports.kafka._sending import Sending
from tests.mechanisms.kafka_kit import run

ONE, TWO = TopicPartition("t", 0), TopicPartition("t", 1)


class HandConnection:
    """What was sent, to be answered by the test."""

    def __init__(self) -> None:
        self._requests: list[tuple[int, Any, asyncio.Future[Any]]] = []
        self._request_timeout = 30.0
        self.open = True
        self.closed: list[object] = []
        self.error: Exception | None = None

    def connected(self) -> bool:
        return self.open

    def send(self, request: Any) -> Any:
        if self.error is not None:
            raise self.error
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._requests.append((len(self._requests), request, answer))

        async def wait() -> Any:
            return await answer

        return wait()

    def close(self, reason: object = None) -> None:
        self.open = False
        self.closed.append(reason)

    @property
    def sent(self) -> list[dict[TopicPartition, bytes]]:
        """The batches of every request."""
        return [
            {
                TopicPartition(topic, number): bytes(batch)
                for topic, batches in request._topics
                for number, batch in batches
            }
            for _, request, _ in self._requests
        ]

    def answer(self, number: int = -1, *, code: int = 0, offset: int = 5) -> None:
        """All of a request is stored, or nothing."""
        parts = [
            (part.topic, [(part.partition, code, offset, -1, 0)]) for part in self.sent[number]
        ]
        self._requests[number][2].set_result(ProduceResponse_v7(parts, 0))


class Rig:
    """A producer that has its numbers, and one broker."""

    def __init__(self) -> None:
        self.client: Any = AIOKafkaProducer(
            bootstrap_servers="nowhere:9", enable_idempotence=True, acks="all"
        )
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

    def store(self, partition: TopicPartition, *bodies: bytes) -> asyncio.Future[Any]:
        """Store a batch, and send."""
        batch = self.client.create_batch()
        for body in bodies:
            batch.append(timestamp=1, key=None, value=body)
        answer = self.sending.store(batch, partition)
        self.sending.send()
        return answer

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
    assert (await answer).offset == 41


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
async def test_a_batch_of_a_partition_that_the_client_sends_itself_waits_for_it(rig):
    rig.client._sender._muted_partitions.add(ONE)
    rig.store(ONE, b"a")
    rig.store(TWO, b"b")
    assert [list(batches) for batches in rig.connection.sent] == [[TWO]]
    rig.client._sender._muted_partitions.discard(ONE)
    rig.connection.answer()
    await settle()
    assert list(rig.connection.sent[1]) == [ONE]


@with_rig
async def test_the_client_itself_sends_nothing_of_a_partition_that_has_a_batch_under_way(rig):
    rig.store(ONE, b"a")
    rig.store(ONE, b"b")
    rig.store(TWO, b"c")
    drained, _ = rig.client._message_accumulator.drain_by_nodes(
        ignore_nodes=(), muted_partitions=rig.client._sender._muted_partitions
    )
    assert [list(batches) for batches in drained.values()] == [[TWO]]


@with_rig
async def test_a_batch_that_was_refused_for_a_while_is_repeated_as_it_was(rig):
    """With the numbers that tell the broker that it is the same."""
    answer = rig.store(ONE, b"a", b"b")
    rig.connection.answer(code=kafka.NotLeaderForPartitionError.errno)
    await settle()
    assert not answer.done()
    await asyncio.sleep(1)
    first, again = rig.connection.sent
    assert first == again
    rig.connection.answer()
    assert (await answer).offset == 5


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
    rig.connection.error = kafka.KafkaConnectionError("broken")
    answer = rig.store(ONE, b"a")
    rig.connection.error = None
    await asyncio.sleep(1)
    assert list(rig.connection.sent[0]) == [ONE]
    rig.connection.answer()
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
