"""`tbus dead list|show|redrive`: what could not be handled, why, and back with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import attrs
import click
from rich.table import Table
from rich.text import Text

from .._bus import Bus
from .._config import BusConfig
from .._dead_letters import DeadLetter, Redriven
from .._errors import ConfigurationError, TbusError
from .._message import Position
from .._open import open_bus
from .._requests import check_dead_letters
from ._address import as_group, as_topic, json_option, url_option
from ._body import body_fields
from ._demo_view import make_console
from ._escape import escaped, escaped_bytes
from ._number import Number
from ._stop import Stop, run_command
from ._there import check_there

F = TypeVar("F", bound=Callable[..., Any])

_MINUTES = len("2026-01-01 00:00")

_NAME = 16
"""Widest column of keys and groups in a table."""

_PLACE = re.compile(r"(?:([0-9]{1,9}):)?([0-9]{1,18})")
_ID = re.compile(r"dead-[0-9a-f]{4,32}")


class _NotFound(TbusError):
    """What was named is not there, or more than one is."""


@click.group()
def dead() -> None:
    """Look at dead letters, and publish their originals again.

    The letters of TOPIC are read from TOPIC.dead, unless --dead-letter names another topic.
    Reading takes nothing away.
    """


def _letters_options(function: F) -> F:
    for option in (
        click.option("--group", callback=as_group, help="Only the letters of that group."),
        click.option(
            "--dead-letter",
            default="<topic>.dead",
            help="The topic that holds them. [<topic>.dead]",
        ),
    ):
        function = option(function)
    return function


def _as_optional_topic(
    context: click.Context, parameter: click.Parameter, name: str | None
) -> str | None:
    return None if name is None else as_topic(context, parameter, name)


def _checked(topic: str, group: str | None, dead_letter: str) -> str:
    """The topic that holds the letters."""
    try:
        return check_dead_letters(topic, group, dead_letter, None)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error


# --- list --------------------------------------------------------------------------------


@dead.command("list")
@click.argument("topic", callback=as_topic)
@click.option("--limit", type=click.IntRange(min=1), default=100, help="At most so many. [100]")
@click.option("--new", is_flag=True, help="Only those that were never redriven.")
@_letters_options
@json_option
@url_option
def list_(
    topic: str,
    limit: int,
    new: bool,
    group: str | None,
    dead_letter: str,
    as_json: bool,
    config: BusConfig,
) -> int:
    """List the dead letters of TOPIC, oldest first."""
    dead_letter = _checked(topic, group, dead_letter)

    async def command(stop: Stop) -> int:
        found: list[DeadLetter] = []
        more = False
        async with open_bus(config) as bus:
            with stop.scope():
                async with bus.open_dead_letters(
                    topic, group=group, dead_letter=dead_letter
                ) as letters:
                    async for letter in letters:
                        if new and letter.redriven:
                            continue
                        if more := len(found) == limit:
                            break
                        found.append(letter)
                if not found:
                    await check_there(bus, topic, dead_letter)
        if as_json:
            for letter in found:
                click.echo(json.dumps(_as_dict(letter)))
        else:
            _show_list(found)
        if more:
            click.echo(f"tbus: there are more than {limit}: see --limit", err=True)
        return 0

    return run_command(command)


def _show_list(letters: Sequence[DeadLetter]) -> None:
    console = make_console()
    if console.is_terminal:
        console.print(_table(letters) if letters else "no dead letters")
        return
    for letter in letters:
        told = _told(letter)
        told.insert(2, escaped(letter.id))
        click.echo("  ".join(told))


def _table(letters: Sequence[DeadLetter]) -> Table:
    """One line for each, whatever the width: `show` tells the rest."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("failed (UTC)", no_wrap=True, min_width=_MINUTES)
    table.add_column("place", no_wrap=True)
    table.add_column("group", no_wrap=True, max_width=_NAME)
    table.add_column("key", no_wrap=True, max_width=_NAME)
    table.add_column("tries", justify="right", no_wrap=True)
    table.add_column("back", justify="right", no_wrap=True)
    table.add_column("reason", no_wrap=True, overflow="ellipsis", ratio=1)
    for letter in letters:
        failed, *others = _told(letter)
        style = "dim" if letter.redriven else ""
        table.add_row(*map(Text, (failed[:_MINUTES], *others)), style=style)
    return table


