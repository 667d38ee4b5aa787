"""What the lease document should say, by what one member knows. Pure.

Whoever changes the document brings all of it up to date at once: new targets, what became
free given to its target. So a partition without an owner is seen only in a group in which
nobody may have it, and a takeover or a hand-over is one write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import msgspec

from ._assignment import assign
from ._document import VERSION, Document, Partition

NOTHING = (0, "")
"""Epoch and mark of what was never owned."""


@attrs.frozen
class Facts:
    """What a member knows that the document may not say yet.

    Attributes:
        member: who knows it.
        partitions: how many there are at least.
        lease: how long its leases last.
        leaving: the member shall get nothing any more.
        released: its partitions of which nothing runs any more: epoch and mark.
        dead: members whose lease was taken away, with the marks of their last heartbeats.
        epochs: the highest epoch seen of a partition, whatever document it stood in.
    """

    member: str
    partitions: int
    lease: float
    leaving: bool
    released: Mapping[int, tuple[int, str]]
    dead: Mapping[str, Mapping[int, tuple[int, str]]]
    epochs: Mapping[int, int]


def revise(document: Document, facts: Facts) -> Document:
    """The document with all facts in it; equal to `document` where it holds them already."""
    me = facts.member
    members = {member for member in document.members if member not in facts.dead}
    leaving = members.intersection(document.leaving)
    if not facts.leaving:
        members.add(me)
    elif me in members:
        if facts.released.keys() >= set(document.find_owned(me)):
            members.discard(me)
            leaving.discard(me)
        else:
            leaving.add(me)
    missing = facts.partitions - len(document.partitions)
    entries = [*document.partitions, *(Partition() for _ in range(missing))]
    targets = assign(members - leaving, [entry.target for entry in entries])
    free = _freed(facts, members)
    return Document(
        members=tuple(sorted(members)),
        leaving=tuple(sorted(leaving)),
        partitions=tuple(
            _give(free(number, entry), target, facts.epochs.get(number, 0))
            for number, (entry, target) in enumerate(zip(entries, targets, strict=True))
        ),
        lease=document.lease if document.members else facts.lease,
        v=VERSION,
    )


def _freed(facts: Facts, members: set[str]) -> Callable[[int, Partition], Partition]:
    """Takes a partition from an owner that let it go, or is no more, and keeps its mark."""

    def free(number: int, entry: Partition) -> Partition:
        if entry.owner == facts.member:
            left = facts.released.get(number, NOTHING)
            if left[0] != entry.epoch:
                return entry
        elif entry.owner and entry.owner not in members:
            left = facts.dead.get(entry.owner, {}).get(number, NOTHING)
        else:
            return entry
        mark = left[1] if left[0] == entry.epoch else entry.mark
        return msgspec.structs.replace(entry, owner="", mark=mark)

    return free


def _give(entry: Partition, target: str, highest: int) -> Partition:
    """Mean a partition for somebody, who owns it at once if nobody does."""
    if entry.owner or not target:
        return msgspec.structs.replace(entry, target=target)
    epoch = max(entry.epoch, highest) + 1
    return Partition(owner=target, target=target, epoch=epoch, mark=entry.mark)
