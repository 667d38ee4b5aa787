"""The contestants. Each runs in a process of its own and returns its figures.

How the peers are set up follows their documentation: nats-py's `js.publish` in tasks, its
`pull_subscribe` and `fetch(500)` with an ack for each message; FastStream's `PullSub` with
a batch size of 500, acknowledging after processing. All handlers do the same, and every
consumer is timed from its first request until the last message is handled and the server has
heard every ack.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from tbus import Message, open_bus

from . import workload
from .workload import Observer

Figures = dict[str, Any]


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


# --- publish -----------------------------------------------------------------------------


async def publish_nats_py(url: str, count: int, *, with_id: bool = False) -> Figures:
    client, js = await workload.connect(url)
    await workload.fresh_stream(js, "bench")
    bodies = workload.bodies(count)
    queue = iter(enumerate(bodies))

    async def publisher() -> None:
        for number, body in queue:
            headers = {"Nats-Msg-Id": f"id-{number:032}"} if with_id else None
            await js.publish("bench", body, headers=headers)

    start = time.perf_counter()
    await asyncio.gather(*(publisher() for _ in range(100)))
    seconds = time.perf_counter() - start
    await client.close()
    return {"rate": count / seconds}


async def publish_nats_py_with_id(url: str, count: int) -> Figures:
    return await publish_nats_py(url, count, with_id=True)


async def publish_faststream(url: str, count: int) -> Figures:
    from faststream.nats import NatsBroker  # noqa: PLC0415 - slow, and only these need it

    client, js = await workload.connect(url)
    await workload.fresh_stream(js, "bench")
    bodies = workload.bodies(count)
    queue = iter(bodies)
    broker = NatsBroker(url, logger=None)
    await broker.connect()

    async def publisher() -> None:
        for body in queue:
            await broker.publish(body, "bench", stream="bench")

    start = time.perf_counter()
    await asyncio.gather(*(publisher() for _ in range(100)))
    seconds = time.perf_counter() - start
    await broker.stop()
    await client.close()
    return {"rate": count / seconds}


async def publish_tbus(url: str, count: int) -> Figures:
    async with open_bus(url, nats={"storage": "memory"}) as bus:
        await bus.remove_topic("bench")
        await bus.publish("bench", b"")
        bodies = workload.bodies(count)
        queue = iter(bodies)

        async def publisher() -> None:
            for body in queue:
                await bus.publish("bench", body)

        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(publisher)
        return {"rate": count / (time.perf_counter() - start)}


async def publish_tbus_pipelined(url: str, count: int) -> Figures:
    async with open_bus(url, nats={"storage": "memory"}) as bus:
        await bus.remove_topic("bench")
        await bus.publish("bench", b"")
        bodies = workload.bodies(count)
        start = time.perf_counter()
        async with bus.open_publisher() as publisher:
            for body in bodies:
                await publisher.send("bench", body)
        return {"rate": count / (time.perf_counter() - start)}


# --- latency -----------------------------------------------------------------------------


def latency_figures(took: list[float]) -> Figures:
    return {"p50": percentile(took, 0.5) * 1e6, "p99": percentile(took, 0.99) * 1e6}


async def latency_nats_py(url: str, count: int) -> Figures:
    client, js = await workload.connect(url)
    await workload.fresh_stream(js, "bench")
    took = []
    for number, body in enumerate(workload.bodies(count)):
        start = time.perf_counter()
        await js.publish("bench", body, headers={"Nats-Msg-Id": f"id-{number:032}"})
        took.append(time.perf_counter() - start)
    await client.close()
    return latency_figures(took)


async def latency_tbus(url: str, count: int) -> Figures:
    async with open_bus(url, nats={"storage": "memory"}) as bus:
        await bus.remove_topic("bench")
        await bus.publish("bench", b"")
        took = []
        for body in workload.bodies(count):
            start = time.perf_counter()
            await bus.publish("bench", body)
            took.append(time.perf_counter() - start)
        return latency_figures(took)


# --- consume -----------------------------------------------------------------------------


async def settled(js: Any, consumer: str) -> None:
    """Wait until the server has heard every ack."""
    while (await js.consumer_info("bench", consumer)).num_ack_pending:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def consume_nats_py(url: str, count: int) -> Figures:
    client, js = await workload.connect(url)
    await workload.fill(client, js, "bench", count)
    seen = Observer(count)
    subscription = await js.pull_subscribe("bench", durable="plain")
    start = time.perf_counter()
    while seen.count < count:
        for message in await subscription.fetch(500, timeout=5):
            event = workload.decode(message.data)
            seen.see(event.aggregate_id, event.event_version)
            await message.ack()
    await settled(js, "plain")
    seconds = time.perf_counter() - start
    await client.close()
    return {"rate": count / seconds, "violations": seen.violations}


async def consume_nats_py_without_decoding(url: str, count: int) -> Figures:
    client, js = await workload.connect(url)
    await workload.fill(client, js, "bench", count)
    subscription = await js.pull_subscribe("bench", durable="plain")
    got = 0
    start = time.perf_counter()
    while got < count:
        for message in await subscription.fetch(500, timeout=5):
            got += 1
            await message.ack()
    await settled(js, "plain")
    seconds = time.perf_counter() - start
    await client.close()
    return {"rate": count / seconds}


async def consume_bare_pulls(url: str, count: int) -> Figures:
    """The upper bound for nats-py: overlapping raw pulls, no decoding, no handler."""
    client, js = await workload.connect(url)
    await workload.fill(client, js, "bench", count)
    await js.pull_subscribe("bench", durable="plain")
    inbox = client.new_inbox()
    done = asyncio.Event()
    got = asked = 0

    async def pull() -> None:
        nonlocal asked
        asked += 2000
        request = json.dumps({"batch": 2000, "expires": 30_000_000_000}).encode()
        await client.publish("$JS.API.CONSUMER.MSG.NEXT.bench.plain", request, inbox)

    async def on_message(message: Any) -> None:
        nonlocal got, asked
        if not message.reply:
            return
        got += 1
        asked -= 1
        await client.publish(message.reply, b"")
        if got == count:
            done.set()
        elif asked < 2000:
            await pull()

    await client.subscribe(inbox, cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    start = time.perf_counter()
    await pull()
    await done.wait()
    await settled(js, "plain")
    seconds = time.perf_counter() - start
    await client.close()
    return {"rate": count / seconds}


async def consume_faststream(url: str, count: int) -> Figures:
    from faststream.nats import JStream, NatsBroker, PullSub  # noqa: PLC0415 - see above

    client, js = await workload.connect(url)
    await workload.fill(client, js, "bench", count)
    seen = Observer(count)
    done = asyncio.Event()
    broker = NatsBroker(url, logger=None)

    @broker.subscriber(
        "bench",
        stream=JStream("bench", declare=False),
        durable="faststream",
        pull_sub=PullSub(batch_size=500),
    )
    async def handle(event: dict[str, Any]) -> None:
        if seen.see(event["aggregate_id"], event["event_version"]):
            done.set()

    start = time.perf_counter()
    await broker.start()
    await done.wait()
    await settled(js, "faststream")
    seconds = time.perf_counter() - start
    await broker.stop()
    await client.close()
    return {"rate": count / seconds, "violations": seen.violations}


async def consume_tbus(url: str, count: int) -> Figures:
    async with open_bus(url, nats={"storage": "memory"}, max_in_flight=4000) as bus:
        await bus.remove_topic("bench")
        async with bus.open_publisher() as publisher:
            for envelope in workload.envelopes(count):
                await publisher.send("bench", envelope)
        seen = Observer(count)
        done = trio.Event()

        async def handle(message: Message) -> None:
            event = message.envelope
            if seen.see(event.aggregate_id, event.event_version):
                done.set()

        start = time.perf_counter()
        await bus.subscribe("bench", handle, group="tbus")
        await done.wait()
        while (await bus.lag("bench", "tbus")).messages:
            pass
        return {"rate": count / (time.perf_counter() - start), "violations": seen.violations}


# --- memory ------------------------------------------------------------------------------


async def memory_tbus(_: str, count: int) -> Figures:
    async with open_bus("memory://", max_in_flight=5000) as bus:
        handled = 0
        done = trio.Event()

        async def handle(message: Message) -> None:  # noqa: ARG001
            nonlocal handled
            handled += 1
            if handled == count:
                done.set()

        await bus.subscribe("bench", handle, group="tbus")
        prepared = list(workload.envelopes(count))
        start = time.perf_counter()
        async with bus.open_publisher(max_in_flight=5000) as publisher:
            for envelope in prepared:
                await publisher.send("bench", envelope)
        await done.wait()
        return {"rate": count / (time.perf_counter() - start)}


Contestant = Callable[[str, int], Awaitable[Figures]]

CONTESTANTS: dict[str, Contestant] = {
    function.__name__: function
    for function in (
        publish_nats_py,
        publish_nats_py_with_id,
        publish_faststream,
        publish_tbus,
        publish_tbus_pipelined,
        latency_nats_py,
        latency_tbus,
        consume_nats_py,
        consume_nats_py_without_decoding,
        consume_bare_pulls,
        consume_faststream,
        consume_tbus,
        memory_tbus,
    )
}


def run(name: str, url: str, count: int) -> Figures:
    """Run a contestant in the loop it is made for."""
    function = CONTESTANTS[name]
    if "_tbus" in name:
        return trio.run(function, url, count)
    return asyncio.run(function(url, count))  # type: ignore[arg-type]
