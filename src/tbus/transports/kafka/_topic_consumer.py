"""One feed's end in the clients' loop: its credit, its shares, and what waits to be handed over.

The laws:

1. **Credit.** What was handed over and is not settled is never more than `max_in_flight` messages,
   nor, but for a single one, more than `max_in_flight_bytes`.
2. What was fetched and finds no credit waits here, one fetch of each partition at most; until it
   has gone, nothing more is taken of that partition.
3. What is settled for a share that is gone is not committed. It is remembered, until the share
   after the next: this process does not repeat it if it has the partition again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiokafka.structs import TopicPartition

from ..._errors import TbusError
from ..._message import Delivery
from ..._transport import FeedRequest
from ._share import Share

_NONE: frozenset[int] = frozenset()  # one for all: each would take 216 bytes


class TopicConsumer:
    """Reads one topic for one feed.

    Args:
        tell: hands deliveries to the program: `tell(batch)`.
        fail: says that the feed cannot go on: `fail(error)`.
        drain: asks the program to let what runs of some partitions end, and to say so.
        lose: tells it that some partitions are gone.

    Attributes:
        on_room: called when there may be credit again.
        on_settled: called with how many were settled.
        store: has all that is to be committed committed, and calls back.
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
        self.former: dict[int, Share] = {}
        """The last share of each partition that is gone, while anything may come of it."""
        self.on_room: Callable[[], None] = _nothing
        self.on_settled: Callable[[int], None] = _no_count
        self.store: Callable[[Callable[[], None]], None] = _at_once
        self._tell = tell
        self._drain = drain
        self._lose = lose
        self._waiting: dict[int, list[Delivery]] = {}
        self._in_flight = 0
        self._bytes = 0
        self._blocked = False
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._undrained = _NONE
        self._on_drained: Callable[[], None] = _nothing

    # Shares

    def add(self, share: Share) -> None:
        """A partition is owned from now on."""
        former = self.former.get(share.partition)
        if former is not None and not len(former.watermark):
            del self.former[share.partition]  # the new one knows all of it, and nothing more comes
        self.shares[share.partition] = share

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Every share is about to go: hand over nothing more, and have it said when nothing of
        them runs any more."""
        self._waiting.clear()
        self._undrained = frozenset(self.shares)
        self._on_drained = on_drained
        for share in self.shares.values():
            share.draining = True
        if self._undrained:
            self._drain(self._epochs())
        else:
            on_drained()

    def drained(self, partitions: frozenset[int]) -> None:
        """The program says that nothing of them runs any more."""
        self._undrained = self._undrained - partitions or _NONE
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
        self.former.update(self.shares)
        self.shares.clear()
        self._waiting.clear()
        self._in_flight = self._bytes = 0
        self._blocked = False  # nothing is left whose settlement would say that there is room

    # Handing over

    @property
    def is_blocked(self) -> bool:
        """Whether there is no credit for what waits."""
        return self._blocked

    def wanted(self) -> list[TopicPartition]:
        """The partitions of which more may be taken."""
        if self.stopped or self._blocked:
            return []
        topic = self.request.topic
        return [
            TopicPartition(topic, number)
            for number, share in self.shares.items()
            if not (share.draining or share.held or number in self._waiting)
        ]

    def take(self, partition: int, deliveries: list[Delivery]) -> None:
        """Messages of a partition were fetched; the list is this room's from now on."""
        if partition in self.shares and deliveries:
            self._waiting[partition] = deliveries

    def hand_over(self) -> None:
        """Give the program as much of what waits as there is credit for."""
        if self.stopped:
            return
        batch: list[Delivery] = []
        self._blocked = False
        for number in list(self._waiting):
            self._blocked = self._hand_over_from(number, batch)
            if self._blocked:
                break
            del self._waiting[number]
        if batch:
            self._tell(batch)

    def _hand_over_from(self, number: int, batch: list[Delivery]) -> bool:
        """The same for one partition; whether there was more than the credit allows."""
        waiting = self._waiting[number]
        share = self.shares[number]
        request = self.request
        most, most_bytes = request.max_in_flight, request.max_in_flight_bytes
        # The hot path of consuming, where a microsecond is a tenth of the whole: all at once.
        head = waiting[: most - self._in_flight]
        size = sum([delivery.size for delivery in head])
        if (
            head
            and self._bytes + size <= most_bytes
            and share.open_all([delivery.position.offset for delivery in head])
        ):
            batch += head
            self._in_flight += len(head)
            self._bytes += size
            del waiting[: len(head)]
            return bool(waiting)
        return self._hand_over_singly(waiting, share, batch)

    def _hand_over_singly(
        self, waiting: list[Delivery], share: Share, batch: list[Delivery]
    ) -> bool:
        opened = share.opener()
        suspects = share.suspects
        request = self.request
        count, used = self._in_flight, self._bytes
        taken = 0
        for delivery in waiting:
            size = delivery.size
            if count and (
                count >= request.max_in_flight or used + size > request.max_in_flight_bytes
            ):
                break
            taken += 1
            if opened(delivery.position.offset):
                delivery.attempts = share.attempts(delivery.position.offset)
                if suspects:
                    delivery.redelivered, delivery.suspect = suspects.judge(
                        delivery.position.offset
                    )
                count += 1
                used += size
                batch.append(delivery)
        self._in_flight, self._bytes = count, used
        del waiting[:taken]
        return bool(waiting)

    def settle(self, done: Sequence[Delivery]) -> None:
        """Deliveries are done with. What is not this feed's any more is only remembered."""
        shares = self.shares
        sizes_of: dict[int, dict[int, int]] = {}
        number = -1
        epoch: int | None = None
        sizes: dict[int, int] = {}
        for delivery in done:
            position = delivery.position
            if position.partition != number:
                number = position.partition
                epoch = shares[number].epoch if number in shares else None
                sizes = sizes_of.setdefault(number, {})
            if delivery.epoch == epoch:
                sizes[position.offset] = delivery.size
            else:
                self._remember(delivery)
        count = size = 0
        for number, sizes in sizes_of.items():
            if sizes:
                settled = shares[number].settle(sizes)
                count += len(settled)
                size += sum([sizes[offset] for offset in settled])
        self._make_room(count, size)

    def _remember(self, delivery: Delivery) -> None:
        position = delivery.position
        share = self.former.get(position.partition)
        if share is not None and share.epoch == delivery.epoch:
            share.settle({position.offset})

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Deliveries are not done with, and not in flight any more."""
        count = size = 0
        for delivery in deliveries:
            share = self.shares.get(delivery.position.partition)
            if (
                share is not None
                and share.epoch == delivery.epoch
                and share.give_back(delivery.position.offset)
            ):
                count += 1
                size += delivery.size
        self._make_room(count, size)

    def _make_room(self, count: int, size: int) -> None:
        if not count:
            return
        self._in_flight -= count
        self._bytes -= size
        self.on_settled(count)
        if self._blocked and not self._scheduled:
            # Other crossings of this pass may settle more.
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
            self.on_settled(1)

    def begin(self, delivery: Delivery, stored: Callable[[], None]) -> None:
        """A suspect is about to be handled: `stored` is called when that is stored."""
        share = self.shares.get(delivery.position.partition)
        if share is not None and share.epoch == delivery.epoch:
            if share.suspects.begin(delivery.position.offset):
                self.store(stored)
            else:
                stored()

    def end(self) -> None:
        """Nothing of its shares runs any more: nobody has died."""
        for share in self.shares.values():
            share.owned = False

    def stop(self) -> None:
        """Hand over nothing more."""
        self.stopped = True
        self._waiting.clear()


def _nothing() -> None:
    pass


def _no_count(_: int) -> None:
    pass


def _at_once(stored: Callable[[], None]) -> None:
    stored()
