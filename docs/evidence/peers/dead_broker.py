"""The broker dies, and then the program wants to end: how long does that take?

A consumer of a group and a producer run against Apache Kafka, and one message has been handled.
Then the broker is killed, and whoever holds the clients ends. Nobody waits for longer than a
minute.

    python -m docs.evidence.peers.dead_broker
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import trio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tbus import Bus, Message, TbusError, open_bus
from tests.brokers.kafka import KafkaCluster

PATIENCE = 60.0


async def aiokafka(cluster: KafkaCluster, *, sending: bool) -> str:
    topic = f"peer-{sending}"
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap)
    await producer.start()
    await producer.send_and_wait(topic, b"one")
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=cluster.bootstrap, group_id="g", auto_offset_reset="earliest"
    )
    await consumer.start()
    await consumer.getone()
    cluster.kill()
    under_way = await producer.send(topic, b"two") if sending else None
    told = []
    for name, client in (("consumer.stop()", consumer), ("producer.stop()", producer)):
        began = time.monotonic()
        try:
            await asyncio.wait_for(client.stop(), PATIENCE)
        except TimeoutError:
            told.append(f"{name} had not ended after {PATIENCE:.0f} s")
        except Exception as error:  # noqa: BLE001 - whatever the peer raises is told
            told.append(f"{name} raised {type(error).__name__} after {since(began)}")
        else:
            told.append(f"{name} took {since(began)}")
    if under_way is not None:
        told.append(f"the event under way: {outcome(under_way)}")
    left = len(asyncio.all_tasks()) - 1
    return f"{'; '.join(told)}; tasks left: {left}"


def outcome(under_way: asyncio.Future[object]) -> str:
    if not under_way.done():
        return "no outcome, its future waits for ever"
    if under_way.cancelled():
        return "cancelled"
    return type(under_way.exception() or under_way.result()).__name__


async def tbus(cluster: KafkaCluster) -> str:
    handled = trio.Event()
    told = []

    async def handle(_: Message) -> None:
        handled.set()

    async def publish(bus: Bus) -> None:
        try:
            await bus.publish("orders", b"two", timeout=PATIENCE)
        except TbusError as error:
            told.append(f"the event under way: {type(error).__name__}")

    async with trio.open_nursery() as nursery:
        async with open_bus(f"kafka://{cluster.bootstrap}", grace=2.0) as bus:
            await bus.subscribe("orders", handle, group="g")
            await bus.publish("orders", b"one")
            await handled.wait()
            cluster.kill()
            nursery.start_soon(publish, bus)  # noqa: ASYNC111 - it outlives the bus on purpose
            await trio.sleep(0.1)
            began = time.monotonic()
        told.insert(0, f"the block ended in {since(began)} (grace 2 s)")
    return f"{'; '.join(told)}"


def since(began: float) -> str:
    return f"{time.monotonic() - began:.2f} s"


def main() -> None:
    logging.disable(logging.CRITICAL)  # the clients log every attempt to connect
    with tempfile.TemporaryDirectory() as directory, KafkaCluster(Path(directory)) as cluster:
        for sending in (False, True):
            found = asyncio.run(aiokafka(cluster, sending=sending))
            what = "one event under way" if sending else "nothing under way"
            print(f"aiokafka {version('aiokafka')}, {what}: {found}", flush=True)
            cluster.start()
        print(f"tbus: {trio.run(tbus, cluster)}", flush=True)


if __name__ == "__main__":
    main()
