"""What a handler shields is not cut in the middle."""

from __future__ import annotations

import anyio

from ..._message import Message
from ..harness import Harness
from ._case import case
from ._kit import Gate, raising


class _Leave(Exception):
    """From the block of the bus: an end that waits for no handler."""


async def _interrupted_in_a_block(harness: Harness, topic: str, *, after: bool) -> list[str]:
    """A bus that ends at once while its handler shields itself; returns how far it came."""
    steps: list[str] = []
    gate = Gate()

    async def handle(message: Message) -> None:
        async with message.shielded():
            await gate(message)
            steps.append("block ended")
        if after:
            await anyio.sleep_forever()
        steps.append("returned")

    async with anyio.create_task_group() as tasks:
        with raising(_Leave):
            async with harness.open_bus() as bus:
                await bus.subscribe(topic, handle, group="g")
                await bus.publish(topic, b"a", key="k")
                await gate.wait(1)

                async def open_later() -> None:
                    await bus.draining.wait()
                    await anyio.sleep(0.05)
                    gate.open()

                tasks.start_soon(open_later)
                raise _Leave
    return steps


@case()
async def a_shielded_block_ends_and_its_message_is_settled_though_the_bus_waits_for_no_handler(
    harness: Harness,
) -> None:
    topic = harness.topic()
    steps = await _interrupted_in_a_block(harness, topic, after=False)
    assert steps == ["block ended", "returned"]
    async with harness.open_bus() as bus:
        assert (await bus.lag(topic, "g")).messages == 0


@case()
async def a_handler_cut_behind_its_shielded_block_is_given_back_without_an_attempt(
    harness: Harness,
) -> None:
    topic = harness.topic()
    steps = await _interrupted_in_a_block(harness, topic, after=True)
    assert steps == ["block ended"]
    attempts: list[int] = []
    again = anyio.Event()

    async def count(message: Message) -> None:
        attempts.append(message.attempt)
        again.set()

    async with harness.open_bus() as bus:
        await bus.subscribe(topic, count, group="g")
        await again.wait()
    assert attempts == [1]
