"""Run it: `python -m tests.chaos nats --events 200000 --kills 20 --suspends 20 --stops 20`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from tbus.servers._kafka_distribution import prepare_kafka
from tests.brokers.kafka import KafkaCluster
from tests.brokers.nats import NatsServer, find_binary

from .brokers import Broker, Kafka, Standing, before_nats, in_memory
from .run import Plan, run


@asynccontextmanager
async def open_broker(
    what: str, directory: Path, stack: ExitStack
) -> AsyncIterator[tuple[Broker, str]]:
    """The broker and its name: a URL, or one of its own, of this kind."""
    if what == "nats":
        server = stack.enter_context(NatsServer(directory / "nats"))
        async with before_nats(server) as nats:
            yield nats, await _version_of(find_binary())
    elif what == "kafka":
        distribution = await prepare_kafka(None)
        cluster = stack.enter_context(KafkaCluster(directory / "kafka", distribution=distribution))
        yield Kafka(cluster), "Apache Kafka"
    elif what == "memory":
        async with in_memory() as memory:
            yield memory, "memory"
    else:
        yield Standing(what), what.partition("://")[0]


async def _version_of(binary: str) -> str:
    done = await trio.run_process([binary, "--version"], capture_stdout=True)
    return done.stdout.decode().strip().replace(": v", " ")


async def run_one(what: str, plan: Plan, directory: Path, stack: ExitStack) -> dict[str, Any]:
    """One run, and where it ran."""
    async with open_broker(what, directory, stack) as (broker, name):
        found = await run(plan, broker, directory, lambda text: print(text, file=sys.stderr))  # noqa: T201
    where = {"broker": name, "python": platform.python_version(), "cores": os.cpu_count()}
    return {**where, **found}


def is_well(found: dict[str, Any]) -> bool:
    """Whether nothing is lost, out of order, or ended badly."""
    return not (found["lost"] or found["inversions"] or found["unclean ends"])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    result.add_argument(
        "broker", help="nats, kafka or memory, for one of its own; or the URL of one"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="write what came of it there")
    result.add_argument(
        "--keep", type=Path, metavar="DIRECTORY",
        help="leave the book and the members' log there; with CHAOS_MOVES=1 in the environment the"
        " log tells which partitions came and went",
    )  # fmt: skip
    for field in attrs.fields(Plan):
        default = field.default
        result.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(default), default=default,
            help=f"{field.metadata['about']} ({default:g})",
        )  # fmt: skip
    return result


def main() -> int:
    """Read the command line and do what it says."""
    options = vars(parser().parse_args())
    what, file, keep = options.pop("broker"), options.pop("json"), options.pop("keep")
    with ExitStack() as stack:
        if keep is None:
            keep = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos")))
        keep.mkdir(parents=True, exist_ok=True)
        found = trio.run(partial(run_one, what, Plan(**options), keep, stack))
    text = json.dumps(found, indent=2)
    print(text)  # noqa: T201
    if file is not None:
        file.write_text(text + "\n")
    return 0 if is_well(found) else 1


if __name__ == "__main__":
    sys.exit(main())
