"""What an owner reads a partition under."""

from __future__ import annotations

from collections.abc import Callable

import attrs


@attrs.frozen
class Claim:
    """A time of owning a partition.

    Attributes:
        partition: which.
        epoch: of this time.
        mark: what an earlier owner has left.
        owns: whether it lasts.
        lose: somebody else has the partition: `lose(reason)`.
        known: marks of what this process has settled, when it had the partition before.
    """

    partition: int
    epoch: int
    mark: str
    owns: Callable[[], bool]
    lose: Callable[[str], None]
    known: tuple[str, ...] = ()


class Taken(Exception):
    """The claim is over."""
