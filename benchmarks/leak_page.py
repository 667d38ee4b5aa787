"""The part of the page about leaks: the table of the original's, and what cycles leave. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .leak_plans import LEAKS
from .pressure_plans import MEDIA
from .tables import table

MIB = 1 << 20

Entry = Mapping[str, Any]

KINDS = ("tasks", "threads", "files", "processes")

TRUSTED = 100
"""Cycles from which on a slope says something."""

TRIFLE = 100
"""Bytes: a hundred kilobytes after a thousand buses."""


def leaks_part(entry: Entry) -> str:
    """Everything that is told of leaks."""
    rows = [
        [
            leak.leaked,
            leak.much,
            leak.instead,
            ", ".join(f"`{name}`" for name in leak.tests),
            FIGURES[leak.name](entry),
        ]
        for leak in LEAKS
    ]
    headings = ["what leaked in the original", "how much", "tbus", "would fail", "figure"]
    return "\n\n".join(
        [
            "## Leaks that cannot be",
            "The original is jxt-core's EventBus, in Go; what it leaked is what its own tests and"
            " reports tell. Figures of tbus are of the runs below: smallest to largest over the"
            " transports, where they differ.",
            table(headings, rows),
            "## Many cycles",
            "A cycle opens a bus, subscribes with a group and without one, publishes ten events"
            " with a pipelined publisher, handles them twice and closes the bus; all in one"
            " process, and counted in the statement behind the block, with no sleep and no"
            " collection of garbage. What is held is compared by identity.",
            _cycles(entry),
            "Resident memory after each cycle, once a fifth of them is over: the slope of a"
            " straight line, with its standard"
            " error. The line is drawn through the means of twenty stretches, since neighbours are"
            " not independent of each other. Blocks are what Python's allocator has given out."
            " Garbage is collected before each look, for Python itself collects what is old after"
            " thousands of cycles only.",
            _memory(entry),
            "## Tasks while open",
            "Of an open bus, those in the clients' loop among them, counted from outside as Trio"
            " and asyncio know them, once nothing is handled any more. Kafka's clients are made"
            " when a bus first subscribes and first publishes.",
            _tasks(entry),
        ]
    )


def leaks_laws(entry: Entry) -> dict[str, bool]:
    """What is promised, and whether it held; nothing is said of what nobody has looked at."""
    backends = entry["backends"].values()
    counted = [
        {moment: found["outside"] for moment, found in backend["tasks"].items()}
        for backend in backends
    ]
    last = f"{entry['subscriptions']} subscribed"
    more = entry["subscriptions"] - 1
    after = [[n for at, n in found.items() if at.startswith("after")] for found in counted]
    laws = {
        "every cycle ends exactly where it began": not any(one["different"] for one in backends),
        "one task for each further topic": all(
            found[last] - found["1 subscribed"] <= more for found in counted
        ),
        "the bus's own census counts the same": all(
            found["outside"] == found["census"]
            for backend in backends
            for found in backend["tasks"].values()
        ),
    }
    judged: dict[str, list[bool]] = {
        "as many tasks after any number of messages": [
            len(set(one)) == 1 for one in after if len(one) > 1
        ],
        f"memory is flat: at most three standard errors, or {TRIFLE} bytes a cycle": [
            _is_flat(found["memory"]) for found in backends if found["cycles"] >= TRUSTED
        ],
        "every message arrives": [run["figures"]["unique"]["min"] == 1 for run in entry["traffic"]],
    }
    return laws | {law: all(held) for law, held in judged.items() if held}


def _is_flat(memory: Mapping[str, Any]) -> bool:
    return bool(memory["per_cycle"] <= max(TRIFLE, 3 * memory["error"]))


# --- the figures of the table ------------------------------------------------------------


def _per_topic(entry: Entry) -> str:
    last = f"{entry['subscriptions']} subscribed"
    counts = [found["tasks"] for found in entry["backends"].values()]
    each = [
        (one[last]["outside"] - one["1 subscribed"]["outside"]) / (entry["subscriptions"] - 1)
        for one in counts
    ]
    held = [one[last]["outside"] for one in counts]
    return (
        f"{_range(each)} a topic; {_range(held)} in all with {entry['subscriptions']} topics, idle"
    )


def _per_message(entry: Entry) -> str:
    grown, most = [], 0
    for found in entry["backends"].values():
        after = {
            int(at.removeprefix("after ").replace(",", "")): one["outside"]
            for at, one in found["tasks"].items()
            if at.startswith("after")
        }
        if len(after) > 1:
            few, many = min(after), max(after)
            grown.append((after[many] - after[few]) / (many - few))
            most = max(most, many)
    told = f"{_range(grown)} a message, after up to {most:,}; " if grown else ""
    return told + _peaks(entry)


def _peaks(entry: Entry) -> str:
    counts = sorted({run["count"] for run in entry["traffic"]})
    peaks = [
        _range([r["figures"]["tasks"]["peak"]["max"] for r in entry["traffic"] if r["count"] == n])
        for n in counts
    ]
    return ", ".join(f"at most {p} at once under {n:,}" for n, p in zip(counts, peaks, strict=True))


def _left(kind: str) -> Callable[[Entry], str]:
    def left(entry: Entry) -> str:
        moments = sorted({int(m) for one in entry["backends"].values() for m in one["residue"]})
        parts = []
        for moment in moments:
            if moment in (1, 100, 1000):
                found = [
                    one["residue"][str(moment)][kind]
                    for one in entry["backends"].values()
                    if str(moment) in one["residue"]
                ]
                parts.append(f"{_range(found)} after {moment:,}")
        return f"{kind} left: " + ", ".join(parts)

    return left


def _clients(entry: Entry) -> str:
    last = f"{entry['subscriptions']} subscribed"
    held = ", ".join(
        f"{name} {found['tasks'][last]['outside']}"
        for name, found in entry["backends"].items()
        if "+" not in name
    )
    return f"tasks with {entry['subscriptions']} topics: {held}; {_left('files')(entry)}"


def _residue(entry: Entry) -> str:
    cycles = max(found["cycles"] for found in entry["backends"].values())
    different = sum(found["different"] for found in entry["backends"].values())
    return f"after {different} of up to {cycles:,} cycles something else is held than before"


def _unique(entry: Entry) -> str:
    if not entry["traffic"]:
        return ""
    most = max(run["count"] for run in entry["traffic"])
    shares = [run["figures"]["unique"]["min"] for run in entry["traffic"] if run["count"] == most]
    return f"{min(shares):.2%} of {most:,} messages arrive; {_peaks(entry)}"


def _slopes(entry: Entry) -> str:
    parts = []
    for name, found in entry["backends"].items():
        memory = found["memory"]
        if "per_cycle" in memory and "+" not in name:
            parts.append(f"{name} {_line(memory)}")
    return "bytes of memory a cycle: " + ", ".join(parts)


FIGURES: Mapping[str, Callable[[Entry], str]] = {
    "topics": _per_topic,
    "traffic": _per_message,
    "loops": _left("tasks"),
    "bus": _left("tasks"),
    "clients": _clients,
    "cycles": _residue,
    "acknowledgements": _unique,
    "deadlines": lambda _: "",
    "waiting": _slopes,
}


# --- the other tables --------------------------------------------------------------------


def _cycles(entry: Entry) -> str:
    rows = []
    for name, found in entry["backends"].items():
        residue = found["residue"]
        rows.append(
            [
                name,
                f"{found['cycles']:,}",
                ", ".join(f"{number} {kind}" for kind, number in found["before"].items()),
                *(
                    str(sum(residue[moment].values())) if moment in residue else ""
                    for moment in ("1", "100", "1000")
                ),
                str(found["different"]),
                found["difference"].replace("\n", "; ") or "nothing",
            ]
        )
    headings = [
        "transport", "cycles", "held before",
        "left after 1", "100", "1000", "cycles after which it differed", "difference at the end",
    ]  # fmt: skip
    return table(headings, rows)


def _memory(entry: Entry) -> str:
    rows = []
    for name, found in entry["backends"].items():
        memory, blocks = found["memory"], found["blocks"]
        rows.append(
            [
                name,
                f"{found['cycles']:,}",
                f"{memory['values'][0] / MIB:,.1f}",
                f"{memory['warm'] / MIB:,.1f}",
                f"{memory['last'] / MIB:,.1f}",
                _line(memory),
                _line(blocks),
            ]
        )
    headings = [
        "transport", "cycles", "MiB: first", "warm", "last", "bytes a cycle", "blocks a cycle",
    ]  # fmt: skip
    return table(headings, rows)


def _tasks(entry: Entry) -> str:
    moments = list(next(iter(entry["backends"].values()))["tasks"])
    rows = [
        [name, *(str(found["tasks"].get(at, {}).get("outside", "")) for at in moments)]
        for name, found in entry["backends"].items()
    ]
    peaks = [
        [
            MEDIA[run["medium"]].label,
            f"{run['count']:,}",
            *(f"{run['figures']['tasks'][at]['max']:.0f}" for at in ("open", "peak", "end")),
        ]
        for run in entry["traffic"]
    ]
    return "\n\n".join(
        [
            table(["transport", *moments], rows),
            "Tasks of the process while one of the [pressure](pressure.md) workloads runs, less"
            " its senders:",
            table(["medium", "messages", "open", "peak", "end"], peaks),
        ]
    )


def _line(found: Mapping[str, Any]) -> str:
    if "per_cycle" not in found:
        return ""
    return f"{found['per_cycle']:+,.1f} ± {found['error']:,.1f}"


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.3g}" if low == high else f"{low:,.3g} to {high:,.3g}"
