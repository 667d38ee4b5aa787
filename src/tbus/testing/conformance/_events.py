"""What the bus tells of its life."""

from __future__ import annotations

import anyio

from ..._events import Draining, EventsMissed, MessageRetried, TopicMade
from ..._message import Message
from ..harness import Harness
from ._case import case
from ._kit import AT_ONCE, Seen, publish_text, watching


@case()
async def events_tell_of_a_topic_made_and_of_attempts_that_failed(harness: Harness) -> None:
    topic = harness.topic()

    async def fail_first(message: Message) -> None:
        if message.attempt == 1:
            raise ValueError("not yet")

    seen = Seen(fail_first)
    async with harness.open_bus() as bus, watching(bus) as watch:
        await bus.subscribe(topic, seen, group="g", retry=AT_ONCE)
        made = await watch.wait(TopicMade)
        receipt = await bus.publish(topic, b"a", key="k")
        retried = await watch.wait(MessageRetried)
        await seen.wait(1)
    assert (made.topic, made.again) == (topic, False)
    assert (retried.topic, retried.group, retried.key) == (topic, "g", "k")
    assert (retried.attempt, retried.position) == (1, str(receipt.position))
    assert retried.error == "ValueError: not yet"


@case()
async def a_reader_that_is_too_slow_sees_how_many_it_missed(harness: Harness) -> None:
    topic = harness.topic()

    async def fail_often(message: Message) -> None:
        if message.attempt < 3:
            raise ValueError("not yet")

    seen = Seen(fail_often)
    found = []
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g", retry=AT_ONCE)
        async with bus.open_events(buffer=4) as events:
            await publish_text(bus, topic, "abcde")
            await seen.wait(5)
            async for event in events:
                found.append(event)
                if len(found) == 4:
                    break
            await publish_text(bus, topic, "f")
            async for event in events:
                found.append(event)
                if isinstance(event, EventsMissed):
                    break
    assert [type(event) for event in found[:4]] == [MessageRetried] * 4
    assert found[4] == EventsMissed(6)


@case()
async def events_end_with_the_bus_and_tell_that_it_drains(harness: Harness) -> None:
    found = []
    reading = anyio.Event()
    async with anyio.create_task_group() as tasks, harness.open_bus(grace=1.5) as bus:

        async def read() -> None:
            async with bus.open_events() as events:
                reading.set()
                found.extend([event async for event in events])

        tasks.start_soon(read)
        await reading.wait()
    assert found[-1] == Draining(1.5)
