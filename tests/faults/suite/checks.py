"""What must hold after a fault, whatever it was."""

from __future__ import annotations

import attrs

from tests.chaos.book import Verdict

from .job import Facts

MEMORY = 48.0
"""MiB by which the program may grow: what may be in flight, the client's buffers, and room for the
interpreter's own habits."""


@attrs.frozen
class Promise:
    """What one run is held to.

    Attributes:
        repeats: events that may be handled again, at most.
        exit: seconds in which a bus must have been left: the grace and one more.
        ends: why a bus had to end by itself, once for each time; else none may.
        most: lines of one logger and one message in any second: one for each bus.
        memory: MiB by which the program may grow.
    """

    repeats: int
    exit: float
    ends: tuple[str, ...] = ()
    most: int = 1
    memory: float = MEMORY


def broken(verdict: Verdict, facts: Facts, promise: Promise) -> list[str]:
    """What did not hold, a line for each; none if all did."""
    slowest = max(facts.exits, default=0.0)
    found = {
        "nothing was acknowledged: this shows nothing": not verdict.stored,
        f"{verdict.lost} acknowledged events were handled by nobody": verdict.lost,
        f"{verdict.inversions} first completions came behind a later event of their key": (
            verdict.inversions
        ),
        f"{verdict.repeated} completions were repeats, more than {promise.repeats}": (
            verdict.repeated > promise.repeats
        ),
        f"the program grew by {facts.memory} MiB, more than {promise.memory}": (
            facts.memory > promise.memory
        ),
        f"{facts.most} lines within a second were the same: {facts.loudest}": (
            facts.most > promise.most
        ),
        "no bus was left": not facts.exits,
        f"leaving took {slowest} s, more than {promise.exit}": slowest > promise.exit,
        f"left behind: {'; '.join(facts.left)}": facts.left,
        f"buses ended because of {facts.ends}, expected was {list(promise.ends)}": (
            sorted(facts.ends) != sorted(promise.ends)
        ),
    }
    return [problem for problem, holds_not in found.items() if holds_not]
