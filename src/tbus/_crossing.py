"""Ways into the clients' loop, and out of it, for many things of one kind.

A crossing of its own for each of them costs more than most of what is done with it: the call that
stands in the deque, and the looks at whom to wake. Here a thing is an append, and one call takes
all that has come since the last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from ._bridge import Bridge
from ._errors import BusClosed, TransportLost
from ._transport import Outgoing

T = TypeVar("T")


class _Way(Generic[T]):
    """What has crossed, for one taker on the other side."""

    __slots__ = ("_again", "_asked", "_bridge", "_crossed", "_take")

    def __init__(
        self,
        bridge: Bridge,
        take: Callable[[deque[T]], None],
        again: Callable[[Callable[[], None]], object],
    ) -> None:
        self._bridge = bridge
        self._take = take
        self._again = again
        self._crossed: deque[T] = deque()
        self._asked = False
        """The taker is called soon."""

    def _hand_over(self) -> None:
        """On the other side."""
        self._asked = False
        try:
            self._take(self._crossed)
        except BaseException:
            if self._crossed:  # what stands behind it has nothing to do with that
                self._again(self._hand_over)
            raise


class Crossing(_Way[T]):
    """What the program sends, for one taker in the loop.

    Args:
        bridge: into whose loop.
        take: called there with what has crossed, in order; it takes all of it out.
    """

    __slots__ = ()

    def __init__(self, bridge: Bridge, take: Callable[[deque[T]], None]) -> None:
        super().__init__(bridge, take, bridge.loop.call_soon)

    def send(self, thing: T) -> None:
        """Have a thing taken, soon and in order, and before anything runs that is submitted to the
        bridge from now on. Never blocks.

        Raises:
            BusClosed: the loop has ended.
        """
        # In this order: the taker looks at the first after it has changed the second.
        self._crossed.append(thing)
        if not self._asked or self._bridge.ended:
            self._ask()

    def _ask(self) -> None:
        self._asked = True
        try:
            self._bridge.submit(self._hand_over)
        except BaseException:  # whoever sends it hears that nobody has it
            self._asked = False
            with suppress(IndexError):  # it was taken with others all the same
                self._crossed.pop()
            raise

    def take_back(self) -> list[T]:
        """When the loop has ended: what it has not taken, and never will."""
        left: list[T] = []
        while self._crossed:
            left.append(self._crossed.popleft())
        return left


class Outbox(Protocol):
    """Publishes in flight, in the loop."""

    def take(self, crossed: deque[Outgoing], /) -> None:
        """Take events to be published, all that there are."""

    def abandon(self) -> None:
        """Give every event that has no outcome the one that is true now. Also called when the loop
        has ended, and more than once."""

    async def wait_empty(self) -> None:
        """Wait until every event has its outcome."""


class Published(Crossing[Outgoing]):
    """What the program publishes: each event has an outcome, whenever the loop ends.

    Args:
        bridge: into whose loop.
        outbox: takes it there.
    """

    __slots__ = ("_outbox",)

    def __init__(self, bridge: Bridge, outbox: Outbox) -> None:
        super().__init__(bridge, outbox.take)
        self._outbox = outbox
        bridge.at_end.append(self._tell_left)

    async def flush(self) -> None:
        """Wait until every event taken has its outcome."""
        try:
            await self._bridge.call(self._outbox.wait_empty)
        except BusClosed:
            pass  # its loop has ended: `abandon` tells what is left

    def abandon(self) -> None:
        """Give every event that has no outcome yet the one that is true now."""
        if not self._bridge.submit_if_open(self._outbox.abandon):
            self._tell_left()

    def _tell_left(self) -> None:
        """The same when the loop has ended, and nobody else is there; also for what `abandon` has
        submitted in its last moments."""
        self._outbox.abandon()
        for outgoing in self.take_back():
            outgoing.on_outcome(outgoing, TransportLost("the bus ended before it was sent"))


class WayBack(_Way[T]):
    """What the loop tells, for one taker in the program.

    Args:
        bridge: out of whose loop.
        take: called in the program's thread with what has crossed, in order; it takes all of it
            out.
    """

    __slots__ = ()

    def __init__(self, bridge: Bridge, take: Callable[[deque[T]], None]) -> None:
        super().__init__(bridge, take, bridge.post)

    def send(self, thing: T) -> None:
        """Have a thing taken, soon and in order, and before anything runs that is posted to the
        program from now on. Never blocks."""
        # In this order: the taker looks at the first after it has changed the second.
        self._crossed.append(thing)
        if not self._asked:
            self._asked = True
            self._bridge.post(self._hand_over)
