"""`tbus top`: its options, and what it draws on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import get_args

import click
import trio

from .._bus import Bus
from .._config import BusConfig
from .._open import open_bus
from ._address import as_topic, json_option, url_option
from ._beside import running_beside
from ._demo_view import make_console
from ._keyboard import open_keyboard, read_keys
from ._number import Number
from ._stop import Stop, run_command
from ._there import check_there
from ._top_look import look, look_again
from ._top_state import Snapshot, Sort
from ._top_view import Look, Screen

BETWEEN = 1.0
"""Seconds between the two looks of `--once`."""


def _as_topics(
    context: click.Context, parameter: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    return tuple(as_topic(context, parameter, name) for name in names)


@click.command()
@click.argument("topics", nargs=-1, callback=_as_topics)
@click.option(
    "--every",
    type=Number(min=0.1, max=3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--sort", type=click.Choice(get_args(Sort)), default="name", show_default=True)
@click.option("--partitions", is_flag=True, help="A row for each partition, too.")
@click.option("--once", is_flag=True, help="Look twice, a second apart, print, and end.")
@json_option
@url_option
def top(
    topics: tuple[str, ...],
    every: float,
    sort: Sort,
    partitions: bool,
    once: bool,
    as_json: bool,
    config: BusConfig,
) -> int:
    """Watch topics, groups, lag, rates and who reads what, until q or Ctrl-C.

    TOPICS: only those. Looking changes nothing on the broker. With --json, one line for each look.
    """
    screen = Screen(make_console(), config.address, Look(sort, partitions))

    def show(snapshot: Snapshot) -> None:
        if as_json:
            now = datetime.now(UTC).isoformat()
            click.echo(json.dumps(snapshot.as_json(config.address, now)))
        else:
            screen.print(snapshot)

    async def command(stop: Stop) -> int:
        async with open_bus(config) as bus:
            with stop.scope():
                for topic in topics:
                    await check_there(bus, topic)
                if once:
                    before = await look(bus, topics)
                    await trio.sleep(BETWEEN)
                    show((await look(bus, topics)).since(before))
                elif as_json or not screen.can_move:
                    await _follow(bus, topics, every, show)
                else:
                    await _watch(bus, topics, every, screen)
        return 0

    return run_command(command)


async def _follow(
    bus: Bus, topics: Sequence[str], every: float, show: Callable[[Snapshot], None]
) -> None:
    """Look again and again."""
    snapshot: Snapshot | None = None
    while True:
        snapshot = await look_again(bus, snapshot, topics)
        show(snapshot)
        await trio.sleep(every)


async def _watch(bus: Bus, topics: Sequence[str], every: float, screen: Screen) -> None:
    """The same on a terminal, which is then as it was; until q is pressed."""

    async def listen() -> None:
        if keyboard is None:
            return
        async for key in read_keys(keyboard):
            if key in "qQ":
                scope.cancel()
            screen.press(key)

    with open_keyboard() as keyboard, screen.opened():
        async with running_beside(listen, "keyboard") as scope:
            await _follow(bus, topics, every, screen.update)
