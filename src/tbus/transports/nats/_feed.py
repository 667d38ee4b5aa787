"""The program's side of a consumer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..._bridge import Bridge
from ..._errors import BusClosed, TbusError
from ..._mailbox import Mailbox
from ..._message import Delivery
from ..._settlements import Settlements
from ..._transport import FeedRequest, Holding, Reader, Verdict
from ._engine import AnyConsumer
from ._group_consumer import GroupConsumer
from ._membership import clock


class NatsFeed:
    """A `Feed` over a consumer in the clients' loop.

    Partitions that are shared by lease are looked at here, too: a process that was suspended may
    get to run its program before its clients' loop, and must not begin anything then. (What it
    settles is looked at in the loop.)
    """

    def __init__(
        self, request: FeedRequest, bridge: Bridge, on_close: Callable[[NatsFeed], None]
    ) -> None:
        self.request = request
        self._consumer: AnyConsumer
        self._group: GroupConsumer | None = None
        self._bridge = bridge
        self._on_close = on_close
        # Unbounded, for the consumer's credit bounds it.
        self._batches = Mailbox[list[Delivery]](bridge.runtime)
        self._settlements: Settlements | None = None
        self.settle: Callable[[Delivery, Verdict], None]
        """Say how a delivery ended."""
        self._reader: Reader | None = None
        self._read: dict[int, int] = {}
        """The partitions of which something may have come, each with its latest epoch."""
        self._given_up: dict[int, int] = {}
        """The partitions that were given up, and the epoch of that."""
        self._closed = False

    @property
    def consumer(self) -> AnyConsumer:
        """What it reads from."""
        return self._consumer

    def read_from(self, consumer: AnyConsumer) -> None:
        """The consumer is open."""
        self._consumer = consumer
        self._settlements = Settlements(self._bridge, consumer.settle, consumer.give_back)
        self.settle = self._settlements.add  # itself: it is called for every message
        self._group = consumer if isinstance(consumer, GroupConsumer) else None

    def read_by(self, reader: Reader) -> Callable[[], bool] | None:
        """Who is told when partitions come and go; returns what to ask before a message is
        begun."""
        self._reader = reader
        if self._group is None:
            return None
        lease, lapse = self._group.membership.lease, self._lapse

        def may_begin() -> bool:
            return clock() < lease.until or lapse()

        return may_begin

    async def receive(self) -> Sequence[Delivery]:
        """Wait for the next deliveries."""
        while True:
            batch = await self._batches.take()
            if self._group is not None:
                batch = self._ours(self._group, batch)
            if batch:
                return batch

    def _ours(self, group: GroupConsumer, batch: list[Delivery]) -> list[Delivery]:
        if clock() >= group.membership.lease.until:
            self._lapse()
        given_up = self._given_up
        if given_up:
            batch = [d for d in batch if d.epoch > given_up.get(d.position.partition, -1)]
        return batch

    def _lapse(self) -> bool:
        """The lease has run out: what was read is given up at once. Always False."""
        lapsed, self._read = self._read, {}
        if lapsed and self._group is not None:
            self._bridge.submit_if_open(self._group.lapsed, lapsed)
            self._give_up(lapsed)
        return False

    def lease(self, age: float) -> Holding | None:
        """What this process owns now, where that is by lease."""
        group = self._group
        if group is None:
            return None
        given_up = self._given_up
        owned = {p: e for p, e in self._read.items() if e > given_up.get(p, -1)}
        told = ", ".join(f"{partition} (epoch {owned[partition]})" for partition in sorted(owned))
        member = group.membership.member.id
        what = f"{self.request.group} as {member}: {told or 'no partition'}"
        return Holding("lease", "member", self.request.topic, what, age)

    def note_attempts(self, delivery: Delivery, attempts: int) -> None:
        """How often handling it has failed: kept where partitions are owned, with the mark."""
        if self._group is not None and not self._closed:
            self._bridge.submit_if_open(self._group.note_attempts, delivery, attempts)

    def begin(self, delivery: Delivery, begun: Callable[[], None]) -> None:
        """A suspect is about to be handled: stored first, where partitions are owned."""
        if self._group is None:
            begun()
        elif not self._closed:
            stored = partial(self._bridge.post, begun)
            self._bridge.submit_if_open(self._group.begin, delivery, stored)

    def stop(self) -> None:
        """Ask for nothing more."""
        self._batches.close()
        if not self._closed:
            self._bridge.submit_if_open(self._consumer.stop)

    async def aclose(self) -> None:
        """Stop, give back, and wait until the server has heard it."""
        if self._closed:
            return
        self.stop()
        self._closed = True
        if self._settlements is not None:
            self._settlements.close()
        try:
            await self._bridge.call(self._consumer.close)
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
        """A batch has arrived; if this has stopped, it is given back when the consumer closes."""
        self._bridge.post(self._batches.put_nowait, batch)

    def fail(self, error: TbusError) -> None:
        """The consumer cannot go on."""
        self._bridge.post(self._batches.close, error)

    def own(self, partition: int, epoch: int) -> None:
        """What comes of a partition is of this epoch from now on."""
        self._bridge.post(self._own, partition, epoch)

    def drain(self, group: GroupConsumer, partition: int, epoch: int) -> None:
        """A partition is about to go to another process."""
        self._bridge.post(self._begin_drain, group, partition, epoch)

    def lose(self, group: GroupConsumer, partition: int, epoch: int) -> None:
        """A partition is gone, and is not had again before nothing of it runs any more."""
        self._bridge.post(self._lose, group, partition, epoch)

    # Called by the bridge

    def _own(self, partition: int, epoch: int) -> None:
        self._read[partition] = epoch

    def _begin_drain(self, group: GroupConsumer, partition: int, epoch: int) -> None:
        self._given_up[partition] = epoch

        def drained() -> None:
            self._bridge.submit_if_open(group.drained, partition, epoch)

        if self._reader is None:
            drained()
        else:
            self._reader.drain({partition: epoch}, drained)

    def _lose(self, group: GroupConsumer, partition: int, epoch: int) -> None:
        self._give_up({partition: epoch})
        self._begin_drain(group, partition, epoch)

    def _give_up(self, partitions: dict[int, int]) -> None:
        self._given_up.update(partitions)
        if self._reader is not None:
            self._reader.lose(partitions)
