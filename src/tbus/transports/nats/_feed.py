"""The program's side of a consumer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import anyio

from ..._bridge import Bridge
from ..._errors import BusClosed, TbusError
from ..._message import Delivery
from ..._transport import EndOfFeed, FeedRequest, Reader, Verdict
from ._consumer import Consumer


class NatsFeed:
    """A `Feed` over one consumer in the clients' loop."""

    def __init__(
        self, request: FeedRequest, bridge: Bridge, on_close: Callable[[NatsFeed], None]
    ) -> None:
        self.request = request
        self.consumer: Consumer
        self._bridge = bridge
        self._on_close = on_close
        # Unbounded, for the consumer's credit bounds it.
        self._batches_in, self._batches = anyio.create_memory_object_stream[list[Delivery]](inf)
        self._failure: TbusError | None = None
        self._settled: list[tuple[int, int, Verdict]] = []
        self._closed = False

    async def receive(self) -> Sequence[Delivery]:
        """Wait for the next deliveries."""
        try:
            return await self._batches.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            if self._failure is not None:
                raise self._failure from None
            raise EndOfFeed from None

    def read_by(self, reader: Reader) -> None:
        """Nothing to tell: a feed reads its one partition for as long as it is open."""

    def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Say how a delivery ended."""
        if self._closed:
            return
        self._bridge.submit_if_open(
            self.consumer.settle, delivery.position.offset, delivery.token, verdict
        )

    def stop(self) -> None:
        """Ask for nothing more."""
        self._batches_in.close()
        if not self._closed:
            self._bridge.submit_if_open(self.consumer.stop)

    async def aclose(self) -> None:
        """Stop, give back, and wait until the server has heard it."""
        if self._closed:
            return
        self.stop()
        self._closed = True
        try:
            await self._bridge.call(self.consumer.close)
        except BusClosed:
            pass
        finally:
            self._batches.close()
            self._on_close(self)

    def discard(self) -> None:
        """It was never opened."""
        self._closed = True
        self._batches_in.close()
        self._batches.close()

    # Called by the bridge

    def hand_over(self, batch: list[Delivery]) -> None:
        """A batch has arrived."""
        try:
            self._batches_in.send_nowait(batch)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass  # stopped: it is given back when the consumer closes

    def fail(self, error: TbusError) -> None:
        """The consumer cannot go on."""
        if self._failure is None:
            self._failure = error
            self._batches_in.close()
