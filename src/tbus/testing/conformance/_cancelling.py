"""Cancelled at every checkpoint: nothing is left, and nothing that was acknowledged is lost."""

from __future__ import annotations

from ..._message import Receipt
from ..checkpoints import cancel_at_every_checkpoint
from ..harness import Harness
from ._case import case
from ._kit import Seen


@case(trio_only=True, limit=50)
async def a_publish_cancelled_anywhere_loses_nothing_that_it_acknowledged(harness: Harness) -> None:
    topic = harness.topic()
    receipts: list[Receipt] = []
    seen = Seen()
    async with harness.open_bus() as bus:
        await bus.publish(topic, b"first")

        async def publish() -> None:
            receipts.append(await bus.publish(topic, b"x", key="k"))

        assert await cancel_at_every_checkpoint(publish) >= 1
        last = await bus.publish(topic, b"last")
        await bus.subscribe(topic, seen, group="g", order="partition")
        while not seen.messages or seen.messages[-1].position != last.position:
            await seen.wait(len(seen.messages) + 1)
    stored = {message.position for message in seen.messages}
    assert receipts
    assert stored.issuperset(receipt.position for receipt in receipts)


@case(trio_only=True, limit=50)
async def a_publisher_cancelled_anywhere_loses_nothing_that_it_counted(harness: Harness) -> None:
    topic = harness.topic()
    stored = 0
    seen = Seen()
    async with harness.open_bus() as bus:
        await bus.publish(topic, b"first")
        publisher = None

        async def send() -> None:
            nonlocal publisher
            async with bus.open_publisher(max_in_flight=200) as publisher:
                for number in range(600):
                    await publisher.send(topic, str(number).encode(), key="k")

        async def count(_: bool) -> None:
            nonlocal stored
            if publisher is not None:
                stored += publisher.statistics().stored

        assert await cancel_at_every_checkpoint(send, after=count) >= 1
        last = await bus.publish(topic, b"last")
        await bus.subscribe(topic, seen, group="g", order="partition")
        while not seen.messages or seen.messages[-1].position != last.position:
            await seen.wait(len(seen.messages) + 1)
    assert len(seen.messages) - 2 >= stored > 0


@case(trio_only=True, limit=50)
async def a_subscribe_cancelled_anywhere_leaves_the_group_to_whoever_comes_next(
    harness: Harness,
) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus() as bus:
        await bus.publish(topic, b"a", key="k")
        subscription = None

        async def subscribe() -> None:
            nonlocal subscription
            subscription = await bus.subscribe(topic, seen, group="g")

        async def close(_: bool) -> None:
            nonlocal subscription
            if subscription is not None:
                await subscription.close()
            subscription = None

        assert await cancel_at_every_checkpoint(subscribe, after=close) >= 1
        await subscribe()
        await bus.publish(topic, b"b", key="k")
        await seen.wait(2)
        assert bus.census().roles()["pull loop"] == 1
    assert seen.text == "ab"


@case(trio_only=True, limit=50)
async def reading_cancelled_anywhere_loses_no_message_and_no_attempt(harness: Harness) -> None:
    topic = harness.topic()
    handled: list[int] = []
    published = 0
    async with harness.open_bus() as bus:

        async def read() -> None:
            async with bus.open_messages(topic, group="g") as messages:
                message = await anext(messages)
                async with message:
                    assert message.attempt == 1
                    await bus.ping()
                    handled.append(int(message.body))

        async def refill(_: object = None) -> None:
            nonlocal published
            while published < len(handled) + 4:
                await bus.publish(topic, str(published).encode(), key="k")
                published += 1

        await refill()
        assert await cancel_at_every_checkpoint(read, after=refill) >= 2
        async with bus.open_messages(topic, group="g") as messages:
            while len(handled) < published:
                async with await anext(messages) as message:
                    handled.append(int(message.body))
        assert (await bus.lag(topic, "g")).messages == 0
    assert handled == list(range(published))


@case(trio_only=True, limit=50)
async def opening_a_bus_cancelled_anywhere_leaves_nothing(harness: Harness) -> None:
    before = harness.census()
    left: list[str] = []

    async def open_and_close() -> None:
        async with harness.open_bus():
            pass

    async def look(_: bool) -> None:
        left.extend(harness.census().beyond(before))

    assert await cancel_at_every_checkpoint(open_and_close, after=look) >= 1
    assert not left


@case(trio_only=True, limit=50)
async def a_bus_at_work_cancelled_anywhere_leaves_nothing_and_loses_nothing(
    harness: Harness,
) -> None:
    topic = harness.topic()
    before = harness.census()
    left: list[str] = []
    receipts: list[Receipt] = []
    seen = Seen()

    async def work() -> None:
        async with harness.open_bus() as bus:
            some = Seen()
            await bus.subscribe(topic, some, group="workers")
            receipts.append(await bus.publish(topic, b"x", key="k"))
            receipts.append(await bus.publish(topic, b"y", key="k"))
            await some.wait(2)

    async def look(_: bool) -> None:
        left.extend(harness.census().beyond(before))

    assert await cancel_at_every_checkpoint(work, after=look) >= 4
    assert not left
    async with harness.open_bus() as bus:
        last = await bus.publish(topic, b"last")
        await bus.subscribe(topic, seen, group="g", order="partition")
        while not seen.messages or seen.messages[-1].position != last.position:
            await seen.wait(len(seen.messages) + 1)
    stored = {message.position for message in seen.messages}
    assert stored.issuperset(receipt.position for receipt in receipts)
