"""The consumer of a running pull subscriber is removed on the server: does anybody hear of it?

One message is handled, the consumer is removed, another is published, and five seconds later one
looks: what was handled, how often the client asked, what it cost, and what was said.

    python -m docs.evidence.peers.removed_consumer
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import nats
import trio
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.client import JetStreamContext

from tbus import BusError, Message, open_bus
from tests.brokers.nats import NatsServer

WATCHED = 5.0


class Counter(logging.Handler):
    """Counts what is logged, by level."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.lines[record.levelname] = self.lines.get(record.levelname, 0) + 1


async def faststream(url: str) -> str:
    client = await nats.connect(url)
    js = client.jetstream()
    await js.add_stream(name="fs", subjects=["fs"])
    handled: list[str] = []
    first = asyncio.Event()
    log = logging.getLogger("peer")
    log.propagate = False
    counter = Counter()
    log.addHandler(counter)
    log.setLevel(logging.INFO)
    broker = NatsBroker(url, logger=log)
    fetches = 0
    fetch = JetStreamContext.PullSubscription.fetch

    async def counted(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal fetches
        fetches += 1
        return await fetch(self, *args, **kwargs)

    @broker.subscriber(
        "fs", stream=JStream("fs", declare=False), durable="g", pull_sub=PullSub(timeout=5.0)
    )
    async def handle(body: str) -> None:
        handled.append(body)
        first.set()

    await broker.start()
    await js.publish("fs", b"one")
    await first.wait()
    await asyncio.sleep(0.2)
    counter.lines.clear()
    JetStreamContext.PullSubscription.fetch = counted  # type: ignore[method-assign]
    await js.delete_consumer("fs", "g")
    await js.publish("fs", b"two")
    processor = time.process_time()
    await asyncio.sleep(WATCHED)
    processor = time.process_time() - processor
    alive = await broker.ping(timeout=1.0)
    JetStreamContext.PullSubscription.fetch = fetch  # type: ignore[method-assign]
    said = ", ".join(f"{count} {level}" for level, count in counter.lines.items()) or "nothing"
    await broker.stop()
    await client.close()
    return (
        f"after {WATCHED:.0f} s: handled {handled}; asked {fetches} times; {processor:.2f} s of"
        f" processor time; log lines: {said}; its ping says {alive}; the program heard nothing"
    )


async def tbus(url: str) -> str:
    handled: list[str] = []
    first = trio.Event()

    async def handle(message: Message) -> None:
        handled.append(message.body.decode())
        first.set()

    began = 0.0
    try:
        async with open_bus(url) as bus:
            await bus.subscribe("orders", handle, group="g")
            await bus.publish("orders", b"one")
            await first.wait()
            client = await trio.to_thread.run_sync(remove_consumer, url)
            began = time.monotonic() - client
            await trio.sleep(WATCHED)
    except BusError as error:
        after = time.monotonic() - began
        return f"handled {handled}; the bus ended {after * 1000:.0f} ms later: {error}"
    return f"after {WATCHED:.0f} s: handled {handled}; nothing was said"


def remove_consumer(url: str) -> float:
    """Remove what there is, with a client of its own; returns how long ago that was."""

    async def remove() -> float:
        client = await nats.connect(url)
        js = client.jetstream()
        [stream] = [one.config.name for one in await js.streams_info() if one.config.name != "fs"]
        assert stream is not None
        [consumer] = await js.consumers_info(stream)
        await js.delete_consumer(stream, consumer.name)
        removed = time.monotonic()
        await client.close()
        return time.monotonic() - removed

    return asyncio.run(remove())


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, NatsServer(Path(directory)) as server:
        print(
            f"FastStream {version('faststream')}: {asyncio.run(faststream(server.url))}", flush=True
        )
        print(f"tbus: {trio.run(tbus, server.url)}", flush=True)


if __name__ == "__main__":
    main()
