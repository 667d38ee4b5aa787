"""The rows, for people: a line as each ends, a table of all, and the page of the evidence."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

import attrs

from .checks import MEMORY
from .driver import GRACE, Row
from .faults import FAULTS, Fault
from .job import IN_FLIGHT

HEAD = (
    "fault", "where", "done", "acknowledged", "lost", "inverted", "repeated", "allowed",
    "grown, MiB", "lines", "same in 1 s", "left in, s", "left behind", "",
)  # fmt: skip

DEEDS = """\
## What was done

- *cuts*: every connection is reset; *delays*: each piece comes up to 0.4 s later, either way;
  *half-closes*: one direction ends; *all three*: one of them by chance. Every 0.5 to 1.5 s, by a
  TCP proxy between the program and each node; in memory, by the transport.
- *kills*, *restarts*, *suspensions*: SIGKILL, SIGTERM and SIGSTOP of the broker; of one node after
  another where there are three. Where streams are in memory, which a killed server takes with it,
  kills come when all is handled. *Long*: until every lease and session has run out.
- *leaving*: the program leaves while every node is dead, or silent; another one reads the rest.
- *consumer deleted*, *topic deleted*: beneath the reader. The bus ends with `ConsumerGone`, and the
  program opens another one. A topic is deleted when all of it is handled.
- *full disk*: a tmpfs of the broker's own with not one byte left (ENOSPC), then room again and a
  restart, for neither nats-server nor Kafka goes on by itself. *Full store*, *full memory*: another
  stream takes all that `max_file_store` or `max_memory_store` allows, and is deleted. In memory the
  transport refuses what is published.
- *wrong password*: the broker takes another one for a while, and throws out who gave the old one:
  nats-server reads its configuration again, Kafka is started again.
- *clock steps*: the wall clock that the program's C library tells jumps by up to a day, both ways
  (a preloaded library); *broker's clock steps*: the same for Kafka. nats-server asks the kernel
  itself, so its clock was not stepped.
- *program suspended*: SIGSTOP of the program until every lease and session has run out.

What cannot be: a group cannot be deleted from Kafka while it has a member; Kafka keeps nothing in
memory that could be full; a memory broker has no process, disk or password.
"""


def line(row: Row) -> str:
    """One row as it ends."""
    verdict = row.verdict
    said = (
        f"{row.fault:21} {row.place:15} {row.seconds:5.1f} s  {sum(row.done.values()):2} times"
        f" {verdict.stored:6} acknowledged, lost {verdict.lost}, inverted {verdict.inversions},"
        f" repeated {verdict.repeated} of {row.allowed}  {'ok' if not row.broken else 'BROKEN'}"
    )
    return "\n".join([said, *(f"    {problem}" for problem in row.broken)])


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table."""
    verdict, facts = row.verdict, row.facts
    return (
        row.fault,
        row.place,
        ", ".join(f"{count} x {what}" for what, count in row.done.items()),
        str(verdict.stored),
        str(verdict.lost),
        str(verdict.inversions),
        str(verdict.repeated),
        str(row.allowed),
        f"{facts.memory:.1f}",
        str(facts.lines),
        str(facts.most),
        f"{max(facts.exits, default=0.0):.2f}",
        str(len(facts.left)),
        "held" if not row.broken else "BROKEN",
    )


def table(rows: Sequence[Row]) -> str:
    """All of them, as Markdown."""
    lines = [HEAD, ("---",) * len(HEAD), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> dict[str, Any]:
    """Where this was."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def data(rows: Sequence[Row], command: str) -> dict[str, Any]:
    """All that was measured, as plain data."""
    return {"command": command, "machine": machine(), "rows": [attrs.asdict(row) for row in rows]}


def page(rows: Sequence[Row], skipped: Sequence[tuple[Fault, str]], command: str) -> str:
    """The page of the evidence."""
    where = machine()
    total = sum(row.verdict.stored for row in rows)
    broken = sum(bool(row.broken) for row in rows)
    times = sum(sum(row.done.values()) for row in rows)
    return f"""\
# Faults

`{command}`, {sum(row.seconds for row in rows):.0f} s on {where["cores"]} cores
({where["system"]}, Python {where["python"]}, load {where["load"]});
[all that was measured](faults.json). In each row one program on Trio publishes events of 40 keys,
half of them one after another with repeats of what was not acknowledged, half pipelined, and
handles them for a group (`max_in_flight={IN_FLIGHT}`, `grace={GRACE:g}`), while a broker of its
own, or the way to it, is broken. What it completes stands in a file that an observer outside reads.

**{len(rows)} rows, {times} faults, {total} events acknowledged, {broken} rows broken.** Each row is
checked: nothing that was acknowledged is lost; for no key does a first completion come behind a
later one; no more is repeated than allowed; the process grows by no more than {MEMORY:g} MiB at its
peak; no logger says the same twice within a second (once for each bus, where buses end and are
opened again); the bus is left within its grace and a second; the census finds nothing that was not
there before.

{table(rows)}

## What may be repeated

{bounds_text()}

Where a broker cannot recognise the id of an event (Kafka), a publish that the program itself
repeated because its outcome was unknown is another event; those are counted, and allowed as well.

{DEEDS}{skipped_text(skipped)}"""


def bounds_text() -> str:
    """What each bound allows, and why."""
    lines = []
    for bound in dict.fromkeys(fault.repeats for fault in FAULTS):
        names = dict.fromkeys(f"*{fault.name}*" for fault in FAULTS if fault.repeats == bound)
        lines.append(f"- {', '.join(names)}: {bound.why}.")
    return "\n".join(lines)


def skipped_text(skipped: Sequence[tuple[Fault, str]]) -> str:
    """What this machine could not do."""
    if not skipped:
        return ""
    lines = [f"- {fault.name} on {fault.place.name}: {reason}" for fault, reason in skipped]
    return "\nNot run here:\n\n" + "\n".join(lines) + "\n"
