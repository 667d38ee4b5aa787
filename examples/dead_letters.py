"""A handler that fails, its dead letter, and the way back once the cause is mended."""

import trio

from tbus import DeadLettered, Envelope, Message, Retry, open_bus

PRICES = {"tea": 3}


async def on_order(message: Message) -> None:
    order = message.envelope.decode(dict)
    print(f"{order['item']} costs {PRICES[order['item']]}")


async def main() -> None:
    async with open_bus("memory://") as bus, bus.open_events() as events:
        await bus.subscribe("orders", on_order, group="billing", retry=Retry(attempts=2))
        await bus.publish("orders", Envelope.new("order-1", "OrderPlaced", {"item": "coffee"}))
        async for event in events:
            if isinstance(event, DeadLettered):
                break

        PRICES["coffee"] = 4
        async with bus.open_dead_letters("orders", group="billing") as letters:
            async for letter in letters:
                print(f"{letter.key} failed {letter.attempts} times: {letter.reason}")
                await bus.redrive(letter)


trio.run(main)
