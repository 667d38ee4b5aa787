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
   broker without a connection, and every answer but that all is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.producer.message_accumulator import MessageBatch
from aiokafka.producer.sender import SendProduceReqHandler
from aiokafka.structs import TopicPartition

_NO_LEADER = (None, -1)


class Sending:
    """The way of one producer's batches.

    Args:
        start: starts a task in the loop's nursery.
    """

    def __init__(self, client: AIOKafkaProducer, start: Callable[..., None]) -> None:
        self._producer = client
        self._start = start
        self._busy: set[int] = set()
        """Brokers to which a request is under way."""

    def store(self, batch: Any, partition: TopicPartition) -> asyncio.Future[Any]:
        """Take a batch, which goes out with the next `send`; one of each partition at a time.

        Returns:
            What the broker answers, see `Producer.store`.
        """
        batches = self._producer._message_accumulator
        stored = MessageBatch(partition, batch, batches._batch_ttl, 0)
        batches._batches[partition].append(stored)
        answer: asyncio.Future[Any] = stored.future
        return answer

    def send(self) -> None:
        """Send what was taken to every broker that has answered."""
        client = self._producer.client
        leader_of = client.cluster.leader_for_partition
        muted = self._producer._sender._muted_partitions
        ready: dict[Any, list[TopicPartition]] = {}
        for partition, line in self._producer._message_accumulator._batches.items():
            # One that was given up has its outcome: stored now, it would come behind later ones.
            if partition not in muted and line and not line[0].future.done():
                ready.setdefault(leader_of(partition), []).append(partition)
        for node, partitions in ready.items():
            connection = client._conns.get((node, ConnectionGroup.DEFAULT))
            if node in _NO_LEADER or connection is None or not connection.connected():
                self._leave_to_client()
            elif node not in self._busy:
                self._request(node, connection, partitions)

    def _leave_to_client(self) -> None:
        waiter = self._producer._message_accumulator.waiter()
        if not waiter.done():
            waiter.set_result(None)

    def _request(self, node: int, connection: Any, partitions: list[TopicPartition]) -> None:
        batches = self._producer._message_accumulator
        sender = self._producer._sender
        handler = SendProduceReqHandler(
            sender, {partition: batches._pop_batch(partition) for partition in partitions}
        )
        sender._muted_partitions.update(partitions)
        self._busy.add(node)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any]
        try:
            # It would be a task's to wait for it.
            connection.send(handler.create_request()).close()
        except kafka.KafkaError as error:
            answer = loop.create_future()
            answer.set_exception(error)
        else:
            answer = connection._requests[-1][2]
        timer = loop.call_later(connection._request_timeout, _give_up, connection, answer)
        answer.add_done_callback(partial(self._answered, node, handler, timer))

    def _answered(
        self,
        node: int,
        handler: SendProduceReqHandler,
        timer: asyncio.TimerHandle,
        answer: asyncio.Future[Any],
    ) -> None:
        timer.cancel()
        self._busy.discard(node)
        if not answer.cancelled() and answer.exception() is None and _is_good(answer.result()):
            handler.handle_response(answer.result())
            self._producer._sender._muted_partitions.difference_update(handler._batches)
            self.send()
        else:
            self._start(self._recover, node, handler, answer)
            self.send()  # others have waited for this answer

    async def _recover(
        self, node: int, handler: SendProduceReqHandler, answer: asyncio.Future[Any]
    ) -> None:
        """Have the client do what it does with such an answer: fail, or repeat."""
        handler._client = _Answered(handler._client, answer)
        try:
            await handler.do(node)
        except Exception as error:  # noqa: BLE001 - told to everyone whose events these are
            for batch in handler._batches.values():
                batch.failure(kafka.KafkaError(f"after an answer: {error!r}"))
        finally:
            self._producer._sender._muted_partitions.difference_update(handler._batches)
        self.send()


class _Answered:
    """The client, for a request that was sent, and what came of it."""

    def __init__(self, client: Any, answer: asyncio.Future[Any]) -> None:
        self._client = client
        self._answer = answer

    async def send(self, _: int, __: object) -> Any:
        if self._answer.cancelled():
            raise kafka.KafkaConnectionError("the request was cancelled")
        return self._answer.result()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def _is_good(response: Any) -> bool:
    """Whether all of it is stored."""
    for _, partitions in response.topics:
        for about in partitions:
            if about[1]:
                return False
    return True


def _give_up(connection: Any, answer: asyncio.Future[Any]) -> None:
    """Nobody has answered: other requests would wait behind this one."""
    if not answer.done():
        answer.set_exception(kafka.RequestTimedOutError())
        connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
