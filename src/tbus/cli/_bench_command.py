"""`tbus bench`: its options, and who watches it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from typing import Any, Literal

import click
from click.core import ParameterSource

from .._config import BusConfig
from .._errors import TbusError
from ._address import BACKENDS, json_option, load_config, url_option
from ._bench import Audience, BenchOptions, run_bench
from ._bench_events import SMALLEST, Meter
from ._bench_report import Report
from ._bench_view import View
from ._demo_report import figure
from ._demo_view import make_console
from ._escape import escaped
from ._number import Number
from ._stop import Stop, run_command

_COUNT = click.IntRange(min=1)

_PACKAGES = ("tbus", "trio", "anyio", "msgspec", "nats-py", "aiokafka")


class _Nobody:
    """An audience that is not there."""

    def begin(self, step: str, meter: Meter, expected: float | None) -> None: ...
    def done(self, step: str, report: Report) -> None: ...
    def redraw(self) -> None: ...
    def end(self) -> None: ...


@click.command()
@click.option(
    "--backend",
    type=click.Choice([*BACKENDS]),
    help="Instead of --url: in this process, or over a server that is started for it.",
)
@click.option(
    "--seconds",
    type=Number(min=0.01, max=3600),
    default=3.0,
    show_default=True,
    help="For each measurement.",
)
@click.option("--publishers", type=_COUNT, default=100, show_default=True, help="At once.")
@click.option(
    "--size",
    type=click.IntRange(SMALLEST, 1024 * 1024),
    default=256,
    show_default=True,
    help="Bytes of an event.",
)
@click.option("--keys", type=_COUNT, default=1000, show_default=True, help="Of the events.")
@click.option("--partitions", type=_COUNT, default=1, show_default=True, help="Of each topic.")
@click.option("--replicas", type=_COUNT, default=1, show_default=True, help="Of each topic.")
@click.option(
    "--storage", type=click.Choice(["file", "memory"]), help="Of each topic. [as configured]"
)
@json_option
@url_option
@click.pass_context
def bench(
    context: click.Context,
    backend: str | None,
    seconds: float,
    publishers: int,
    size: int,
    keys: int,
    partitions: int,
    replicas: int,
    storage: Literal["file", "memory"] | None,
    as_json: bool,
    config: BusConfig,
) -> int:
    """Measure how fast a broker is through tbus: publish, consume, latency.

    It makes topics of its own (tbus-bench-...), touches no other, and removes them in the end,
    after Ctrl-C too. The broker has to bear the load: mind who else uses it. Ends with 1 if an
    event is missing or out of order, or a topic could not be removed.
    """
    if backend is not None:
        if context.get_parameter_source("config") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--backend stands for a --url: give one of them")
        config = load_config(BACKENDS[backend])
    options = BenchOptions(
        config,
        seconds,
        publishers,
        size,
        keys,
        partitions,
        replicas,
        storage or config.nats.storage,
    )
    report = Report(config.address, _settings(options), _versions())
    if as_json:
        code = _run(options, report, _Nobody())
        json.dump(report.as_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return code
    view = View(make_console(), publishers)
    view.head(
        "tbus bench",
        escaped(config.address),
        f"events of {figure(size)} bytes, {figure(keys)} keys, {seconds:g} s for each measurement",
    )
    code = _run(options, report, view)
    view.summary(report)
    return code


def _settings(options: BenchOptions) -> dict[str, Any]:
    names = (
        "seconds", "publishers", "size", "keys", "partitions", "replicas", "storage",
    )  # fmt: skip
    return {name: getattr(options, name) for name in names}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _run(options: BenchOptions, report: Report, audience: Audience) -> int:
    async def command(stop: Stop) -> int:
        try:
            await run_bench(options, report, audience, stop)
        finally:
            # Wherever it came: before the bus was open, there is nobody else to tell it.
            report.signal = stop.signal
        return report.exit_code()

    try:
        return run_command(command)
    except TbusError:
        if report.left_topics:
            click.echo(f"tbus: left on the broker: {', '.join(report.left_topics)}", err=True)
        raise
