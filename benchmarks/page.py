"""A readable page of what was measured. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .comparisons import COMPARISONS
from .kafka_page import kills_laws, kills_part, loops_laws, loops_part
from .leak_page import leaks_laws, leaks_part
from .plans import CROSSING, CURE_COST, IDLE_TASKS, Comparison
from .pressure_page import pressure_laws, pressure_part
from .scale_page import scale_laws, scale_part
from .soak_page import soak_laws, soak_part
from .tables import digits_of, shown, table

Results = Mapping[str, Any]

INTRODUCTION = """\
Every contestant runs in a process of its own, over a topic of its own in the memory of one \
nats-server that the benchmark started (loopback, JetStream), or on one Apache Kafka broker that \
it started, with the memory and the compilers of Kafka's own start script. Contestants run in \
turn, round after round; in each round another one is first, and everyone follows another one \
than before. A figure is the median of the rounds, with the smallest and the largest; a ratio is \
taken within each round, tbus over the other, and its median and spread are told. Events are \
envelopes of exactly 256 bytes. Absolute figures are this machine's; the ratios are what can be \
compared. A contestant that loses, repeats or reorders an event stops the run."""

WARMED = (
    " Before the first round each has run once, uncounted, with a fifth of its events: a broker"
    " that has just started is slow."
)


PRESSED = {"pressure": "Pressure", "leaks": "Leaks", "scale": "Scale", "soak": "Soak"}
"""Benchmarks with a page of their own, by its title."""


def page(results: Results, pictures: Mapping[str, str] | None = None) -> str:
    """The whole page, Markdown.

    Args:
        results: as in a result file.
        pictures: where the plots are, seen from the page, by comparison; "targets" too.
    """
    pictures = pictures or {}
    entries = results["results"]
    if entries and entries.keys() <= PRESSED.keys():  # these say themselves how they are run
        parts = [f"# {', '.join(PRESSED[name] for name in entries)}"]
    else:
        parts = ["# Benchmarks", INTRODUCTION]
    parts += [_machine(results["machine"]), _again(results)]
    if verdicts := _verdicts(entries):
        parts += ["## Targets", verdicts]
        parts += _picture("The ratios and their targets", pictures.get("targets"))
    for name, comparison in COMPARISONS.items():
        if name in entries:
            parts.append(_comparison(comparison, entries[name]))
            parts += _picture(comparison.title, pictures.get(name))
    if "kafka-kills" in entries:
        parts.append(kills_part(entries["kafka-kills"]))
    if "kafka-loops" in entries:
        parts.append(loops_part(entries["kafka-loops"]))
    if "pressure" in entries:
        parts.append(pressure_part(entries["pressure"]))
    if "leaks" in entries:
        parts.append(leaks_part(entries["leaks"]))
    if "soak" in entries:
        parts.append(soak_part(entries["soak"]))
    if "scale" in entries:
        parts.append(scale_part(entries["scale"], pictures))
    if "fairness" in entries:
        parts.append(_fairness(entries["fairness"]))
    if "tasks" in entries:
        parts.append(_tasks(entries["tasks"]))
    return "\n\n".join(parts) + "\n"


def _picture(title: str, path: str | None) -> list[str]:
    return [] if path is None else [f"![{title}]({path})"]


def _machine(machine: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    changed = machine["changed_files"]
    broker = f"; {machine['kafka']}" if "kafka" in machine else ""
    state = f", with {changed} changed files" if changed else ""
    return (
        f"Measured {machine['when']} on {machine['cores']} cores, {machine['processor']},"
        f" {machine['system']}, {machine['python']} (load before: {machine['load_before']});"
        f" commit {machine['commit']}{state}; {packages}{broker}."
    )


def _again(results: Results) -> str:
    return (
        "Measured by this command, which repeats it with the packages of `tbus[bench]`:\n\n"
        f"```sh\n{results['command']}\n```\n\n"
        "`python -m benchmarks report FILE --into FOLDER` makes this page, and its plots, of the"
        " file that `--json FILE` has written."
    )


# --- targets -----------------------------------------------------------------------------


def _verdicts(entries: Mapping[str, Any]) -> str:
    rows = []
    for name, comparison in COMPARISONS.items():
        labels = _labels(comparison)
        for target in entries.get(name, {}).get("targets", ()):
            if target["against"] is None:
                unit = comparison.figures[target["figure"]]
                named = "" if len(comparison.figures) == 1 else f"{target['figure']}, "
                what = f"{labels[comparison.ours.name]}: {named}{unit}"
                digits = digits_of(unit)
            else:
                what = f"{target['figure']} over {labels[target['against']]}"
                digits = 2
            if not target["fair"]:
                what += " (beyond the target)"
            rows.append(
                [
                    f"{name}: {what}",
                    f"{target['kind']} {target['value']:,}",
                    f"{target['reached']:,.{digits}f}",
                    said(target["met"]),
                ]
            )
    if "fairness" in entries:
        slowest, dearest = _worst(entries["fairness"])
        for what, target_, reached in (
            ("fairness: slowest p99 of a way, ms", CROSSING, slowest),
            ("fairness: throughput lost, %", CURE_COST, dearest),
        ):
            rows.append(
                [
                    what,
                    f"{target_.kind} {target_.value:g}",
                    f"{reached:.1f}",
                    said(target_.is_met(reached)),
                ]
            )
    rows += [[f"{name}: {law}", "", "", said(met)] for (name, law), met in laws_of(entries).items()]
    return table(["what", "target", "reached", ""], rows) if rows else ""


def laws_of(entries: Mapping[str, Any]) -> dict[tuple[str, str], bool]:
    """What is promised and no matter of speed, by benchmark and law, and whether it held."""
    return {
        (name, law): met
        for name, laws in (
            ("kafka-kills", kills_laws),
            ("kafka-loops", loops_laws),
            ("pressure", pressure_laws),
            ("leaks", leaks_laws),
            ("scale", scale_laws),
            ("soak", soak_laws),
            ("tasks", _laws),
        )
        if name in entries
        for law, met in laws(entries[name]).items()
    }


def said(met: bool) -> str:
    """Whether a target was reached, as words."""
    return "reached" if met else "**not reached**"


# --- comparisons -------------------------------------------------------------------------


def _labels(comparison: Comparison) -> dict[str, str]:
    return {contestant.name: contestant.label for contestant in comparison.contestants}


def _comparison(comparison: Comparison, entry: Mapping[str, Any]) -> str:
    headings = [comparison.title]
    for figure, unit in comparison.figures.items():
        named = "" if len(comparison.figures) == 1 else f"{figure}, "
        headings += [f"{named}{unit}", "tbus / this"]
    rows = []
    for name, label in _labels(comparison).items():
        if name not in entry["contestants"]:
            continue  # an older file: it did not run yet
        found = entry["contestants"][name]
        row = [label]
        for figure, unit in comparison.figures.items():
            ratio = found["ratios"].get(figure)
            told = shown(found["figures"][figure], digits_of(unit))
            row += [told, "" if ratio is None else shown(ratio, 2)]
        rows.append(row)
    warmed = WARMED if comparison.warms_up else ""
    return "\n\n".join(
        [
            f"## {comparison.title}",
            comparison.about,
            f"{entry['count']:,} events for each, {entry['rounds']} rounds; `tbus / this` is the"
            f" first row's figure over this row's.{warmed}",
            table(headings, rows),
        ]
    )


# --- fairness ----------------------------------------------------------------------------


def _worst(entry: Mapping[str, Any]) -> tuple[float, float]:
    """The slowest p99 with the cure, and the highest cost."""
    found = [row["with"][f"{way}_p99"] for row in entry["rows"] for way in ("there", "back")]
    slowest = max(math.inf if value is None else value for value in found)
    return slowest, max(row["cost_percent"]["median"] for row in entry["rows"])


def _fairness(entry: Mapping[str, Any]) -> str:
    figures = {"p50": "p50", "p99": "p99", "worst_p99": "worst p99", "max": "max"}
    rows = []
    for row in entry["rows"]:
        for way, words in (("there", "program to clients"), ("back", "clients to program")):
            cells = [f"{row['busy']}, {row['slice_ms']} ms", words]
            for cure in ("with", "without"):
                found = (row[cure][f"{way}_{figure}"] for figure in figures)
                cells += ["none arrived" if value is None else f"{value:,.1f}" for value in found]
            rows.append(cells)
    costs = [
        [f"{row['busy']}, {row['slice_ms']} ms", shown(row["cost_percent"], 1)]
        for row in entry["rows"]
    ]
    headings = ["busy side, slice", "crossing", *figures.values()]
    headings += [f"without: {words}" for words in figures.values()]
    return "\n\n".join(
        [
            "## Fairness: a crossing while one side is busy",
            "One side burns CPU in slices of fixed work, with a pass of its loop between them;"
            f" {entry['probes']} probes cross from the program into the clients' loop and back (or"
            f" as many as get through in four seconds), {entry['rounds']} rounds. Milliseconds,"
            " with the rests that each side takes while it is busy, and without them"
            " (`open_bridge(fair=False)`). p50 and p99 are medians of the rounds; then come the"
            " worst round's p99 and the largest of all. Without the rests a run is undisturbed"
            " or stuck for seconds, as it happens, so its medians say little. A way into a busy"
            " loop waits for the end of the slice, whatever is done.",
            table(headings, rows),
            "What the rests cost the busy side, nobody probing, in percent of the slices it gets"
            " done:",
            table(["busy side, slice", "%"], costs),
        ]
    )


# --- tasks -------------------------------------------------------------------------------


def _laws(entry: Mapping[str, Any]) -> dict[str, bool]:
    """What is promised of tasks and of what is left, and whether it held."""
    backends = entry["backends"].values()
    last = f"{entry['subscriptions']} subscribed"
    counts = [
        {moment: found["outside"] for moment, found in backend["tasks"].items()}
        for backend in backends
    ]
    return {
        f"at most {IDLE_TASKS} while idle": all(c["open"] <= IDLE_TASKS for c in counts),
        "one more for each subscription": all(
            c["1 subscribed"] <= c["open"] + 1 and c[last] <= c["open"] + entry["subscriptions"]
            for c in counts
        ),
        "the same after any number of messages": all(
            found == c[last] for c in counts for at, found in c.items() if at.startswith("after")
        ),
        "the bus's own census counts the same": all(
            found["outside"] == found["census"]
            for backend in backends
            for found in backend["tasks"].values()
        ),
        "cycles end exactly where they began": not any(
            backend["difference"] for backend in backends
        ),
    }


def _tasks(entry: Mapping[str, Any]) -> str:
    backends = entry["backends"]
    moments = list(next(iter(backends.values()))["tasks"])
    rows = [
        [name, *(_both(found["tasks"][moment]) for moment in moments)]
        for name, found in backends.items()
    ]
    cycles = [
        [
            name,
            str(found["cycles"]),
            _held(found["before"]),
            _held(found["after"]),
            found["difference"].replace("\n", "; ") or "nothing",
        ]
        for name, found in backends.items()
    ]
    return "\n\n".join(
        [
            "## What a bus holds",
            "Tasks while the bus is open and idle, those in the clients' loop among them, counted"
            " from outside as Trio and asyncio know them (in brackets: what `Bus.census` says,"
            " where that differs):",
            table(["backend", *moments], rows),
            "Open, subscribe, publish, handle and close, again and again in one process. Compared"
            " is what is held, by identity, not how much:",
            table(["backend", "cycles", "held before", "held after", "difference"], cycles),
        ]
    )


def _both(found: Mapping[str, int]) -> str:
    if found["outside"] == found["census"]:
        return str(found["outside"])
    return f"{found['outside']} ({found['census']})"


def _held(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in counts.items())
