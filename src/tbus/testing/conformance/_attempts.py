"""Attempts that are kept: how often handling has failed is not forgotten with the process."""

from __future__ import annotations

import anyio

from ..._events import DeadLettered
from ..._message import Message
from ..harness import Ability, Harness
from ._case import case
from ._kit import AT_ONCE, Gate, Seen, publish_text, watching


class _FailsTwice:
    """Fails for "a" twice; the third run waits until it is cancelled."""

    def __init__(self) -> None:
        self.third = Gate()

    async def __call__(self, message: Message) -> None:
        if message.body == b"a":
            if message.attempt < 3:
                raise ValueError("not yet")
            await self.third(message)


@case(needs=Ability.KEEP_ATTEMPTS)
async def what_failed_twice_in_one_bus_has_its_third_attempt_in_the_next(
    harness: Harness,
) -> None:
    topic = harness.topic()
    failing, seen = _FailsTwice(), Seen()
    async with harness.open_bus(grace=0.05) as bus:
        await bus.subscribe(topic, failing, group="g", retry=AT_ONCE)
        await publish_text(bus, topic, "ab")
        await failing.third.wait(1)
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g", retry=AT_ONCE)
        await seen.wait(2)
    assert [(message.body, message.attempt) for message in seen.messages] == [(b"a", 3), (b"b", 1)]


@case(needs=Ability.KEEP_ATTEMPTS)
async def attempts_of_several_buses_together_end_in_the_dead_letter_topic(
    harness: Harness,
) -> None:
    topic = harness.topic()
    failing = _FailsTwice()
    attempts: list[int] = []

    async def fail(message: Message) -> None:
        attempts.append(message.attempt)
        raise ValueError("never")

    async with harness.open_bus(grace=0.05) as bus:
        await bus.subscribe(topic, failing, group="g", retry=AT_ONCE)
        await publish_text(bus, topic, "a")
        await failing.third.wait(1)
    async with harness.open_bus() as bus, watching(bus) as watch:
        await bus.subscribe(topic, fail, group="g", retry=AT_ONCE)
        event = await watch.wait(DeadLettered)
    assert attempts == [3]
    assert event.attempts == 3


@case(needs=Ability.KEEP_ATTEMPTS)
async def attempts_go_with_a_partition_to_the_next_member(harness: Harness) -> None:
    topic = harness.topic()
    failing, seen = _FailsTwice(), Seen()
    async with harness.open_bus(grace=0.05) as second:
        async with harness.open_bus(grace=0.05) as first:
            await first.subscribe(topic, failing, group="g", retry=AT_ONCE)
            await publish_text(first, topic, "a")
            await failing.third.wait(1)
            async with anyio.create_task_group() as tasks:

                async def join() -> None:
                    await second.subscribe(topic, seen, group="g", retry=AT_ONCE)

                tasks.start_soon(join)
                await first.ping()
        # The first has left, its handler cancelled.
        [message] = await seen.wait(1)
    assert (message.body, message.attempt) == (b"a", 3)
