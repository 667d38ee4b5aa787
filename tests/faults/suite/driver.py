"""One fault, from its beginning to its verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import trio

from tbus.testing.harness import unique_name
from tests.chaos.book import Book, Verdict

from .checks import Promise, broken
from .faults import Fault
from .grounds import Ground
from .job import IN_FLIGHT, Facts, Job
from .stage import Ledger, ProgramDied, Stage, start_program

GRACE = 2.0

LEAVE_WITHIN = GRACE + 15.0
"""Seconds for the program to leave: more than it may take, so that it can say how long it took."""

PATIENCE = 20.0
"""Seconds without progress, with everything mended, after which what is missing counts as lost."""


@attrs.frozen
class Row:
    """What came of one fault.

    Attributes:
        fault: its name.
        place: where it happened.
        seconds: that it took.
        done: what was done, and how often.
        verdict: what became of the events.
        allowed: repeats that the bound allows.
        facts: what the program said.
        broken: what did not hold.
    """

    fault: str
    place: str
    seconds: float
    done: dict[str, int]
    verdict: Verdict
    allowed: int
    facts: Facts
    broken: list[str]


def job_for(ground: Ground, directory: Path) -> Job:
    """What the program is to do there."""
    settings: dict[str, Any] = {
        "grace": GRACE,
        "publish_timeout": 5.0,
        "max_in_flight": IN_FLIGHT,
        **ground.settings,
    }
    return Job(
        url=ground.url,
        settings=settings,
        topic=unique_name("faults"),
        group=unique_name("group"),
        book=str(directory / "book"),
        stored=str(directory / "stored"),
    )


async def run(fault: Fault, ground: Ground, directory: Path, seconds: float) -> Row:
    """Do it, and judge.

    Args:
        directory: an empty one, for the book and the program's log.
        seconds: for which things are broken.
    """
    begun = trio.current_time()
    job = job_for(ground, directory)
    book, ledger = Book(directory / "book"), Ledger(directory / "stored")
    log = directory / "log"
    problems: list[str] = []
    facts = Facts()
    stage = None
    try:
        async with start_program(job, log, ground.environment) as program:
            await program.tell("go")
            stage = Stage(ground, program, job, book, ledger, trio.current_time() + seconds)
            await fault.breaks(stage)
            if fault.leaves:
                facts = await program.leave(LEAVE_WITHIN)
            else:
                await finish(stage)
                facts = await program.leave(LEAVE_WITHIN)
        if fault.leaves:
            await ground.mend()
            reads = attrs.evolve(job, publishes=False)
            async with start_program(reads, log, ground.environment) as program:
                stage.program = program
                await stage.wait_handled(PATIENCE)
                facts = facts.joined(await program.leave(LEAVE_WITHIN))
    except (ProgramDied, trio.TooSlowError, trio.BrokenResourceError) as error:
        problems.append(f"the program: {error!r}\n{log.read_text()[-3000:]}")
    verdict = book.judge(ledger.read_on())
    done: dict[str, int] = {}
    allowed = ends = 0
    if stage is not None:
        done, ends = dict(stage.done), stage.ends
        allowed = fault.repeats.allows(sum(done.values()), facts, ground) + stage.excused
    promise = Promise(allowed, GRACE + 1.0, fault.ends * ends, most=1 + ends)
    problems += broken(verdict, facts, promise)
    took = round(trio.current_time() - begun, 1)
    return Row(fault.name, fault.place.name, took, done, verdict, allowed, facts, problems)


async def finish(stage: Stage) -> None:
    """Mend all, and wait until all is handled."""
    await stage.ground.mend()
    await stage.program.tell("pause")
    await stage.wait_handled(PATIENCE)
