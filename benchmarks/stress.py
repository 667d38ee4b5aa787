"""The command lines of what presses: `python -m benchmarks pressure|leaks|scale|soak`."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import trio

from .brokers import Brokers, open_brokers
from .leak_runs import SHARES, measure_leaks
from .machine import describe
from .page import page
from .pressure_plans import BEYOND, LOADS, MEDIA, WORKLOADS
from .pressure_runs import measure_pressure
from .result_file import result_file, writing
from .scale_plans import AXES, TRANSPORTS
from .scale_runs import measure_scale
from .soak import Soak
from .soak_watch import watch_soak

STRESSES = ("pressure", "leaks", "scale", "soak")

SOAKS = ("pressure", "leaks", "scale", "fairness")

MILLION = 1_000_000

Keep = Callable[[dict[str, Any]], Awaitable[None]]

Measured = Callable[[Brokers, Keep], Awaitable[dict[str, Any]]]


def main(arguments: Sequence[str]) -> None:
    """Read the command line, measure, print the page.

    Args:
        arguments: the command line, its first word one of `STRESSES`.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    pressure = commands.add_parser("pressure", help="the original's two workloads, and beyond")
    pressure.add_argument(
        "--media", type=_names(MEDIA), default=list(MEDIA), help=f"of {', '.join(MEDIA)} (all)"
    )
    pressure.add_argument(
        "--messages",
        type=_numbers,
        default=[*LOADS.values(), *BEYOND],
        help="sizes of the runs, with commas (500,2000,5000,10000,100000)",
    )
    pressure.add_argument("--million", action="store_true", help="a million messages, too")
    pressure.add_argument("--rounds", type=_number, default=3, help="how often each runs (3)")
    leaks = commands.add_parser("leaks", help="open, use and close, again and again")
    leaks.add_argument("--cycles", type=_number, default=1000, help="of each transport (1000)")
    leaks.add_argument(
        "--transports",
        type=_names(SHARES),
        default=list(SHARES),
        help=f"of {', '.join(SHARES)} (all)",
    )
    scale = commands.add_parser("scale", help="what more of everything costs")
    scale.add_argument(
        "--axes", type=_names(AXES), default=list(AXES), help=f"of {', '.join(AXES)} (all)"
    )
    scale.add_argument(
        "--transports",
        type=_names(TRANSPORTS),
        default=list(TRANSPORTS),
        help=f"of {', '.join(TRANSPORTS)} (all)",
    )
    scale.add_argument(
        "--rounds", type=_number, default=3, help="how often each point is measured (3)"
    )
    soak = commands.add_parser("soak", help="one of these for a given time, with a live view")
    soak.add_argument("pressed", choices=SOAKS, help="what is done again and again")
    soak.add_argument(
        "--for",
        dest="seconds",
        type=_seconds,
        default=600.0,
        metavar="TIME",
        help="how long: 90, 90s, 10m or 2h (10m)",
    )
    soak.add_argument("--medium", choices=list(MEDIA), default="nats-file", help="of pressure")
    soak.add_argument(
        "--workload", choices=list(WORKLOADS), default="envelopes", help="of pressure"
    )
    soak.add_argument("--transport", choices=list(SHARES), default="nats", help="of the others")
    soak.add_argument("--axis", choices=list(AXES), default="keys", help="of scale")
    soak.add_argument(
        "--messages",
        type=_number,
        default=10_000,
        help="of a round of pressure or of a point (10000)",
    )
    for command in (pressure, leaks, scale, soak):
        command.add_argument(
            "--json", type=result_file, metavar="FILE", help="write the figures there"
        )
        command.add_argument("--quick", action="store_true", help="a look, in seconds")
    given = parser.parse_args(arguments)
    line = shlex.join(["python", "-m", "benchmarks", *arguments])
    kinds, measured = PLANS[given.what](given)
    trio.run(_measure_one, given, line, kinds, measured)


async def _measure_one(
    given: argparse.Namespace, command: str, kinds: Sequence[str], measured: Measured
) -> None:
    results: dict[str, Any] = {"machine": describe(), "command": command, "results": {}}

    async with writing(given.json) as write, open_brokers(kinds) as brokers:
        results["machine"] |= brokers.names

        async def keep(entry: dict[str, Any]) -> None:
            results["results"][given.what] = entry
            await write(results)

        await keep(await measured(brokers, keep))
    print(page(results), end="")


def _pressure(given: argparse.Namespace) -> tuple[list[str], Measured]:
    counts = [*given.messages, *([MILLION] if given.million else [])]
    rounds = given.rounds
    if given.quick:
        counts, rounds = [LOADS["Low"]], 1

    async def measured(brokers: Brokers, keep: Keep) -> dict[str, Any]:
        return await measure_pressure(brokers.urls, given.media, counts, rounds, keep)

    return [MEDIA[name].broker for name in given.media], measured


def _leaks(given: argparse.Namespace) -> tuple[list[str], Measured]:
    cycles = 10 if given.quick else given.cycles

    async def measured(brokers: Brokers, keep: Keep) -> dict[str, Any]:
        return await measure_leaks(brokers.urls, given.transports, cycles, keep)

    return given.transports, measured


def _scale(given: argparse.Namespace) -> tuple[list[str], Measured]:
    rounds = 1 if given.quick else given.rounds

    async def measured(brokers: Brokers, keep: Keep) -> dict[str, Any]:
        return await measure_scale(
            brokers.urls, given.axes, given.transports, rounds, keep, quick=given.quick
        )

    return given.transports, measured


def _soak(given: argparse.Namespace) -> tuple[list[str], Measured]:
    plan = Soak(
        what=given.pressed,
        seconds=5.0 if given.quick else given.seconds,
        count=given.messages,
        medium=given.medium,
        workload=given.workload,
        transport=given.transport,
        axis=given.axis,
    )

    async def measured(brokers: Brokers, _: Keep) -> dict[str, Any]:
        return await watch_soak(plan, brokers.urls[plan.kind])

    return [plan.kind], measured


PLANS = {"pressure": _pressure, "leaks": _leaks, "scale": _scale, "soak": _soak}


def _seconds(words: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (words[:-1], words[-1]) if words[-1:] in units else (words, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{words!r} is no time like 90, 90s, 10m or 2h")
    return seconds


def _number(words: str) -> int:
    number = int(words) if words.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{words!r} is not a whole number from 1 on")
    return number


def _numbers(words: str) -> list[int]:
    return [_number(word) for word in words.split(",")]


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    def names(words: str) -> list[str]:
        found = words.split(",")
        if unknown := [word for word in found if word not in known]:
            raise argparse.ArgumentTypeError(
                f"there is no {unknown[0]!r}; there are: {', '.join(known)}"
            )
        return found

    return names
