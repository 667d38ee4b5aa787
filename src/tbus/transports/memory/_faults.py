"""What goes wrong with a broker and the way to it, on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._errors import ConfigurationError
from ._sender import Link

if TYPE_CHECKING:
    from ._transport import MemoryTransport


class Faults:
    """Faults of one transport; others that share its broker do not see them.

    All of it takes effect at once, without waiting. Times are seconds of the event loop's
    clock; a fault without a time lasts until it is ended by `restore`.
    """

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    def refuse_publishes(self, seconds: float) -> None:
        """The broker refuses what is published in the next `seconds`."""
        self._transport.refuse_publishes(seconds)

    def lose_outcomes(self, count: int = 1, *, stored: bool = True) -> None:
        """The broker's next `count` answers to publishes get lost: their outcome is unknown.

        Args:
            count: how many.
            stored: whether the broker stores these events.
        """
        self._transport.lose_outcomes(count, stored)

    def delay(self, seconds: float) -> None:
        """Outcomes, deliveries and signs of life take so long from now on; 0 ends it."""
        self._transport.set_delay(seconds)

    def cut_feeds(self, seconds: float | None = 0.0, *, topic: str | None = None) -> None:
        """Cut the connection of the feeds that are open: for `seconds` they get nothing, and
        the broker hears nothing of them.

        Afterwards they resume at the first message that is not settled; what is in flight
        or finished is not handed over again. After `ack_wait` the broker gives what a feed
        had to the other members of its group, if there are any.

        Args:
            seconds: None until `restore`.
            topic: only the feeds of this topic.
        """
        self._transport.cut_feeds(seconds, topic)

    def disconnect(self, seconds: float | None = None) -> None:
        """The connection breaks: publishes wait unsent, feeds are cut."""
        self._transport.break_link(Link.DOWN, seconds)

    def suspend(self, seconds: float | None = None) -> None:
        """The broker falls silent: what is published reaches it and is stored when it wakes,
        but no answer comes before; feeds are cut."""
        self._transport.break_link(Link.SILENT, seconds)

    def restore(self) -> None:
        """End every fault."""
        self._transport.restore()

    def forget_settlements(self, topic: str, group: str, count: int = 1) -> None:
        """The broker forgets the last `count` settlements in each partition, as one that was
        killed: the next owner gets those messages again, the present one does not.

        Raises:
            ConfigurationError: there is no such group, or its order is "none".
        """
        store = self._transport.broker.topics.get(topic)
        found = store.find_group(group) if store is not None else None
        if found is None or found.is_shared:
            raise ConfigurationError(
                f"topic {topic!r} has no group of that name with an order",
                field="group",
                value=group,
            )
        for share in found.shares:
            share.forget(count)

    def remove_group(self, topic: str, group: str) -> bool:
        """Remove a group beneath its feeds, which then raise `ConsumerGone`; False if there
        was none. To remove a topic beneath them, remove it."""
        store = self._transport.broker.topics.get(topic)
        return store is not None and store.remove_group(group)
