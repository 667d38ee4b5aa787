"""The part of the page about pressure. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .pressure_plans import MEDIA, WORKLOADS
from .tables import shown, table

MIB = 1 << 20


def pressure_part(entry: Mapping[str, Any]) -> str:
    """Both workloads, each with its figures and with what the process took meanwhile."""
    parts = [
        "## Pressure: the original's workloads",
        "Five topics, one group, and a sender for each of messages / 10 aggregates (50 to 1000),"
        " all in one process: every sender publishes its versions one after another, each once the"
        " last is stored, and the handlers run beside the senders. Nobody sleeps, and the clock"
        " stops with the last unique message. All of them send as fast as receipts come, so the"
        " latencies are those of a bus that is full: a message waits in line behind those of all"
        " other senders, whose number grows with the load. Unique, duplicates and violations"
        " (a version that comes behind a later one of its topic and aggregate) are counted"
        " by the handlers; afterwards the broker is asked whether anything is left."
        + (
            f" Medians of {entry['rounds']} rounds, with smallest and largest."
            if entry["rounds"] > 1
            else " Each ran once."
        ),
        "**Published** are the figures that the original, jxt-core's EventBus in Go, tells of"
        " itself on another machine: they are quoted, not measured here. On disk it slept between"
        " its sends, so its rates there say how long it slept. Kafka has topics on disk alone: ours"
        " of the plain messages are there, while the original's figures are called those of memory"
        " storage.",
    ]
    for workload, about in WORKLOADS.items():
        runs = [run for run in entry["runs"] if run["workload"] == workload]
        if runs:
            parts += [f"### {about[0].upper()}{about[1:]}", _speed(runs), _taken(runs)]
    return "\n\n".join(parts)


def pressure_laws(entry: Mapping[str, Any]) -> dict[str, bool]:
    """What is promised of every run, and whether it held; nothing is said of a broker where there
    was none."""
    runs = [run["figures"] for run in entry["runs"]]
    rounds = [one for run in entry["runs"] for one in run["rounds"]]
    left = [one["left"] for one in rounds if "left" in one]
    laws = {
        "every message is handled": all(run["unique"]["min"] == 1 for run in runs),
        "none twice": all(run["duplicates"]["max"] == 0 for run in runs),
        "each key in order": all(run["violations"]["max"] == 0 for run in runs),
        "no task is left": all(one["end"]["tasks"] == one["start"]["tasks"] for one in rounds),
    }
    return laws | ({"nothing is left at the broker": not any(left)} if left else {})


def _speed(runs: list[Mapping[str, Any]]) -> str:
    rows = []
    for run in runs:
        found, quoted = run["figures"], run["published"]
        rows.append(
            [
                f"{MEDIA[run['medium']].label}, {run['load']}",
                f"{run['count']:,}",
                shown(found["rate"])
                if len(run["rounds"]) > 1
                else f"{found['rate']['median']:,.0f}",
                f"{quoted['rate']:,.0f}" if "rate" in quoted else "",
                *(_latency(found[latency]) for latency in ("send_ms", "end_to_end_ms")),
                f"{quoted['latency_ms']:,.0f}" if "latency_ms" in quoted else "",
                f"{found['unique']['min']:.2%}",
                f"{found['duplicates']['max']:,.0f}",
                f"{found['violations']['max']:,.0f}",
            ]
        )
    headings = [
        "medium, load", "messages", "messages/s", "published: messages/s",
        "send, ms: p50 / p99 / max", "end to end, ms: p50 / p99 / max", "published: ms",
        "unique", "duplicates", "violations",
    ]  # fmt: skip
    return table(headings, rows)


def _latency(found: Mapping[str, Mapping[str, float]]) -> str:
    return " / ".join(f"{found[of]['median']:,.1f}" for of in ("p50", "p99", "max"))


def _taken(runs: list[Mapping[str, Any]]) -> str:
    rows = []
    for run in runs:
        tasks, memory = run["figures"]["tasks"], run["figures"]["memory"]
        quoted = run["published"].get("tasks")
        rows.append(
            [
                f"{MEDIA[run['medium']].label}, {run['load']}",
                *(f"{tasks[at]['max']:.0f}" for at in ("start", "open", "peak", "end")),
                "" if quoted is None else f"{quoted:.0f}",
                *(f"{memory[at]['median'] / MIB:,.1f}" for at in ("start", "peak", "end")),
            ]
        )
    headings = [
        "medium, load", "tasks: start", "open", "peak", "end", "published: goroutines",
        "memory, MiB: start", "peak", "end",
    ]  # fmt: skip
    words = (
        "Tasks of the process, those of the clients' loop among them, less the benchmark's own"
        " senders; the most of all rounds. Memory is what of the process is resident, in which"
        " the senders and what is noted of each message are counted, too."
    )
    return words + "\n\n" + table(headings, rows)
