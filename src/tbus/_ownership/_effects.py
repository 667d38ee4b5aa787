"""What a member wants done, and what the bucket answers. Values without behaviour.

Those that every heartbeat makes are of the kind that is made fastest.
"""

from __future__ import annotations

import attrs
import msgspec

# Questions to the bucket


class Put(msgspec.Struct, frozen=True):
    """Store `value` under `key` if the key's revision is `revision`; 0: if it has none."""

    request: int
    key: str
    value: bytes
    revision: int


@attrs.frozen
class Get:
    """Read what stands under `key`."""

    request: int
    key: str


@attrs.frozen
class Delete:
    """Remove `key` if its revision is `revision`. Nobody waits for an answer."""

    key: str
    revision: int


# What is to be done with a partition


@attrs.frozen
class Take:
    """This member owns the partition: unpin, reset, pull.

    Attributes:
        epoch: higher than that of every owner before.
        mark: what the owner before had completed beyond the floor, or "".
    """

    partition: int
    epoch: int
    mark: str


@attrs.frozen
class Drain:
    """Somebody else shall have the partition: let running handlers end, start none, settle;
    then call `Member.drained`. It is still owned."""

    partition: int
    epoch: int


@attrs.frozen
class Drop:
    """The partition is not owned any more: start nothing, settle nothing, cancel what runs;
    when nothing of it runs any more, call `Member.drained`.

    Attributes:
        reason: for a log or an event.
    """

    partition: int
    epoch: int
    reason: str


@attrs.frozen
class Left:
    """The member has left the group and wants nothing any more."""


Effect = Put | Get | Delete | Take | Drain | Drop | Left


# Answers to `Put` and `Get`. Where none came, or it is not known what became of it: say nothing.


class Stored(msgspec.Struct, frozen=True):
    """A `Put` was stored at this revision."""

    revision: int


@attrs.frozen
class Refused:
    """A `Put` was not stored: the key has another revision."""


@attrs.frozen
class Found:
    """A `Get` found this value at this revision."""

    revision: int
    value: bytes


@attrs.frozen
class Absent:
    """A `Get` found nothing, or a marker of something removed.

    Attributes:
        revision: of the marker, or 0: what a `Put` must name to store something there.
    """

    revision: int = 0


Answer = Stored | Refused | Found | Absent
