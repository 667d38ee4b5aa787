"""Run it: `python -m tests.chaos kafka --events 200000 --kills 50 --stops 50`."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from tbus import TopicOptions, open_bus
from tbus.testing.harness import unique_name
from tests.chaos.book import Book, Event, Verdict
from tests.chaos.crowd import Crowd

KAFKA = {"session_timeout": 3.0, "rebalance_timeout": 5.0, "drain": 2.0}


async def publish(
    url: str, topics: list[str], count: int, keys: int, rate: float, stored: set[Event]
) -> None:
    """Publish `count` events, those of each key in order; note what is acknowledged."""
    numbers = dict.fromkeys(range(keys), 0)
    ids: dict[str, Event] = {}
    async with open_bus(url, publish_timeout=60.0) as bus:
        for topic in topics:
            await bus.configure_topic(topic, TopicOptions(partitions=4))
        async with bus.open_publisher(max_in_flight=2000) as publisher, trio.open_nursery() as n:

            async def note() -> None:
                async for outcome in publisher.outcomes:
                    if outcome.success:
                        stored.add(ids.pop(outcome.event_id))

            n.start_soon(note)
            begun = trio.current_time()
            for sent in range(count):
                key = random.randrange(keys)
                numbers[key] += 1
                topic = topics[key % len(topics)]
                event = (topic, f"key-{key}", numbers[key])
                name = f"{topic}/{key}/{numbers[key]}"
                ids[name] = event
                await publisher.send(topic, str(numbers[key]).encode(), key=event[1], id=name)
                if sent % 100 == 0:
                    await trio.sleep_until(begun + sent / rate)
            while publisher.statistics().in_flight:  # noqa: ASYNC110
                await trio.sleep(0.1)
            n.cancel_scope.cancel()


async def run(options: argparse.Namespace, url: str, directory: Path) -> dict[str, Any]:
    """Publish, do things to the members, and judge."""
    topics = [unique_name("chaos") for _ in range(options.topics)]
    book = Book(directory / "book")
    stored: set[Event] = set()
    settings: dict[str, Any] = {"kafka": KAFKA} if url.startswith("kafka") else {}
    crowd = Crowd(url, unique_name("crowd"), book.path, topics, options.members, **settings)
    deeds = ["kill"] * options.kills + ["stop"] * options.stops + ["suspend"] * options.suspends
    random.shuffle(deeds)
    begun = time.monotonic()
    async with trio.open_nursery() as nursery, trio.open_nursery() as publishing:
        publishing.start_soon(
            publish, url, topics, options.events, options.keys, options.rate, stored
        )
        await crowd.fill(nursery)
        for number, deed in enumerate(deeds):
            await trio.sleep(random.random() * 0.5)
            if deed == "suspend":
                await crowd.suspend(options.pause)
            else:
                await getattr(crowd, deed)(nursery)
            if number % 10 == 0:
                sys.stderr.write(
                    f"{time.monotonic() - begun:6.1f} s  {number} of {len(deeds)}"
                    f"  stored {len(stored)}  handled {book.read_on()}\n"
                )
        await wait_handled(book, stored, publishing, options.patience)
        await crowd.end()
    verdict = book.judge(stored)
    return {
        "url": url.partition("://")[0],
        "events": options.events,
        "keys": options.keys,
        "topics": options.topics,
        "members": options.members,
        "seconds": round(time.monotonic() - begun, 1),
        "deeds": dict(crowd.done),
        "unclean ends": crowd.unclean,
        **_figures(verdict, crowd.done["killed"] + crowd.done["suspended"]),
    }


async def wait_handled(
    book: Book, stored: set[Event], publishing: trio.Nursery, patience: float
) -> None:
    """Wait until all that is acknowledged was handled, or until nothing has come for a while."""
    last, since = -1, trio.current_time()
    while True:
        handled = book.read_on()
        done = not publishing.child_tasks and not stored - book.completions.keys()
        if done:
            return
        if handled + len(stored) != last:
            last, since = handled + len(stored), trio.current_time()
        elif trio.current_time() - since > patience:
            return
        await trio.sleep(0.2)


def _figures(verdict: Verdict, faults: int) -> dict[str, Any]:
    return {
        "stored": verdict.stored,
        "handled": verdict.handled,
        "lost": verdict.lost,
        "inversions": verdict.inversions,
        "repeated": verdict.repeated,
        "repeated per kill": round(verdict.repeated / faults, 1) if faults else verdict.repeated,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("url", help="where: a URL, or 'kafka' or 'nats' for a broker of its own")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=2_000.0, help="events published a second")
    parser.add_argument("--keys", type=int, default=2_000)
    parser.add_argument("--topics", type=int, default=3)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--stops", type=int, default=5)
    parser.add_argument("--suspends", type=int, default=0)
    parser.add_argument("--pause", type=float, default=5.0, help="seconds of a suspension")
    parser.add_argument("--patience", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos") as name:
        directory = Path(name)
        if options.url == "kafka":
            from tests.brokers.kafka import KafkaCluster

            with KafkaCluster(directory / "kafka") as cluster:
                result = trio.run(run, options, f"kafka://{cluster.bootstrap}", directory)
        elif options.url == "nats":
            from tests.brokers.nats import NatsServer, find_binary

            server = NatsServer(directory / "nats", find_binary())
            server.start()
            try:
                result = trio.run(run, options, server.url, directory)
            finally:
                server.stop()
        else:
            result = trio.run(run, options, options.url, directory)
    print(json.dumps(result, indent=2))  # noqa: T201
    return 1 if result["lost"] or result["inversions"] or result["unclean ends"] else 0


if __name__ == "__main__":
    sys.exit(main())