def _told(letter: DeadLetter) -> list[str]:
    return [
        f"{letter.last_failed or letter.stored:%Y-%m-%d %H:%M:%S}",
        str(letter.stored_at),
        escaped(letter.group or "-"),
        "-" if letter.key is None else escaped(letter.key),
        str(letter.attempts),
        str(letter.redriven or "-"),
        escaped(letter.reason),
    ]


# --- show --------------------------------------------------------------------------------


@dead.command()
@click.argument("topic", callback=as_topic)
@click.argument("letter")
@_letters_options
@json_option
@url_option
def show(
    topic: str,
    letter: str,
    group: str | None,
    dead_letter: str,
    as_json: bool,
    config: BusConfig,
) -> int:
    """Show all that is known of one dead letter of TOPIC.

    LETTER is its id, or the beginning of it, or its place in the dead-letter topic (17, 0:17).
    """
    _check_names((letter,))
    dead_letter = _checked(topic, group, dead_letter)

    async def command(stop: Stop) -> int:
        async with open_bus(config) as bus:
            with stop.scope():
                [found] = await _find(bus, topic, (letter,), group, dead_letter)
                if as_json:
                    click.echo(json.dumps(_as_dict(found)))
                else:
                    _show_letter(found)
        return 0

    return run_command(command)


def _show_letter(letter: DeadLetter) -> None:
    back = "no"
    if letter.last_redriven is not None:
        times = "once" if letter.redriven == 1 else f"{letter.redriven} times"
        back = f"{times}, at last {_exact(letter.last_redriven)}"
    first, last = letter.first_failed, letter.last_failed
    rows = [
        ("id", letter.id),
        ("stored", f"{letter.stored_in} at {letter.stored_at}, {_exact(letter.stored)}"),
        ("original", f"{letter.topic} at {letter.position}, {_exact(letter.timestamp)}"),
        ("key", letter.key),
        ("group", letter.group),
        ("source", letter.source or None),
        ("attempts", str(letter.attempts)),
        ("failed first", None if first is None else _exact(first)),
        ("failed last", None if last is None else _exact(last)),
        ("reason", letter.reason),
        ("error", f"{letter.error_type}: {letter.error}" if letter.error_type else None),
        ("redriven", back),
        *(("header", f"{name}: {value}") for name, value in letter.headers),
        ("body", f"{len(letter.body)} bytes"),
    ]
    for name, value in rows:
        click.echo(f"{name:<13} {'-' if value is None else escaped(value)}")
    click.echo(f"\n{escaped_bytes(letter.body)}")
    if letter.traceback:
        click.echo()
        for line in letter.traceback.split("\n"):
            click.echo(escaped(line))


# --- redrive -----------------------------------------------------------------------------


