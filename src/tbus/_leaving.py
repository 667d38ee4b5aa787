"""Partitions that go to another owner while their messages are being handled.

Pure: no clock, no I/O, no event loop. A partition goes with the epoch of its ownership, so a
message of an older epoch is known to be somebody else's even when this process owns the
partition again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping

import attrs

from ._message import Delivery, Message


@attrs.define(eq=False)
class _Drain:
    """Partitions that are given up when nothing of them runs any more."""

    running: set[Message]
    drained: Callable[[], None]


class Leaving:
    """Which messages are no longer this process's, and who waits for the last of them."""

    __slots__ = ("_drains", "gone")

    def __init__(self) -> None:
        self.gone: dict[int, int] = {}
        """The partitions that were ever given up, and the epoch of that: where there are none,
        all the rest can be left out."""
        self._drains: list[_Drain] = []

    def begin(self, partitions: Mapping[int, int]) -> None:
        """These partitions go, with everything up to these epochs."""
        for partition, epoch in partitions.items():
            self.gone[partition] = max(epoch, self.gone.get(partition, epoch))

    def is_gone(self, message: Message) -> bool:
        """Whether the message is of a partition that was given up."""
        return self.has_left(message.delivery)

    def has_left(self, delivery: Delivery) -> bool:
        """The same for a message as the feed hands it over."""
        epoch = self.gone.get(delivery.position.partition)
        return epoch is not None and delivery.epoch <= epoch

    def when_ended(
        self,
        partitions: Container[int],
        running: Iterable[Message],
        drained: Callable[[], None],
    ) -> None:
        """Call `drained` when nothing of these partitions runs any more, at once if nothing does.
        What runs of others that go does not hold them up.

        Args:
            running: the messages of any partition that run now.
        """
        ending = (m for m in running if m.delivery.position.partition in partitions)
        drain = _Drain(set(filter(self.is_gone, ending)), drained)
        if drain.running:
            self._drains.append(drain)
        else:
            drained()

    def ended(self, message: Message) -> None:
        """The message is not running any more, however that came."""
        for drain in tuple(self._drains):
            drain.running.discard(message)
            if not drain.running:
                self._drains.remove(drain)
                drain.drained()
