"""`tbus pub` and `tbus sub`: one message in, messages out."""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import click

from .._config import BusConfig
from .._envelope import Envelope
from .._errors import InvalidEnvelope
from .._message import Message, Receipt
from .._open import open_bus
from ._address import as_group, as_topic, json_option, url_option
from ._body import body_fields
from ._escape import escaped, escaped_bytes
from ._stop import Stop, run_command
from ._there import telling_of_topics


@click.command()
@click.argument("topic", callback=as_topic)
@click.argument("body", required=False)
@click.option("--key", help="What the message is ordered by.")
@click.option("--envelope", is_flag=True, help="BODY is the payload, JSON, of an envelope.")
@click.option("--aggregate-id", help="Of the envelope: what it is about and ordered by.")
@click.option("--event-type", help="Of the envelope: what happened.")
@click.option("--event-version", type=click.IntRange(min=1), help="Of the envelope. [1]")
@json_option
@url_option
def pub(
    topic: str,
    body: str | None,
    key: str | None,
    envelope: bool,
    aggregate_id: str | None,
    event_type: str | None,
    event_version: int | None,
    as_json: bool,
    config: BusConfig,
) -> int:
    """Publish one message, and wait until it is stored.

    BODY is the message; `-`, or none, reads it from stdin. A topic that does not exist is made.
    """
    fields = {
        "--aggregate-id": aggregate_id,
        "--event-type": event_type,
        "--event-version": event_version,
    }
    given = [name for name, value in fields.items() if value is not None]
    if given and not envelope:
        raise click.UsageError(f"{given[0]} goes with --envelope")
    if envelope and (aggregate_id is None or event_type is None):
        raise click.UsageError("--envelope needs --aggregate-id and --event-type")
    if envelope and key is not None:
        raise click.UsageError("an envelope is ordered by its --aggregate-id: leave --key out")
    data = _read_body(body)
    message: Envelope | bytes = data
    if envelope:
        assert aggregate_id is not None
        assert event_type is not None
        try:
            message = Envelope.new(aggregate_id, event_type, data, event_version=event_version or 1)
        except InvalidEnvelope as error:
            raise click.UsageError(escaped(str(error))) from error

    async def command(_: Stop) -> int:
        async with open_bus(config) as bus:
            _show_receipt(await bus.publish(topic, message, key=key), as_json)
        return 0

    return run_command(command)


def _read_body(body: str | None) -> bytes:
    if body is not None and body != "-":
        return body.encode("utf-8", "surrogateescape")
    if body is None and sys.stdin.isatty():
        raise click.UsageError("give a BODY, or - to type it and end it with Ctrl-D")
    data = sys.stdin.buffer.read()
    if body is None and not data:
        raise click.UsageError("give a BODY: stdin has nothing ('' and - may be an empty message)")
    return data


def _show_receipt(receipt: Receipt, as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                {
                    "topic": receipt.topic,
                    "partition": receipt.position.partition,
                    "offset": receipt.position.offset,
                    "duplicate": receipt.duplicate,
                }
            )
        )
    else:
        duplicate = " (it was there already)" if receipt.duplicate else ""
        click.echo(f"stored in {receipt.topic} at {receipt.position}{duplicate}")


@click.command()
@click.argument("topic", callback=as_topic)
@click.option("--group", callback=as_group, help="Share the messages with others of that group.")
@click.option(
    "--start",
    type=click.Choice(["earliest", "latest"]),
    help="Where a new group begins. [earliest with a group, else latest]",
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many messages.")
@json_option
@url_option
def sub(
    topic: str,
    group: str | None,
    start: Literal["earliest", "latest"] | None,
    count: int | None,
    as_json: bool,
    config: BusConfig,
) -> int:
    """Print the messages of a topic, until Ctrl-C.

    With a group, what was printed is settled: nobody else of the group sees it. A topic that
    does not exist is made, and stderr says so.
    """
    show = _json_line if as_json else _line

    async def command(stop: Stop) -> int:
        async with open_bus(config) as bus:
            with stop.scope():
                seen = 0
                # Credit for no more than is wanted: the rest is for others of the group.
                most = min(count or 1000, 1000)
                # One after the other: who reads a list expects it in the broker's order.
                async with (
                    telling_of_topics(bus),
                    bus.open_messages(
                        topic,
                        group=group,
                        start=start,
                        order="partition",
                        max_in_flight=most,
                        dead_letter=None,
                    ) as messages,
                ):
                    if sys.stderr.isatty():
                        click.echo(f"reading {topic}, Ctrl-C ends", err=True)
                    async for message in messages:
                        async with message:
                            click.echo(show(message))
                        seen += 1
                        if seen == count:
                            break
        return 0

    return run_command(command)


def _line(message: Message) -> str:
    key = "-" if message.key is None else escaped(message.key)
    head = f"{message.timestamp:%Y-%m-%d %H:%M:%S}  {message.position}  {key}"
    try:
        event = message.envelope
    except InvalidEnvelope:
        return f"{head}  {escaped_bytes(message.body)}"
    kind = f"{escaped(event.event_type)} v{event.event_version}"
    return f"{head}  {kind}  {escaped_bytes(event.payload)}"


def _json_line(message: Message) -> str:
    line: dict[str, Any] = {
        "topic": message.topic,
        "partition": message.position.partition,
        "offset": message.position.offset,
        "timestamp": message.timestamp.isoformat(),
        "key": message.key,
        "group": message.group,
        "attempt": message.attempt,
        "headers": [list(pair) for pair in message.headers],
    }
    # json escapes all but printable ASCII: no control character is left.
    return json.dumps(line | body_fields(message.body))
