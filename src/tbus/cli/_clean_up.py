"""Leaving nothing on a server that is not ours."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from .._bus import Bus
from .._errors import TbusError
from .._subscription import Subscription

CLEAN_UP = 8.0
"""Seconds for it, whatever the server does, and even after Ctrl-C."""


async def remove_topics(
    bus: Bus, topics: Iterable[str], subscriptions: Iterable[Subscription] = ()
) -> list[str]:
    """Close what reads them, and remove topics; returns what is left there all the same."""
    left = list(topics)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEAN_UP):
        try:
            # A topic that is read must not vanish under its reader.
            async with trio.open_nursery() as nursery:
                for subscription in subscriptions:
                    nursery.start_soon(subscription.close)
            for topic in tuple(left):
                await bus.remove_topic(topic)
                left.remove(topic)
        except TbusError:
            pass  # what is left is reported
    return left