@dead.command()
@click.argument("topic", callback=as_topic)
@click.argument("letters", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that were never redriven.")
@click.option("--again", is_flag=True, help="Those that were redriven before, too.")
@click.option("--rate", type=Number(min=0, min_open=True), help="At most so many a second.")
@click.option("--to", callback=_as_optional_topic, help="Another topic. [TOPIC]")
@_letters_options
@json_option
@url_option
def redrive(
    topic: str,
    letters: tuple[str, ...],
    every: bool,
    again: bool,
    rate: float | None,
    to: str | None,
    group: str | None,
    dead_letter: str,
    as_json: bool,
    config: BusConfig,
) -> int:
    """Publish the originals of dead letters of TOPIC again.

    LETTERS are ids, or the beginnings of ids, or places in the dead-letter topic. What was
    redriven is put on record, and not redriven a second time without --again. Every group of
    the topic gets the messages, as new ones; they carry the headers Tbus-Redriven-*.
    """
    _check_names(letters)
    if every and letters:
        raise click.UsageError(
            f"--all stands for every letter: leave it or {' '.join(letters)} out"
        )
    if not every and not letters:
        raise click.UsageError("give LETTERS, or --all")
    if rate is not None:
        config = attrs.evolve(config, publish_rate=rate)
    dead_letter = _checked(topic, group, dead_letter)

    async def command(stop: Stop) -> int:
        done = skipped = 0

        async def one(bus: Bus, letter: DeadLetter) -> None:
            nonlocal done, skipped
            if letter.redriven and not again:
                skipped += 1
                return
            _show_redriven(letter, await bus.redrive(letter, to=to), as_json)
            done += 1

        ended = False
        try:
            async with open_bus(config) as bus:
                with stop.scope():
                    if letters:
                        for letter in await _find(bus, topic, letters, group, dead_letter):
                            await one(bus, letter)
                    else:
                        async with bus.open_dead_letters(
                            topic, group=group, dead_letter=dead_letter
                        ) as found:
                            async for letter in found:
                                await one(bus, letter)
                        if not done and not skipped:
                            await check_there(bus, topic, dead_letter)
            ended = True
        finally:
            # Told even where the next one failed; JSON has a line for each that went back.
            if skipped or ((done or ended) and not as_json):
                before = f", {skipped} left: redriven before (see --again)" if skipped else ""
                click.echo(f"tbus: {done} redriven{before}", err=True)
        return 1 if skipped and letters else 0

    return run_command(command)


def _show_redriven(letter: DeadLetter, done: Redriven, as_json: bool) -> None:
    where = done.receipt
    if as_json:
        click.echo(
            json.dumps(
                {
                    "letter": done.letter,
                    "id": done.event_id,
                    "topic": where.topic,
                    "partition": where.position.partition,
                    "offset": where.position.offset,
                    "duplicate": where.duplicate,
                }
            )
        )
        return
    duplicate = " (it was there already)" if where.duplicate else ""
    click.echo(
        f"{escaped(letter.id)}  {letter.topic} at {letter.position} is now"
        f" {where.topic} at {where.position}{duplicate}"
    )


# --- finding -----------------------------------------------------------------------------


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not _PLACE.fullmatch(name) and not _ID.fullmatch(name):
            raise click.UsageError(
                f"{escaped(name)!r} is neither an id (dead-1a2b3c..., at least 4 characters of it)"
                " nor a place (17, 0:17)"
            )


def _names(name: str, letter: DeadLetter) -> bool:
    place = _PLACE.fullmatch(name)
    if place is not None:
        return letter.stored_at == Position(int(place[1] or 0), int(place[2]))
    return letter.id.startswith(name)


async def _find(
    bus: Bus, topic: str, names: Sequence[str], group: str | None, dead_letter: str
) -> list[DeadLetter]:
    """The letters of these names, each once, in the order of the names."""
    found: dict[str, DeadLetter] = {}
    async with bus.open_dead_letters(topic, group=group, dead_letter=dead_letter) as letters:
        async for letter in letters:
            for name in names:
                if _names(name, letter):
                    if name in found:
                        raise _NotFound(f"{name} is the beginning of several ids: give more of it")
                    found[name] = letter
    missing = [name for name in names if name not in found]
    if missing:
        await check_there(bus, topic, dead_letter)
        raise _NotFound(f"topic {topic} has no dead letter {', '.join(missing)}")
    return list({found[name].id: found[name] for name in names}.values())


def _as_dict(letter: DeadLetter) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name in (
        "id", "topic", "position", "timestamp", "key", "group", "attempts", "first_failed",
        "last_failed", "reason", "error_type", "error", "traceback", "source", "stored_in",
        "stored_at", "stored", "redriven", "last_redriven", "headers",
    ):  # fmt: skip
        value = getattr(letter, name)
        if isinstance(value, Position):
            value = {"partition": value.partition, "offset": value.offset}
        elif isinstance(value, datetime):
            value = value.isoformat()
        told[name] = value
    return told | body_fields(letter.body)


def _exact(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"
