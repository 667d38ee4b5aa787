"""Which member a partition is meant for: evenly, and with few moves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def assign(members: Iterable[str], current: Sequence[str]) -> tuple[str, ...]:
    """Share partitions among members.

    The sizes differ by one at most; no other even sharing moves fewer partitions; and the
    same arguments give the same result, whoever works it out. What is shared evenly already
    stays as it is.

    Args:
        members: who takes part, in any order; without any, nobody gets anything.
        current: whom each partition is meant for now; somebody who is no member, or "", is
            nobody.

    Returns:
        whom each partition is meant for from now on, or "" for nobody.
    """
    held: dict[str, list[int]] = {member: [] for member in sorted(set(members))}
    if not held:
        return ("",) * len(current)
    for partition, member in enumerate(current):
        if member in held:
            held[member].append(partition)
    least, larger = divmod(len(current), len(held))
    result = [""] * len(current)
    room: list[str] = []
    # Those that have most keep most, so the larger shares go to them.
    for rank, member in enumerate(sorted(held, key=lambda one: (-len(held[one]), one))):
        quota = least + (rank < larger)
        kept = held[member][:quota]
        for partition in kept:
            result[partition] = member
        room += [member] * (quota - len(kept))
    takers = iter(room)
    return tuple(member or next(takers) for member in result)
