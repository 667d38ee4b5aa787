"""Messages that end as dead letters, on purpose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tbus import Bus, DeadLettered, Message, Reject, Retry
from tbus.testing.conformance._kit import watching

ONCE = Retry(attempts=1, initial=0.01, maximum=0.02, jitter=0.0)
"""One attempt; what then still has to be repeated comes every 20 ms at most."""


async def reject(message: Message) -> None:
    """Have it dead-lettered at once, with its body as the reason."""
    raise Reject(message.body.decode("ascii", "replace"))


async def bury(
    bus: Bus,
    topic: str,
    bodies: Iterable[str],
    *,
    group: str = "g",
    key: str | None = "k",
    **options: Any,
) -> None:
    """Publish these, and have a group dead-letter each of them, in order."""  # fmt: skip
    bodies = list(bodies)
    async with watching(bus) as watch:
        subscription = await bus.subscribe(topic, reject, group=group, **options)
        for body in bodies:
            await bus.publish(topic, body.encode(), key=key, headers=[("A", "1"), ("A", body)])
        await watch.wait(DeadLettered, len(bodies))
        await subscription.close()
