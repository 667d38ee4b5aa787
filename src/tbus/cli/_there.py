"""Topics that a command was told to look at: whether they exist, and which do if not."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import click

from .._bus import Bus
from .._errors import SubscriptionFailed, TbusError
from .._events import TopicMade
from ._beside import running_beside
from ._escape import escaped

_TOLD = 8
"""Topics that an error names."""

_COMPARED = 1000
"""Topics that a name is compared with: meanwhile the loop stands."""


class NoTopic(TbusError):
    """A topic that was named does not exist."""

    def __init__(self, name: str, there: Sequence[str]) -> None:
        super().__init__(f"there is no topic {name}; {_others(name, there)}")


def _others(name: str, there: Sequence[str]) -> str:
    if not there:
        return "the broker has none"
    shown = sorted(there)
    if len(there) > _TOLD:
        # A slip of the finger first: it hardly changes the length.
        compared = sorted(there, key=lambda other: abs(len(other) - len(name)))[:_COMPARED]
        near = difflib.get_close_matches(name, compared, n=_TOLD)
        shown = [*dict.fromkeys([*near, *shown])][:_TOLD]
    more = len(there) - len(shown)
    rest = f", and {more} more: see tbus topics" if more else ""
    return f"there {'is' if len(there) == 1 else 'are'} {', '.join(map(escaped, shown))}{rest}"


async def check_there(bus: Bus, name: str, *instead: str) -> None:
    """Check that a topic exists, or one that would do instead.

    Raises:
        NoTopic: neither does.
    """
    # No list has a stream that `nats.stream` names.
    for one in (name, *instead):
        # Kafka refuses whoever may read the topic and not its settings: the list has it.
        with suppress(SubscriptionFailed):
            if await bus.get_topic(one) is not None:
                return
    there = await bus.list_topics()
    if not {name, *instead} & {*there}:
        raise NoTopic(name, there)


@asynccontextmanager
async def telling_of_topics(bus: Bus) -> AsyncIterator[None]:
    """Say on stderr which topics the bus makes because the block uses them."""

    async def tell() -> None:
        async for event in events:
            if isinstance(event, TopicMade):
                again = "gone: it is made again" if event.again else "not there: it is made"
                click.echo(f"tbus: topic {escaped(event.topic)} was {again}", err=True)

    async with bus.open_events() as events, running_beside(tell, "topics made"):
        yield
