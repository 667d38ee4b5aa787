"""What an owner reads a partition under."""

from __future__ import annotations

from typing import Protocol

import attrs


class Owner(Protocol):
    """Who knows which partitions are owned."""

    def owns(self, partition: int, epoch: int) -> bool:
        """Whether a partition is owned, and has been since this epoch."""

    def lost(self, partition: int, epoch: int, reason: str) -> None:
        """Somebody else has a partition."""


@attrs.frozen
class Claim:
    """A time of owning a partition.

    Attributes:
        partition: which.
        epoch: of this time.
        mark: what an earlier owner has left.
        owner: who knows whether it lasts.
        known: marks of what this process has settled, when it had the partition before.
    """

    partition: int
    epoch: int
    mark: str
    owner: Owner
    known: tuple[str, ...] = ()

    def owns(self) -> bool:
        """Whether it lasts."""
        return self.owner.owns(self.partition, self.epoch)

    def lose(self, reason: str) -> None:
        """Somebody else has the partition."""
        self.owner.lost(self.partition, self.epoch, reason)


class Taken(Exception):
    """The claim is over."""
