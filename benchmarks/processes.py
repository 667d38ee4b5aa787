"""The command lines of the processes that the benchmarks start themselves: for no person."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

from .contestants import ON_ASYNCIO, ON_TRIO, run
from .soak import Soak, soaking
from .workload import Job

URL = "TBUS_BENCH_URL"
"""Where the server is: with what is secret in it, so that no list of processes shows it."""


def contestant(arguments: Sequence[str]) -> None:
    """Run one contestant and print its figures, for `rounds`.

    Raises:
        Failed: it did.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks contestant",
        description=f"One contestant, once; its figures as JSON. {URL} says where the server is.",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("topic", metavar="TOPIC")
    parser.add_argument("count", metavar="COUNT", type=int)
    given = parser.parse_args(arguments)
    if given.name not in ON_TRIO and given.name not in ON_ASYNCIO:
        parser.error(f"there is no contestant {given.name!r}")
    print(json.dumps(run(given.name, Job(_url(parser), given.topic, given.count))))


def soak(arguments: Sequence[str]) -> None:
    """Do what is soaked in this process, for `soak`.

    Raises:
        Failed: a round did.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks soaking",
        description=f"Rounds of a soak, each told as JSON. {URL} says where the server is.",
    )
    parser.add_argument("plan", metavar="PLAN", help="as JSON")
    given = parser.parse_args(arguments)
    try:
        plan = Soak(**json.loads(given.plan))
    except (TypeError, ValueError) as error:
        parser.error(f"no plan: {error}")
    soaking(plan, _url(parser))


def _url(parser: argparse.ArgumentParser) -> str:
    if not (url := os.environ.get(URL)):
        parser.error(f"{URL} is not set")
    return url


PROCESSES = {"contestant": contestant, "soaking": soak}
