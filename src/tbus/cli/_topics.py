"""`tbus topics` and `tbus lag`: what there is, and who is behind."""

from __future__ import annotations

import json

import attrs
import click

from .._config import BusConfig
from .._open import open_bus
from .._transport import Lag
from ._address import as_group, as_topic, json_option, url_option
from ._escape import escaped
from ._stop import Stop, run_command


@click.command()
@json_option
@url_option
def topics(as_json: bool, config: BusConfig) -> int:
    """List the topics, one a line."""

    async def command(_: Stop) -> int:
        async with open_bus(config) as bus:
            names = await bus.list_topics()
        if as_json:
            click.echo(json.dumps(names))
        else:
            for name in names:
                click.echo(escaped(name))
        return 0

    return run_command(command)


@click.command()
@click.argument("topic", callback=as_topic)
@click.argument("group", callback=as_group)
@json_option
@url_option
def lag(topic: str, group: str, as_json: bool, config: BusConfig) -> int:
    """How many messages of TOPIC are stored that GROUP has not settled."""

    async def command(_: Stop) -> int:
        async with open_bus(config) as bus:
            _show(await bus.lag(topic, group), as_json)
        return 0

    return run_command(command)


def _show(found: Lag, as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps({**attrs.asdict(found), "messages": found.messages, "age": found.age})
        )
        return
    behind = "1 message" if found.messages == 1 else f"{found.messages} messages"
    age = "" if found.age is None else f", the oldest {found.age:.1f} s old"
    click.echo(f"{found.group} is {behind} behind in {found.topic}{age}")
    if len(found.partitions) > 1 or any(one.owner for one in found.partitions):
        for one in found.partitions:
            owner = "" if one.owner is None else f", read by {one.owner} (epoch {one.epoch})"
            click.echo(escaped(f"  partition {one.partition}: {one.messages}{owner}"))
