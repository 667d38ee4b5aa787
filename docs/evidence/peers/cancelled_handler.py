"""A handler that is cancelled because the program ends: is its message settled?

One message; its handler never returns; the program ends and gives it 0.5 s. Then the server is
asked whether the message counts as handled, and whether the next reader gets it.

    python -m docs.evidence.peers.cancelled_handler

For an older FastStream beside the installed one:

    pip install --no-deps --target DIR faststream==0.7.1
    PYTHONPATH=DIR python -m docs.evidence.peers.cancelled_handler
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import nats
import nats.errors
import trio
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

from tbus import Message, open_bus
from tests.brokers.nats import NatsServer

ACK_WAIT = 2.0
PATIENCE = 6.0


async def faststream(url: str, policy: AckPolicy) -> str:
    name = f"fs-{policy.value}"
    client = await nats.connect(url)
    js = client.jetstream()
    await js.add_stream(name=name, subjects=[name])
    entered = asyncio.Event()
    broker = NatsBroker(url, graceful_timeout=0.5, logger=None)

    @broker.subscriber(
        name,
        stream=JStream(name, declare=False),
        durable="g",
        pull_sub=PullSub(timeout=0.5),
        ack_policy=policy,
        config=ConsumerConfig(ack_wait=ACK_WAIT),
    )
    async def handle(_: str) -> None:
        entered.set()
        await asyncio.Event().wait()

    await broker.start()
    await js.publish(name, b"order")
    await entered.wait()
    began = time.monotonic()
    await broker.stop()
    stopped = time.monotonic() - began
    info = await js.consumer_info(name, "g")
    assert info.ack_floor is not None
    settled = info.ack_floor.stream_seq == 1
    again = None
    if not settled:
        reader = await js.pull_subscribe(name, durable="g", stream=name)
        try:
            [message] = await reader.fetch(1, timeout=PATIENCE)
        except nats.errors.TimeoutError:
            pass
        else:
            again = time.monotonic() - began
            await message.ack()
    await client.close()
    return tell(stopped, settled, again)


async def tbus(url: str) -> str:
    entered = trio.Event()

    async def hang(_: Message) -> None:
        entered.set()
        await trio.sleep_forever()

    async with open_bus(url, grace=0.5) as bus:
        await bus.subscribe("orders", hang, group="g")
        await bus.publish("orders", b"order")
        await entered.wait()
        began = time.monotonic()
    stopped = time.monotonic() - began
    async with open_bus(url) as bus:
        settled = (await bus.lag("orders", "g")).messages == 0
        again = None
        async with bus.open_messages("orders", group="g") as messages:
            with trio.move_on_after(PATIENCE):
                async with await anext(messages) as message:
                    again = time.monotonic() - began
                    assert message.attempt == 1
    return tell(stopped, settled, again)


def tell(stopped: float, settled: bool, again: float | None) -> str:
    what = "settled, never handled: LOST" if settled else "not settled"
    when = "" if again is None else f"; the next reader has it {again:.2f} s after the end began"
    return f"ended in {stopped:.2f} s; {what}{when}"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, NatsServer(Path(directory)) as server:
        for policy in (AckPolicy.REJECT_ON_ERROR, AckPolicy.NACK_ON_ERROR, AckPolicy.ACK):
            found = asyncio.run(faststream(server.url, policy))
            print(f"FastStream {fs_version()}, {policy.name}: {found}", flush=True)
        print(f"tbus: {trio.run(tbus, server.url)}", flush=True)


def fs_version() -> str:
    return version("faststream")


if __name__ == "__main__":
    main()
