"""How long a partition stands still after a fault, and what is repeated because of it.

Known from nothing but completions: a partition is had by whoever completed the last event of it.
So what is measured ends not when somebody is called the owner, but when it has handled something.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import attrs

from .book import Completion

NEAR = 6.0
"""Seconds after a kill of the broker, or before the end, in which a standstill says little."""

BROKER = "broker killed"

GRAVE = ("kill", "suspend", BROKER)
"""Faults after which something may stand still until others have noticed."""

Part = tuple[str, int]
"""Topic and partition."""


@attrs.define(eq=False)
class Fault:
    """Something that was done to a member, or to all of them.

    Attributes:
        kind: what.
        member: to whom; None: all.
        when: at which time.
        orphans: what the member had been the last to complete something of.
        regained: seconds until somebody did again: another member or, where it was not killed,
            the same.
        repeated: completions that were repeats, before the next fault.
        disturbed: the broker was killed shortly before, or, while something stood still, it or
            one more member was killed or suspended: whoever took over may have been that one.
    """

    kind: str
    member: int | None
    when: float
    orphans: set[Part]
    regained: dict[Part, float] = attrs.Factory(dict)
    repeated: int = 0
    disturbed: bool = False

    @property
    def standstill(self) -> float | None:
        """Seconds until the last of the orphans went on; None: one never did, or there was
        none."""
        return max(self.regained.values(), default=None) if self.is_over else None

    @property
    def is_over(self) -> bool:
        """Whether every orphan went on."""
        return self.regained.keys() >= self.orphans


class Observer:
    """Is told completions and faults.

    Args:
        clock: the one that the book's times are of.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.faults: list[Fault] = []
        self.late = 0
        """Completions under an epoch that was not the latest any more."""
        self.until = inf
        """When the last event was published: afterwards a standstill shows nothing."""
        self._clock = clock
        self._last: dict[Part, int] = {}
        self._epochs: dict[Part, int] = {}
        self._open: list[Fault] = []
        self._disturbed = -inf

    def note_fault(self, kind: str, member: int | None = None) -> None:
        """Something was just done."""
        now = self._clock()
        orphans = {part for part, last in self._last.items() if member == last}
        fault = Fault(kind, member, now, orphans, disturbed=now < self._disturbed + NEAR)
        self.faults.append(fault)
        if kind in GRAVE:
            for earlier in self._open:
                earlier.disturbed = True
            if orphans:
                self._open.append(fault)

    def note_broker_fault(self) -> None:
        """The broker is about to be killed."""
        self.note_fault(BROKER)
        self._disturbed = self._clock()

    def note_completion(self, completion: Completion) -> None:
        """A line of the book."""
        if completion.repeated and self.faults:
            self.faults[-1].repeated += 1
        part = (completion.event[0], completion.partition)
        if completion.epoch < self._epochs.get(part, 0):
            self.late += 1
            return
        self._epochs[part] = completion.epoch
        self._last[part] = completion.member
        for fault in tuple(self._open):
            self._note_regained(fault, part, completion)

    def _note_regained(self, fault: Fault, part: Part, completion: Completion) -> None:
        if (
            part in fault.orphans
            and part not in fault.regained
            and completion.when > fault.when
            and (completion.member != fault.member or fault.kind != "kill")
        ):
            fault.regained[part] = completion.when - fault.when
            if fault.is_over:
                self._open.remove(fault)

    def standstills(self, kind: str, *, disturbed: bool) -> list[float]:
        """Of all faults of a kind that orphaned anything, ascending; infinite: never."""
        found = [
            inf if fault.standstill is None else round(fault.standstill, 2)
            for fault in self.faults
            if (fault.kind, fault.disturbed) == (kind, disturbed)
            and fault.orphans
            and (fault.is_over or fault.when < self.until - NEAR)
        ]
        return sorted(found)

    def find_long(self, limit: float) -> list[str]:
        """What is known of faults after which something stood still for longer."""
        return [
            f"{fault.when:.3f} {fault.kind} of {fault.member}, disturbed: {fault.disturbed}, until:"
            f" { {part[1]: round(seconds, 2) for part, seconds in fault.regained.items()} }"
            for fault in self.faults
            if fault.regained and max(fault.regained.values()) > limit
        ]
