"""What is removed beneath its reader."""

from __future__ import annotations

import random

import trio

from tests.brokers.harness import ask
from tests.faults.kafka_kit import ask_admin

from ..grounds import Kafka, nats_of
from ..stage import Stage


async def remove_consumer(stage: Stage) -> None:
    """The group's consumer is deleted on the server while events flow."""
    for _ in range(2):
        await trio.sleep(random.uniform(0.5, 1.5))
        subject = f"$JS.API.CONSUMER.DELETE.{stage.job.topic}.{stage.job.group}"
        assert ask(nats_of(stage.ground).server, subject)["success"]
        await forgotten(stage, "consumer deleted")


async def remove_stream(stage: Stage) -> None:
    """The topic's stream is deleted on the server, when all is handled."""
    for _ in range(2):
        await trio.sleep(random.uniform(0.5, 1.5))
        await stage.quiet()
        answer = ask(nats_of(stage.ground).server, f"$JS.API.STREAM.DELETE.{stage.job.topic}")
        assert answer["success"]
        await removed(stage, "stream deleted")


async def remove_kafka_topic(stage: Stage) -> None:
    """The topic is deleted in the cluster, when all is handled."""
    assert isinstance(stage.ground, Kafka)
    await trio.sleep(random.uniform(0.5, 1.5))
    await stage.quiet()
    await ask_admin(
        stage.ground.cluster.bootstrap, lambda admin: admin.delete_topics([stage.job.topic])
    )
    await removed(stage, "topic deleted")


async def remove_group(stage: Stage) -> None:
    """The group is forgotten by the broker while events flow."""
    for _ in range(2):
        await trio.sleep(random.uniform(0.5, 1.5))
        await stage.program.tell("remove_group", stage.job.topic, stage.job.group)
        await forgotten(stage, "group removed")


async def remove_topic(stage: Stage) -> None:
    """The topic is removed, when all is handled."""
    for _ in range(2):
        await trio.sleep(random.uniform(0.5, 1.5))
        await stage.quiet()
        await stage.program.tell("remove_topic")
        await removed(stage, "topic removed")


async def forgotten(stage: Stage, what: str) -> None:
    """Where the group stood is gone: its bus ends, and the next one begins from the start."""
    stage.note(what)
    await stage.wait_ended()
    stage.book.read_on()
    stage.excused += len(stage.book.completions)


async def removed(stage: Stage, what: str) -> None:
    """The topic is gone: the bus ends, and the next one makes it again."""
    stage.note(what)
    await stage.wait_ended()
    await stage.program.tell("go")
