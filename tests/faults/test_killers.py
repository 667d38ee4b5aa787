"""A message that kills whoever handles it is dead-lettered, and nobody beside it is."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import trio

from tbus import open_bus
from tests.brokers.kafka_fixtures import KafkaBroker
from tests.brokers.nats import NatsServer

ROOT = Path(__file__).parents[2]
LIMIT = 6
BESIDE = ["a", "b", "kill", "c", "d"]
"""Each is a key of its own, so all are handled beside each other."""


async def serve(url: str, topic: str) -> list[str]:
    """One life; returns what it has told."""
    done = await trio.run_process(
        [sys.executable, "-m", "tests.faults.killed", url, topic, str(LIMIT)],
        cwd=ROOT, capture_stdout=True, check=False,
    )  # fmt: skip
    return done.stdout.decode().splitlines()


async def outlive(url: str, topic: str) -> tuple[list[list[str]], list[str]]:
    """Life after life, until the killer is gone; returns these, and the keys of dead letters."""
    async with open_bus(url) as bus:
        for body in BESIDE:
            await bus.publish(topic, body.encode(), key=body)
        lives: list[list[str]] = []
        while not lives or lives[-1][-1:] != ["done"]:
            lives.append(await serve(url, topic))
            assert len(lives) < 3 * LIMIT, lives
        async with bus.open_dead_letters(topic, group="g") as letters:
            return lives, [letter.key or "" async for letter in letters]


def judge(lives: list[list[str]], dead: list[str]) -> None:
    told = Counter(line for life in lives for line in life)
    assert dead == ["kill"]
    assert told["dead kill 0"] == 1
    assert all(told[f"handled {body}"] for body in BESIDE if body != "kill")
    assert LIMIT <= told["die"] <= LIMIT + 1


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_on_nats_a_killer_is_dead_lettered_and_who_is_beside_it_is_handled(
    shared_nats_server: NatsServer, topic: str
) -> None:
    judge(*await outlive(shared_nats_server.url, topic))


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_on_kafka_a_killer_is_dead_lettered_and_who_is_beside_it_is_handled(
    shared_kafka: KafkaBroker, topic: str
) -> None:
    judge(*await outlive(f"kafka://{shared_kafka.bootstrap}", topic))
