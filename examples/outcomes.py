"""Learn what became of each event, while others are still being sent."""

from collections.abc import AsyncIterator

import trio

from tbus import Envelope, PublishOutcome, open_bus


async def read(outcomes: AsyncIterator[PublishOutcome]) -> None:
    async for outcome in outcomes:  # ends when the publisher has been left and all is known
        print(outcome.event_id, outcome.receipt.position if outcome.receipt else outcome.error)


async def main() -> None:
    async with (
        open_bus("memory://") as bus,
        trio.open_nursery() as nursery,
        bus.open_publisher() as publisher,
    ):
        nursery.start_soon(read, publisher.outcomes)
        for number in range(1, 4):
            event = Envelope.new("order-1", "Counted", number, event_id=f"event-{number}")
            await publisher.send("orders", event)


trio.run(main)
