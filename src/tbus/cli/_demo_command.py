"""`tbus demo`: its options, and who watches it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

import attrs
import click

from .._config import BusConfig
from ._address import BACKENDS, json_option, load_config
from ._demo import Audience, DemoOptions, run_demo
from ._demo_plan import Plan
from ._demo_report import Report, figure
from ._demo_tally import Tally
from ._demo_view import View, make_console
from ._stop import Stop, run_command

_SHORT = {**BACKENDS, "embedded": "nats+embedded://"}

GRACE = 5.0
"""Seconds for the bus to end in; a handler takes a few thousandths of one."""

_COUNT = click.IntRange(min=1)


class _Nobody:
    """An audience that is not there."""

    def say(self, text: str, seconds: float | None = None) -> None: ...
    def begin(self, tally: Tally, plan: Plan) -> None: ...
    def redraw(self) -> None: ...
    def end(self) -> None: ...


@click.command()
@click.option(
    "--backend",
    default="embedded",
    metavar="[memory|nats|kafka|URL]",
    help="In this process, over a broker that is started for it, or over yours. [nats]",
)
@click.option("--events", type=_COUNT, default=10_000, show_default=True, help="To publish.")
@click.option("--customers", type=_COUNT, default=500, show_default=True, help="Keys.")
@click.option("--topics", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--concurrency", type=_COUNT, default=8, show_default=True, help="Handlers at once.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of everything random.")
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for what the embedded broker stores, kept. [memory]",
)
@click.option("--order", type=click.Choice(["key", "none"]), default="key", hidden=True)
@json_option
def demo(
    backend: str,
    events: int,
    customers: int,
    topics: int,
    concurrency: int,
    seed: int,
    store: Path | None,
    order: Literal["key", "none"],
    as_json: bool,
) -> int:
    """Publish and handle 10 000 orders, and see whether every promise holds.

    Concurrent producers, handlers that wait and sometimes fail, over a real nats-server that
    is started for it, or another broker. Ends with 1 if a promise broke.
    """
    config = _config(backend, store, concurrency)
    options = DemoOptions(config, events, customers, topics, seed, order)
    if as_json:
        report, code = _run(options, _Nobody())
        if report is not None:
            json.dump(report.as_json(), sys.stdout, indent=2)
            sys.stdout.write("\n")
        return code
    view = View(make_console())
    view.head(
        "tbus demo",
        f"{figure(events)} orders of {figure(min(customers, events))} customers over"
        f" {config.address}",
        f"{concurrency} handlers at once, each waits 1 to 5 ms; 1 % fail at first",
    )
    report, code = _run(options, view)
    if report is None:
        click.echo("  Ended by the user before the bus was open.")
    else:
        view.summary(report)
    return code


def _config(backend: str, store: Path | None, concurrency: int) -> BusConfig:
    config = load_config(_SHORT.get(backend, backend), concurrency=concurrency, grace=GRACE)
    if not config.embedded:
        if store is not None:
            raise click.UsageError("--store is for the embedded server: leave it or --backend out")
        return config
    if config.backend == "kafka":
        kept = config.kafka.store if store is None else store.absolute()
        return attrs.evolve(config, kafka=attrs.evolve(config.kafka, store=kept))
    if store is not None:
        return attrs.evolve(config, nats=attrs.evolve(config.nats, store=store.absolute()))
    if config.nats.store is None:
        return attrs.evolve(config, nats=attrs.evolve(config.nats, storage="memory"))
    return config


def _run(options: DemoOptions, audience: Audience) -> tuple[Report | None, int]:
    """The report, unless it was ended before there was anything to report; the exit code."""
    report: Report | None = None

    async def command(stop: Stop) -> int:
        nonlocal report
        report = await run_demo(options, audience, stop)
        return report.exit_code()

    code = run_command(command)
    return report, code
