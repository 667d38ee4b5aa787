"""The first program: subscribe, publish, and leave."""

import trio

from tbus import Envelope, Message, open_bus


async def main() -> None:
    async with open_bus("nats+embedded://") as bus:
        handled = trio.Event()

        async def on_order(message: Message) -> None:
            print(message.key, message.envelope.event_type, message.envelope.decode(dict))
            handled.set()

        await bus.subscribe("orders", on_order, group="billing")
        receipt = await bus.publish("orders", Envelope.new("order-1", "OrderPlaced", {"total": 42}))
        print("stored at", receipt.position)
        await handled.wait()


trio.run(main)
