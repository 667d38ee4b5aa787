"""Sends a producer's batches the short way: no task stands between a batch and the socket.

Lives in the clients' loop. The client's own sender is a task that is woken for what has come, makes
a task for each request and is woken again by that one: six passes of the loop, for which everybody
waits who waits for a receipt. Here a request goes out where its batches were filled, and is
answered where the answer is read. The laws:

1. Of a partition one batch is under way, whoever sends it: the client's list of muted partitions
   says which. So its batches are stored in their order, and one that is repeated keeps its place.
2. To a broker one request is under way, with all that waited for it. Two or three at once hide the
   way there and back, and cost more than that, for they are smaller (measured, 100 publishers).
3. What is out of the ordinary is left to the client's own code: a partition without a leader, a
   broker without a connection, and every answer but that all is stored. Only there is a batch what
   the client takes for one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.producer.message_accumulator import MessageBatch
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.structs import TopicPartition

from ._produce import PRODUCE, VERSIONS, Answerable, Terms, decode, stored_at

MOST = 32 * 1024 * 1024
"""Bytes of records that one request takes to a broker, which closes the connection on more than
`socket.request.max.bytes`: 100 MiB, unless it is told otherwise."""

_NO_LEADER = (None, -1)

_ANSWERABLE = Answerable()

Answered = Callable[[int, BaseException | None], None]
"""Called when a batch is stored, with the offset of its first record, or -1 where the broker knows
that it has them, and no longer where; else with what went wrong."""


def bound_requests(client: AIOKafkaProducer) -> None:
    """Have the client, too, put no more into one request than a broker reads: after an outage it
    repeats by itself whatever has waited, which may be a batch of each of hundreds of partitions.
    """
    accumulator: Any = client._message_accumulator
    drain = accumulator.drain_by_nodes

    def drain_by_nodes(*, ignore_nodes: Any, muted_partitions: Any) -> Any:
        nodes, leaderless = drain(ignore_nodes=ignore_nodes, muted_partitions=muted_partitions)
        for batches in nodes.values():
            first, *others = batches
            room = MOST - batches[first]._builder.size()
            for partition in others:
                room -= batches[partition]._builder.size()
                if room < 0:  # from here on, so that they are the first of the next request
                    accumulator.reenqueue(batches.pop(partition))
        return nodes, leaderless

    accumulator.drain_by_nodes = drain_by_nodes


class Batch:
    """A batch to fill."""

    __slots__ = ("_batch", "append", "count")

    def __init__(self, client: AIOKafkaProducer) -> None:
        self._batch: Any = client.create_batch()
        self.append: Callable[..., object | None] = self._batch._builder.append
        """Adds a record: its number in the batch, time, key, value and headers. Returns None if
        there is no more room."""
        self.count = 0
        """Records, which whoever has filled it says."""

    def close(self) -> Any:
        """What the client takes for a batch to fill, and is full."""
        self._batch._relative_offset = self.count
        self._batch.close()
        return self._batch


@attrs.frozen(eq=False)
class _Stored:
    """A batch that was taken."""

    partition: TopicPartition
    batch: Any
    answered: Answered
    since: float


class Sending:
    """The way of one producer's batches.

    Args:
        start: starts a task in the loop's nursery.
    """

    def __init__(self, client: AIOKafkaProducer, start: Callable[..., None]) -> None:
        self._producer = client
        self._start = start
        self._line: list[_Stored] = []
        """What waits to be sent."""
        self._busy: set[int] = set()
        """Brokers to which a request is under way."""
        self._under_way: set[TopicPartition] = set()
        """Partitions of which a batch is, sent here."""
        self._terms: dict[int, Terms] = {}
        """By the greatest version that a connection takes."""

    def store(self, batch: Batch, partition: TopicPartition, answered: Answered) -> None:
        """Take a batch, which goes out with the next `send`."""
        self._line.append(_Stored(partition, batch.close(), answered, time.monotonic()))

    def send(self) -> None:
        """Send what was taken to every broker that has answered."""
        if not self._line:
            return
        line, self._line = self._line, []
        client = self._producer.client
        leader_of = client.cluster.leader_for_partition
        batches = self._producer._message_accumulator
        muted = self._producer._sender._muted_partitions
        if batches._closed or batches._exception is not None:
            for stored in line:
                stored.answered(-1, batches._exception or kafka.ProducerClosed())
            return
        requests: dict[Any, list[_Stored]] = {}
        room: dict[Any, int] = {}
        for stored in line:
            partition = stored.partition
            node = leader_of(partition)
            if partition in self._under_way or node in self._busy:
                self._line.append(stored)
                continue
            if node in _NO_LEADER:
                client.add_topic(partition.topic)  # another of its producers may have learnt it
            connection = client._conns.get((node, ConnectionGroup.DEFAULT))
            if (
                partition in muted
                or batches._batches.get(partition)
                or node in _NO_LEADER
                or connection is None
                or not connection.connected()
                or self._terms_of(connection) is None
            ):
                self._leave_to_client(stored)
                continue
            room[node] = room.get(node, MOST) - stored.batch.size()
            if room[node] < 0 and node in requests:
                self._line.append(stored)  # with all that follows for this broker: in their order
                room[node] = 0
                continue
            self._under_way.add(partition)
            requests.setdefault(node, []).append(stored)
        for node, request in requests.items():
            self._request(node, client._conns[node, ConnectionGroup.DEFAULT], request)

    def _terms_of(self, connection: Any) -> Terms | None:
        """What is asked by a connection; None if its broker speaks in another way."""
        least, most = connection._versions.get(PRODUCE, (0, 0))
        terms = self._terms.get(most)
        if terms is None:
            version = min(most, VERSIONS[-1])
            if version not in VERSIONS or version < least:
                return None
            sender = self._producer._sender
            name = connection._client_id.encode()
            terms = Terms(version, name, sender._acks, sender._request_timeout_ms)
            self._terms[most] = terms
        return terms

    def _request(self, node: int, connection: Any, line: Sequence[_Stored]) -> None:
        sender = self._producer._sender
        numbers = sender._txn_manager
        batches: list[tuple[TopicPartition, bytes]] = []
        for stored in line:
            partition, batch = stored.partition, stored.batch
            if numbers is not None:
                first = numbers.sequence_number(partition)
                numbers.increment_sequence_number(partition, batch.record_count())
                batch._set_producer_state(numbers.producer_id, numbers.producer_epoch, first)
            batches.append((partition, batch._build()))
        sender._muted_partitions.update(self._under_way)
        self._busy.add(node)
        terms = self._terms_of(connection)
        assert terms is not None
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        number = connection._next_correlation_id()
        try:
            connection._writer.write(terms.encode(number, batches))
        except OSError as error:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            answer.set_exception(kafka.KafkaConnectionError(f"while it was written to: {error}"))
        else:
            connection._requests.append((number, _ANSWERABLE, answer))
        timer = loop.call_later(connection._request_timeout, _give_up, connection, answer)
        answer.add_done_callback(partial(self._answered, node, terms.version, line, timer))

    def _answered(
        self,
        node: int,
        version: int,
        line: Sequence[_Stored],
        timer: asyncio.TimerHandle,
        answer: asyncio.Future[bytes],
    ) -> None:
        timer.cancel()
        self._busy.discard(node)
        found = None
        if not answer.cancelled() and answer.exception() is None:
            found = stored_at(answer.result(), version)
        if found is None or any(stored.partition not in found for stored in line):
            self._start(self._recover, node, version, line, answer)
        else:
            self._unmute(line)
            for stored in line:
                stored.answered(found[stored.partition], None)
        self.send()  # others have waited for this answer

    def _unmute(self, line: Sequence[_Stored]) -> None:
        partitions = [stored.partition for stored in line]
        self._under_way.difference_update(partitions)
        self._producer._sender._muted_partitions.difference_update(partitions)

    # What is left to the client

    def _leave_to_client(self, stored: _Stored) -> None:
        """Have the client send a batch, when it can."""
        batches = self._producer._message_accumulator
        batches._batches[stored.partition].append(self._as_clients(stored))
        self._wake_client()

    def _wake_client(self) -> None:
        waiter = self._producer._message_accumulator.waiter()
        if not waiter.done():
            waiter.set_result(None)

    def _as_clients(self, stored: _Stored) -> MessageBatch:
        ttl = self._producer._message_accumulator._batch_ttl
        batch = MessageBatch(stored.partition, stored.batch, ttl, 0)
        batch._ctime = stored.since  # from then on its time runs
        batch.future.add_done_callback(partial(_tell, stored.answered))
        return batch

    async def _recover(
        self, node: int, version: int, line: Sequence[_Stored], answer: asyncio.Future[bytes]
    ) -> None:
        """Have the client do what it does with such an answer: fail, or repeat."""
        sent = {stored.partition: self._as_clients(stored) for stored in line}
        pending = self._producer._message_accumulator._pending_batches
        for batch in sent.values():
            batch.drain_ready()
            pending.add(batch)
            batch.future.add_done_callback(partial(_discard, pending, batch))
        handler = SendProduceReqHandler(self._producer._sender, sent)
        handler._client = _Answered(handler._client, version, answer)
        try:
            await handler.do(node)
            ended = self._producer._message_accumulator._exception
            for batch in sent.values():
                if ended is not None:
                    batch.failure(ended)  # nobody takes what is to be repeated
                elif batch not in handler._to_reenqueue:  # nor has an outcome: nobody told it
                    batch.failure(kafka.KafkaError("the answer does not say what became of it"))
        except Exception as error:  # noqa: BLE001 - told to everyone whose events these are
            for batch in sent.values():
                batch.failure(kafka.KafkaError(f"after an answer: {error!r}"))
        finally:
            self._unmute(line)
        self._wake_client()  # what is to be repeated is the client's
        self.send()


class _Answered:
    """The client, for a request that was sent, and what came of it."""

    def __init__(self, client: Any, version: int, answer: asyncio.Future[bytes]) -> None:
        self._client = client
        self._version = version
        self._answer = answer

    async def send(self, _: int, __: object) -> Any:
        if self._answer.cancelled():
            raise kafka.KafkaConnectionError("the request was cancelled")
        return decode(self._answer.result(), self._version)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def _tell(answered: Answered, outcome: asyncio.Future[Any]) -> None:
    """What became of a batch that was the client's."""
    error = kafka.KafkaError("cancelled") if outcome.cancelled() else outcome.exception()
    answered(-1 if error is not None else int(outcome.result().offset), error)


def _discard(pending: set[MessageBatch], batch: MessageBatch, _: object) -> None:
    pending.discard(batch)


def _give_up(connection: Any, answer: asyncio.Future[bytes]) -> None:
    """Nobody has answered: other requests would wait behind this one."""
    if not answer.done():
        answer.set_exception(kafka.RequestTimedOutError())
        connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
