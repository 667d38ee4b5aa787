"""One feed's end in the clients' loop: its credit, its shares, and what waits to be handed over.

The laws:

1. **Credit.** What was handed over and is not settled is never more than `max_in_flight` messages,
   nor, but for a single one, more than `max_in_flight_bytes`.
2. What was fetched and finds no credit waits here, one fetch of each partition at most; until it
   has gone, nothing more is taken of that partition.
3. What is settled for a share that is gone has no effect.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from aiokafka.structs import ConsumerRecord, TopicPartition

from ..._errors import TbusError
from ..._message import Delivery, Position
from ..._transport import FeedRequest, Verdict
from ._records import decode_headers, decode_key
from ._share import Share

OVERHEAD = 128
"""Bytes that a message counts beside its body."""


class TopicConsumer:
    """Reads one topic for one feed.

    Args:
        tell: hands deliveries to the program: `tell(batch)`.
        fail: says that the feed cannot go on: `fail(error)`.
        drain: asks the program to let what runs of some partitions end, and to say so.
        lose: tells it that some partitions are gone.

    Attributes:
        on_room: called when there may be credit again.
        on_settled: called when something was settled.
    """

    def __init__(
        self,
        request: FeedRequest,
        *,
        tell: Callable[[list[Delivery]], None],
        fail: Callable[[TbusError], None],
        drain: Callable[[dict[int, int]], None],
        lose: Callable[[dict[int, int]], None],
    ) -> None:
        self.request = request
        self.fail = fail
        self.stopped = False
        self.shares: dict[int, Share] = {}
        self.on_room: Callable[[], None] = _nothing
        self.on_settled: Callable[[], None] = _nothing
        self._tell = tell
        self._drain = drain
        self._lose = lose
        self._waiting: dict[int, deque[ConsumerRecord]] = {}
        self._in_flight = 0
        self._bytes = 0
        self._blocked = False
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._undrained: set[int] = set()
        self._on_drained: Callable[[], None] = _nothing

    # Shares

    def add(self, share: Share) -> None:
        """A partition is owned from now on."""
        self.shares[share.partition] = share

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Every share is about to go: hand over nothing more, and have it said when nothing of
        them runs any more."""
        self._waiting.clear()
        self._undrained = set(self.shares)
        self._on_drained = on_drained
        for share in self.shares.values():
            share.draining = True
        if self._undrained:
            self._drain(self._epochs())
        else:
            on_drained()

    def drained(self, partitions: frozenset[int]) -> None:
        """The program says that nothing of them runs any more."""
        self._undrained -= partitions
        if not self._undrained:
            self._on_drained()

    def lose(self) -> None:
        """What has not been settled by now will not be, not here."""
        self._waiting.clear()
        if self.shares:
            self._lose(self._epochs())

    def _epochs(self) -> dict[int, int]:
        return {number: share.epoch for number, share in self.shares.items()}

    def drop_shares(self) -> None:
        """The partitions are owned no more."""
        for share in self.shares.values():
            self._in_flight -= len(share)
            self._bytes -= share.forget_in_flight()
        self.shares.clear()
        self._waiting.clear()

    # Handing over

    def wanted(self) -> list[TopicPartition]:
        """The partitions of which more may be taken."""
        if self.stopped or self._blocked:
            return []
        topic = self.request.topic
        return [
            TopicPartition(topic, number)
            for number, share in self.shares.items()
            if not share.draining and number not in self._waiting
        ]

    def take(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        """Records of a partition were fetched."""
        if partition in self.shares and records:
            self._waiting[partition] = deque(records)

    def hand_over(self) -> None:
        """Give the program as much of what waits as there is credit for."""
        if self.stopped:
            return
        batch: list[Delivery] = []
        request = self.request
        room = request.max_in_flight - self._in_flight
        bytes_room = request.max_in_flight_bytes - self._bytes
        idle = not self._in_flight
        self._blocked = False
        for number in list(self._waiting):
            waiting = self._waiting[number]
            share = self.shares[number]
            epoch = share.epoch
            while waiting:
                record = waiting[0]
                body = record.value or b""
                size = len(body) + OVERHEAD
                if room < 1 or (size > bytes_room and not idle):
                    self._blocked = True
                    break
                waiting.popleft()
                offset = record.offset
                if not share.open(offset, size):
                    continue
                idle = False
                room -= 1
                bytes_room -= size
                headers, keyed = decode_headers(record.headers)
                batch.append(
                    Delivery(
                        Position(number, offset),
                        body,
                        headers,
                        record.timestamp / 1000,
                        decode_key(record.key),
                        keyed,
                        epoch,
                        0,
                        size,
                    )
                )
            if self._blocked:
                break
            del self._waiting[number]
        self._in_flight = request.max_in_flight - room
        self._bytes = request.max_in_flight_bytes - bytes_room
        if batch:
            self._tell(batch)

    def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Say how a delivery ended. What is not this feed's any more is ignored."""
        share = self.shares.get(delivery.position.partition)
        if share is None:
            return
        size = share.settle(delivery, verdict)
        if size is None:
            return
        self._in_flight -= 1
        self._bytes -= size
        self.on_settled()
        if self._blocked and not self._scheduled:
            # Settlements come in batches: one look when all of this pass are in.
            self._scheduled = True
            self._loop.call_soon(self._hand_over_more)

    def _hand_over_more(self) -> None:
        self._scheduled = False
        self.hand_over()
        if not self._blocked:
            self.on_room()

    def note_attempts(self, delivery: Delivery, attempts: int) -> None:
        """Handling it has failed so often."""
        share = self.shares.get(delivery.position.partition)
        if share is not None and share.epoch == delivery.epoch:
            share.note_attempts(delivery.position.offset, attempts)
            self.on_settled()

    def stop(self) -> None:
        """Hand over nothing more."""
        self.stopped = True
        self._waiting.clear()


def _nothing() -> None:
    pass
