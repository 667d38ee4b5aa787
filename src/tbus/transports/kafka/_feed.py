"""The program's side of a topic's consumer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from ..._bridge import Bridge
from ..._errors import BusClosed, TbusError
from ..._mailbox import Mailbox
from ..._message import Delivery
from ..._settlements import Settlements
from ..._transport import FeedRequest, Reader, Verdict
from ._topic_consumer import TopicConsumer


class KafkaFeed:
    """A `Feed` over a topic's consumer in the clients' loop.

    Args:
        close: gives the consumer up, in the clients' loop.
        on_close: called in the program when that is done.
    """

    def __init__(
        self,
        request: FeedRequest,
        bridge: Bridge,
        *,
        close: Callable[[TopicConsumer], Awaitable[None]],
        on_close: Callable[[KafkaFeed], None],
    ) -> None:
        self.request = request
        self.consumer: TopicConsumer
        self._bridge = bridge
        self._close = close
        self._on_close = on_close
        # Unbounded, for the consumer's credit bounds it.
        self._batches = Mailbox[list[Delivery]](bridge.runtime)
        self._reader: Reader | None = None
        self._given_up: dict[int, int] = {}
        """The partitions that were given up, and the epoch of that."""
        self._settlements: Settlements | None = None
        self.settle: Callable[[Delivery, Verdict], None]
        """Say how a delivery ended."""
        self._closed = False

    def read_from(self, consumer: TopicConsumer) -> None:
        """The consumer is open."""
        self.consumer = consumer
        self._settlements = Settlements(self._bridge, consumer.settle, consumer.give_back)
        self.settle = self._settlements.add  # itself: it is called for every message

    def read_by(self, reader: Reader) -> None:
        """Who is told when partitions come and go."""
        self._reader = reader

    async def receive(self) -> Sequence[Delivery]:
        """Wait for the next deliveries."""
        while True:
            batch = await self._batches.take()
            for more in self._batches.take_rest():
                batch += more
            if self._given_up:
                batch = [delivery for delivery in batch if self._is_ours(delivery)]
            if batch:
                return batch

    def _is_ours(self, delivery: Delivery) -> bool:
        return delivery.epoch > self._given_up.get(delivery.position.partition, -1)

    def note_attempts(self, delivery: Delivery, attempts: int) -> None:
        """Say how often handling it has failed."""
        if not self._closed:
            self._bridge.submit_if_open(self.consumer.note_attempts, delivery, attempts)

    def begin(self, delivery: Delivery, begun: Callable[[], None]) -> None:
        """A suspect is about to be handled: committed first."""
        if not self._closed:
            stored = partial(self._bridge.post, begun)
            self._bridge.submit_if_open(self.consumer.begin, delivery, stored)

    def stop(self) -> None:
        """Ask for nothing more."""
        self._batches.close()
        if not self._closed:
            self._bridge.submit_if_open(self.consumer.stop)

    async def aclose(self) -> None:
        """Stop, give back, and wait until the broker has heard it."""
        if self._closed:
            return
        self.stop()
        self._closed = True
        if self._settlements is not None:
            self._settlements.close()
        try:
            await self._bridge.call(self._close, self.consumer)
        except BusClosed:
            pass
        finally:
            self._batches.clear()
            self._on_close(self)

    def discard(self) -> None:
        """It was never opened."""
        self._closed = True
        self._batches.clear()

    # Called in the clients' loop

    def tell(self, batch: list[Delivery]) -> None:
        """A batch has arrived."""
        self._bridge.post(self._batches.put_nowait, batch)  # if stopped, whoever reads next has it

    def fail(self, error: TbusError) -> None:
        """The consumer cannot go on."""
        self._bridge.post(self._batches.close, error)

    def drain(self, partitions: dict[int, int]) -> None:
        """These partitions, of these epochs, are about to go to another owner."""
        self._bridge.post(self._begin_drain, partitions)

    def lose(self, partitions: dict[int, int]) -> None:
        """They are gone."""
        self._bridge.post(self._give_up, partitions)

    # Called by the bridge

    def _begin_drain(self, partitions: dict[int, int]) -> None:
        self._given_up.update(partitions)
        gone = frozenset(partitions)
        if self._reader is None:
            self._drained(gone)
        else:
            self._reader.drain(partitions, lambda: self._drained(gone))

    def _drained(self, partitions: frozenset[int]) -> None:
        self._bridge.submit_if_open(self.consumer.drained, partitions)

    def _give_up(self, partitions: dict[int, int]) -> None:
        self._given_up.update(partitions)
        if self._reader is not None:
            self._reader.lose(partitions)
