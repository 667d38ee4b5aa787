"""The command line.

`python -m benchmarks NAME... [--rounds N] [--json FILE] [--quick]` measures and prints a page;
`python -m benchmarks report` makes pages and plots of what earlier runs wrote, `python -m
benchmarks compare BEFORE AFTER` says what has changed outside the noise. What presses has options
of its own: `python -m benchmarks pressure|leaks|scale|soak --help`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

from tbus.servers import open_kafka_server, open_nats_server

from . import stress
from .comparisons import COMPARISONS
from .machine import describe
from .page import page
from .processes import PROCESSES
from .reading import compare, report
from .result_file import result_file, writing
from .results import NAMES, TITLES, measure
from .workload import Failed

QUICK = (0.05, 2)
"""Share of the work, and rounds, for a look."""


OVER_FILES = {"report": report, "compare": compare}
"""What reads result files and measures nothing."""

WITHOUT_SERVER = {"memory", "memory-waiting", "fairness"}


GROUPS = {
    "all": NAMES,
    "versus": tuple(COMPARISONS),
    "versus-nats": ("publish", "latency", "consume", "arrival", "loaded"),
    "versus-kafka": tuple(name for name in COMPARISONS if name.startswith("kafka-")),
}
"""Names that stand for several."""


def over_kafka(name: str) -> bool:
    """Whether a benchmark wants a Kafka broker instead of a nats-server."""
    return name.startswith("kafka-")


async def measure_all(
    names: list[str], rounds: int, scale: float, results: dict[str, Any], file: Path | None
) -> None:
    """Everything that was asked for, over one server of each kind; kept after each, in case of an
    end."""
    async with AsyncExitStack() as stack:
        write = await stack.enter_async_context(writing(file))
        nats = kafka = "memory://"
        if any(name not in WITHOUT_SERVER and not over_kafka(name) for name in names):
            server = await stack.enter_async_context(open_nats_server())
            nats = f"nats://{server.user}:{server.password}@{server.host}:{server.port}"
        if any(over_kafka(name) for name in names):
            broker = await stack.enter_async_context(open_kafka_server(kind="kafka"))
            results["machine"]["kafka"] = broker.name
            kafka = f"kafka://{broker.address}"
        for name in names:
            print(name, file=sys.stderr, flush=True)
            url = kafka if over_kafka(name) else nats
            results["results"][name] = await measure(name, url, rounds, scale)
            await write(results)


def main() -> None:
    """Read the command line and do what it says."""
    try:
        _main()
    except Failed as error:
        sys.exit(str(error))


def _names() -> str:
    """Every name, and what it stands for."""
    known = {**TITLES, **{name: ", ".join(names) for name, names in GROUPS.items()}}
    known["all"] = "all of the above"
    return "\n".join(["names:", *(f"  {name:<21} {about}" for name, about in known.items())])


def _main() -> None:
    if sys.argv[1:2] and sys.argv[1] in PROCESSES:
        PROCESSES[sys.argv[1]](sys.argv[2:])
        return
    if sys.argv[1:2] and sys.argv[1] in stress.STRESSES:
        stress.main(sys.argv[1:])
        return
    if sys.argv[1:2] and sys.argv[1] in OVER_FILES:
        sys.exit(OVER_FILES[sys.argv[1]](sys.argv[2:]))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=_names(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="+", metavar="NAME", help="what is measured: see below")
    parser.add_argument("--rounds", type=int, default=5, help="how often each runs (5)")
    parser.add_argument("--json", type=result_file, metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="a twentieth, two rounds: for a look")
    arguments = parser.parse_args()
    names = [name for what in arguments.what for name in GROUPS.get(what, (what,))]
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"there is no {unknown[0]!r}; there are: {', '.join([*NAMES, *GROUPS])}")
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    scale, rounds = QUICK if arguments.quick else (1.0, arguments.rounds)
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    results: dict[str, Any] = {"machine": describe(), "command": command, "results": {}}
    trio.run(measure_all, names, rounds, scale, results, arguments.json)
    print(page(results), end="")


if __name__ == "__main__":
    main()
