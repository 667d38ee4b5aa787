"""Every fault of the list: `python -m tests.faults`, or some, by name, place or transport:
`python -m tests.faults cuts`, `python -m tests.faults kills "kafka, 3 nodes"`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import trio

from tbus.servers._kafka_node import Distribution
from tests.brokers.kafka import find_kafka
from tests.brokers.nats import BrokerMissing

from .suite.driver import Row, run
from .suite.faults import FAULTS, SHORT_SECONDS, Fault, short_form
from .suite.page import data, line, page, table
from .suite.surroundings import NotHere

SECONDS = 6.0
"""For which things are broken, in each row."""

LIMIT = 15 * 60.0
"""Seconds for all."""


@attrs.define
class Results:
    """What came of them.

    Attributes:
        rows: that were run.
        skipped: faults that could not be, and why.
    """

    rows: list[Row] = attrs.Factory(list)
    skipped: list[tuple[Fault, str]] = attrs.Factory(list)


async def run_all(
    faults: Sequence[Fault],
    directory: Path,
    seconds: float,
    distribution: Distribution | None,
    tell: Callable[[Row], None],
) -> Results:
    """Run them, those of one place on one ground after another."""
    results = Results()
    for number, place in enumerate(dict.fromkeys(fault.place for fault in faults)):
        here = directory / f"ground-{number}"
        here.mkdir(parents=True)
        rows = [fault for fault in faults if fault.place == place]
        try:
            async with place.open(here, distribution) as ground:
                for row_number, fault in enumerate(rows):
                    own = here / f"row-{row_number}"
                    own.mkdir()
                    row = await run(fault, ground, own, seconds)
                    results.rows.append(row)
                    tell(row)
        except NotHere as error:
            results.skipped += [(fault, str(error)) for fault in rows]
    return results


def chosen(names: Sequence[str], *, short: bool) -> list[Fault]:
    """The faults that all of these names fit."""
    return [
        fault
        for fault in (short_form() if short else FAULTS)
        if all(name in (fault.name, fault.place.name, fault.place.kind) for name in names)
    ]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    result.add_argument("names", nargs="*", help="of a fault, a place or a transport")
    result.add_argument("--short", action="store_true", help="what `make test` runs")
    result.add_argument("--seconds", type=float, help="for which things are broken, in each row")
    result.add_argument(
        "--json", type=Path, metavar="FILE",
        help="write what was measured there, and the page beside it (.md)",
    )  # fmt: skip
    result.add_argument("--keep", type=Path, metavar="DIRECTORY", help="leave books and logs there")
    return result


def main() -> int:
    """Read the command line and do what it says."""
    options = parser().parse_args()
    faults = chosen(options.names, short=options.short)
    if not faults:
        known = ", ".join(dict.fromkeys(f"{fault.name!r}" for fault in FAULTS))
        print(f"no fault of that name: there are {known}", file=sys.stderr)  # noqa: T201
        return 2
    distribution = None
    missing = ""
    if any(fault.place.kind == "kafka" for fault in faults):
        try:
            distribution = find_kafka()
        except BrokerMissing as error:
            missing = str(error)
            faults = [fault for fault in faults if fault.place.kind != "kafka"]
    seconds = options.seconds or (SHORT_SECONDS if options.short else SECONDS)
    tell: Callable[[Row], None] = lambda row: print(line(row), flush=True)  # noqa: E731, T201
    with ExitStack() as stack:
        keep = options.keep
        if keep is None:
            keep = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults")))
        try:
            results = trio.run(partial(limited, faults, keep, seconds, distribution, tell))
        except trio.TooSlowError:
            print(f"not done within {LIMIT:g} s", file=sys.stderr)  # noqa: T201
            return 1
    print(f"\n{table(results.rows)}")  # noqa: T201
    for fault, reason in results.skipped:
        print(f"not run: {fault.name}, {fault.place.name}: {reason}")  # noqa: T201
    if missing:
        print(f"not run: anything on Kafka: {missing}")  # noqa: T201
    if options.json is not None:
        command = " ".join(["python -m tests.faults", *options.names])
        options.json.write_text(json.dumps(data(results.rows, command), indent=1) + "\n")
        text = page(results.rows, results.skipped, command)
        options.json.with_suffix(".md").write_text(text)
    return int(any(row.broken for row in results.rows))


async def limited(
    faults: Sequence[Fault],
    directory: Path,
    seconds: float,
    distribution: Distribution | None,
    tell: Callable[[Row], None],
) -> Results:
    """The same, in no more time than all may take."""
    with trio.fail_after(LIMIT):
        return await run_all(faults, directory, seconds, distribution, tell)


if __name__ == "__main__":
    sys.exit(main())
