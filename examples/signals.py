"""A service that lets running handlers finish when it is told to stop."""

import signal

import trio

from tbus import Message, open_bus


async def on_order(message: Message) -> None:
    print("handling", message.key)
    await trio.sleep(0.5)


async def main() -> None:
    async with open_bus("nats+embedded://", grace=10) as bus:
        await bus.subscribe("orders", on_order, group="billing")
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            print("ready; stop it with Ctrl-C", flush=True)
            async for _ in signals:
                break
    print("ended")


trio.run(main)
