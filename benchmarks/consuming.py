"""Who consumes: a filled topic, from making the consumer until the server has heard all.

The peers are set up as their documentation shows. nats-py: `pull_subscribe` with a durable
name, `fetch` and an `ack` for each message. FastStream: a subscriber with `PullSub`, which
decodes, calls the handler and acknowledges after it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import trio
from nats.aio.msg import Msg

from tbus import Message, open_bus

from .workload import Figures, Job, Observer, connect, wait_acked

GROUP = "bench"

BATCH = 500
"""Messages that a peer asks for at once."""

BARE_BATCH = 2000
"""The same for the bare pulls, two of which overlap."""


# --- tbus --------------------------------------------------------------------------------


async def consume_tbus(job: Job) -> Figures:
    return await _consume_tbus(job, max_in_flight=1000)


async def consume_tbus_more_in_flight(job: Job) -> Figures:
    return await _consume_tbus(job, max_in_flight=4000)


async def _consume_tbus(job: Job, max_in_flight: int) -> Figures:
    seen = Observer(job.count)
    done = trio.Event()

    async def handle(message: Message) -> None:
        event = message.envelope
        if seen.see(event.aggregate_id, event.event_version):
            done.set()

    async with open_bus(job.url, max_in_flight=max_in_flight) as bus:
        start = time.perf_counter()
        await bus.subscribe(job.topic, handle, group=GROUP)
        await done.wait()
        while (await bus.lag(job.topic, GROUP)).messages:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.001)
        return _figures(job, seen, time.perf_counter() - start)


# --- nats-py -----------------------------------------------------------------------------


class Needed(msgspec.Struct):
    """What the handler needs of an envelope."""

    aggregate_id: str
    event_version: int


async def consume_nats_py(job: Job) -> Figures:
    seen = Observer(job.count)
    decode = msgspec.json.Decoder(Needed).decode

    def handle(message: Msg) -> None:
        event = decode(message.data)
        seen.see(event.aggregate_id, event.event_version)

    return await _fetch(job, seen, handle)


async def consume_nats_py_json(job: Job) -> Figures:
    seen = Observer(job.count)

    def handle(message: Msg) -> None:
        event = json.loads(message.data)
        seen.see(event["aggregate_id"], event["event_version"])

    return await _fetch(job, seen, handle)


async def consume_nats_py_undecoded(job: Job) -> Figures:
    seen = Observer(job.count)

    def handle(_: Msg) -> None:
        seen.count += 1

    return await _fetch(job, seen, handle)


async def _fetch(job: Job, seen: Observer, handle: Callable[[Msg], None]) -> Figures:
    client, js = await connect(job.url)
    start = time.perf_counter()
    subscription = await js.pull_subscribe(job.topic, durable=GROUP)
    while seen.count < job.count:
        for message in await subscription.fetch(BATCH, timeout=5):
            handle(message)
            await message.ack()
    await wait_acked(js, job.topic, GROUP)
    seconds = time.perf_counter() - start
    await client.close()
    return _figures(job, seen, seconds)


async def consume_bare_pulls(job: Job) -> Figures:
    """What the client itself can do: no decoding, no handler, and never a wait for the next
    batch."""
    client, js = await connect(job.url)
    seen = Observer(job.count)
    done = asyncio.Event()
    inbox = client.new_inbox()
    asked = 0

    async def pull() -> None:
        nonlocal asked
        asked += BARE_BATCH
        request = json.dumps({"batch": BARE_BATCH, "expires": 30_000_000_000}).encode()
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{job.topic}.{GROUP}", request, inbox)

    async def on_message(message: Msg) -> None:
        nonlocal asked
        if not message.reply:
            return  # a status
        seen.count += 1
        asked -= 1
        await client.publish(message.reply, b"")
        if seen.count == job.count:
            done.set()
        elif asked < BARE_BATCH:
            await pull()

    start = time.perf_counter()
    await js.add_consumer(
        job.topic, durable_name=GROUP, ack_policy="explicit", max_ack_pending=4 * BARE_BATCH
    )
    await client.subscribe(inbox, cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await pull()
    await done.wait()
    await wait_acked(js, job.topic, GROUP)
    seconds = time.perf_counter() - start
    await client.close()
    return _figures(job, seen, seconds)


# --- FastStream --------------------------------------------------------------------------


async def consume_faststream(job: Job) -> Figures:
    seen = Observer(job.count)
    done = asyncio.Event()

    async def handle(event: dict[str, Any]) -> None:
        if seen.see(event["aggregate_id"], event["event_version"]):
            done.set()

    return await _faststream(job, seen, done, handle, batch=False)


async def consume_faststream_batch(job: Job) -> Figures:
    seen = Observer(job.count)
    done = asyncio.Event()

    async def handle(events: list[dict[str, Any]]) -> None:
        for event in events:
            if seen.see(event["aggregate_id"], event["event_version"]):
                done.set()

    return await _faststream(job, seen, done, handle, batch=True)


async def _faststream(
    job: Job, seen: Observer, done: asyncio.Event, handle: Callable[[Any], Any], *, batch: bool
) -> Figures:
    from faststream.nats import JStream, NatsBroker, PullSub  # noqa: PLC0415 - slow, only here

    client, js = await connect(job.url)
    broker = NatsBroker(job.url, logger=None)
    broker.subscriber(
        job.topic,
        stream=JStream(job.topic, declare=False),
        durable=GROUP,
        pull_sub=PullSub(batch_size=BATCH, batch=batch),
    )(handle)
    await broker.connect()
    start = time.perf_counter()
    await broker.start()
    await done.wait()
    await wait_acked(js, job.topic, GROUP)
    seconds = time.perf_counter() - start
    await broker.stop()
    await client.close()
    return _figures(job, seen, seconds)


def _figures(job: Job, seen: Observer, seconds: float) -> Figures:
    return {"rate": job.count / seconds, "handled": seen.count, "violations": seen.violations}
