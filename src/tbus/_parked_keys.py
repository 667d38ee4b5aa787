"""The parked keys of one subscription, as its user sees them: what can be asked and done, and what
events tell of it. Which message waits where is decided in `_parking`."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ._events import Discarded, KeyParked, KeyReleased
from ._parking import Parking
from ._quarantine import ParkedKey
from ._transport import Emit, Feed, Verdict


class ParkedKeys:
    """Parks, releases and discards, and tells of it.

    Args:
        parking: where the messages wait.
        feed: where what is discarded is settled.
        go_on: called when there may be something to handle again.
    """

    def __init__(
        self,
        topic: str,
        group: str | None,
        parking: Parking,
        feed: Feed,
        emit: Emit,
        go_on: Callable[[], None],
    ) -> None:
        self._topic = topic
        self._group = group
        self._parking = parking
        self._feed = feed
        self._emit = emit
        self._go_on = go_on
        self._stopped = False

    def parked(self) -> tuple[ParkedKey, ...]:
        """The keys that the handler does not get."""
        return self._parking.parked()

    def park(self, key: str, reason: str) -> bool:
        """Park a key; False if it is parked already, too many are, or the end has begun."""
        if self._stopped or key in self._parking.wards:
            return False
        return self.park_failed(key, reason)

    def park_failed(self, key: str, reason: str) -> bool:
        """Park a key of which a message has failed, be it at the end; False if too many are."""
        ward = self._parking.park(key, reason)
        if ward is None:
            return False
        waiting = self._parking.waiting(ward)
        self._emit(KeyParked(self._topic, self._group, key, waiting, reason))
        self._go_on()
        return True

    def release(self, key: str) -> bool:
        """Hand a key back to the handler; False if it was not parked."""
        ward = self._parking.release(key)
        if ward is None:
            return False
        waiting = self._parking.waiting(ward)
        self._emit(KeyReleased(self._topic, self._group, key, waiting))
        self._go_on()
        return True

    def discard(self, key: str) -> int:
        """Settle what waits of a parked key; returns how many messages that were."""
        ward = self._parking.wards.get(key)
        if ward is None or self._stopped:
            return 0
        discarded = self._parking.discard(ward)
        reason = f"discarded while its key was parked: {ward.reason}"
        for message in discarded:
            position = str(message.position)
            self._emit(Discarded(self._topic, self._group, message.key, position, reason))
            self._feed.settle(message.delivery, Verdict.DONE)
        return len(discarded)

    def forget(self, partitions: Collection[int]) -> None:
        """Partitions are somebody else's, and their keys with them."""
        for ward in self._parking.forget(partitions):
            self._emit(KeyReleased(self._topic, self._group, ward.key, 0))

    def stop(self) -> None:
        """The end has begun: what waits is given back as it is."""
        self._stopped = True
