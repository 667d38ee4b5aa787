"""What was settled in the program, on its way into the clients' loop.

One crossing takes everything that is settled until it is made, so what a message costs here is an
entry in a list.
"""

from __future__ import annotations

from collections.abc import Callable

from ._bridge import Bridge
from ._message import Delivery
from ._transport import Verdict

_DONE = Verdict.DONE  # looking a member up in its class takes as long as a call

Hear = Callable[[list[Delivery]], None]
"""Called in the clients' loop with messages in the order in which they were settled."""


class Settlements:
    """Of one feed.

    Args:
        bridge: which they cross.
        done: hears of messages that were handled.
        give_back: hears of those that were given back; before those that were handled.
    """

    __slots__ = (
        "_bridge",
        "_closed",
        "_done",
        "_given_back",
        "_hear_back",
        "_hear_done",
        "_told",
    )

    def __init__(self, bridge: Bridge, done: Hear, give_back: Hear) -> None:
        self._bridge = bridge
        self._hear_done = done
        self._hear_back = give_back
        self._done: list[Delivery] = []
        self._given_back: list[Delivery] = []
        self._told = False
        """Whether what is settled need not be told: it crosses with something else, or no more."""
        self._closed = False

    def add(self, delivery: Delivery, verdict: Verdict) -> None:
        """In the program: a message was settled. Without an effect once this is closed, or the
        bridge has ended."""
        if verdict is _DONE:
            self._done.append(delivery)
        else:
            self._given_back.append(delivery)
        if not self._told:
            self._told = True
            self._bridge.submit_if_open(self._cross)

    def close(self) -> None:
        """In the program: what is settled from now on crosses no more."""
        # In this order: see `_cross`.
        self._closed = True
        self._told = True

    def _cross(self) -> None:
        self._told = False  # first: what is settled from here on crosses by itself
        if self._closed:
            self._told = True
        if self._given_back:
            self._hear_back(_take_out(self._given_back))
        if self._done:
            self._hear_done(_take_out(self._done))


def _take_out(deliveries: list[Delivery]) -> list[Delivery]:
    """What is in the list, which the other thread goes on to add to: out of its front."""
    taken = deliveries[:]
    del deliveries[: len(taken)]
    return taken
