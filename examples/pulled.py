"""A loop of one's own over the messages, instead of a handler."""

import trio

from tbus import Envelope, open_bus


async def main() -> None:
    async with open_bus("memory://") as bus:
        for number in range(1, 4):
            await bus.publish("orders", Envelope.new("order-1", "OrderPlaced", {"total": number}))
        async with bus.open_messages("orders", group="billing") as messages:
            async for message in messages:
                async with message:  # settled on leaving; an exception is a failed attempt
                    print(message.position, message.envelope.decode(dict))
                if message.position.offset == 3:
                    break


trio.run(main)
