"""`tbus topics` and `tbus lag`: what there is, and who is behind."""

from __future__ import annotations

import json
from contextlib import suppress

import attrs
import click

from .._bus import Bus
from .._config import BusConfig
from .._errors import ConsumerGone
from .._open import open_bus
from .._transport import Lag
from ._address import as_group, as_topic, json_option, url_option
from ._escape import escaped
from ._stop import Stop, run_command
from ._there import check_there


@click.command()
@click.option(
    "--groups", "with_groups", is_flag=True, help="Show partitions, groups and their members too."
)
@json_option
@url_option
def topics(with_groups: bool, as_json: bool, config: BusConfig) -> int:
    """List the topics, one a line."""

    async def command(_: Stop) -> int:
        async with open_bus(config) as bus:
            names = await bus.list_topics()
            if with_groups:
                found = [await _look(bus, name) for name in names]
                _show_groups(found, as_json)
                return 0
        if as_json:
            click.echo(json.dumps(names))
        else:
            for name in names:
                click.echo(escaped(name))
        return 0

    return run_command(command)


@attrs.frozen
class _Topic:
    """One topic, and who reads it."""

    topic: str
    partitions: int
    groups: tuple[Lag, ...]


async def _look(bus: Bus, name: str) -> _Topic:
    options = await bus.get_topic(name)
    groups = []
    for group in await bus.list_groups(name):
        with suppress(ConsumerGone):  # it has gone meanwhile
            groups.append(await bus.lag(name, group))
    return _Topic(name, 1 if options is None else options.partitions, tuple(groups))


def _show_groups(found: list[_Topic], as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                [{**attrs.asdict(one), "groups": [*map(_plain, one.groups)]} for one in found]
            )
        )
        return
    for topic in found:
        click.echo(escaped(f"{topic.topic}: {_count(topic.partitions, 'partition')}"))
        for lag in topic.groups:
            click.echo(escaped(f"  {lag.group}: {_count(lag.messages, 'message')} behind"))
            for member in sorted({*lag.members, *_owned(lag)}):
                numbers = _owned(lag).get(member, [])
                which = ", ".join(map(str, numbers)) or "none"
                noun = "partition" if len(numbers) == 1 else "partitions"
                click.echo(escaped(f"    {member}: {noun} {which}"))


def _owned(lag: Lag) -> dict[str, list[int]]:
    """The partitions of each member that has any."""
    owned: dict[str, list[int]] = {}
    for one in lag.partitions:
        if one.owner is not None:
            owned.setdefault(one.owner, []).append(one.partition)
    return owned


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@click.command()
@click.argument("topic", callback=as_topic)
@click.argument("group", callback=as_group)
@json_option
@url_option
def lag(topic: str, group: str, as_json: bool, config: BusConfig) -> int:
    """How many messages of TOPIC are stored that GROUP has not settled."""

    async def command(_: Stop) -> int:
        async with open_bus(config) as bus:
            try:
                found = await bus.lag(topic, group)
            except ConsumerGone:
                await check_there(bus, topic)  # noqa: ASYNC120 - Ctrl-C may discard the error
                raise
            _show(found, as_json)
        return 0

    return run_command(command)


def _plain(found: Lag) -> dict[str, object]:
    return {**attrs.asdict(found), "messages": found.messages, "age": found.age}


def _show(found: Lag, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_plain(found)))
        return
    age = "" if found.age is None else f", the oldest {found.age:.1f} s old"
    behind = _count(found.messages, "message")
    click.echo(f"{found.group} is {behind} behind in {found.topic}{age}")
    if found.members:
        members = ", ".join(found.members)
        click.echo(escaped(f"  {_count(len(found.members), 'member')}: {members}"))
    if len(found.partitions) > 1 or any(one.owner for one in found.partitions):
        for one in found.partitions:
            owner = "" if one.owner is None else f", read by {one.owner}"
            epoch = f" (epoch {one.epoch})" if one.epoch else ""
            heir = "" if one.heir is None else f", on its way to {one.heir}"
            click.echo(escaped(f"  partition {one.partition}: {one.messages}{owner}{epoch}{heir}"))
