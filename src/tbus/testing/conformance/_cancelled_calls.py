"""Each public call cancelled at every checkpoint: the bus goes on as if it had not been called, or
as if it had; never in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..._bus import Bus
from ..._dead_letters import DeadLetter
from ..._errors import Reject
from ..._events import DeadLettered
from ..._message import Message, Receipt
from ..._pace import Rate
from ..._topic import TopicOptions
from ..checkpoints import cancel_at_every_checkpoint
from ..harness import Harness
from ._case import case
from ._kit import AT_ONCE, Seen, publish_text, watching

THREE = TopicOptions(partitions=3)


async def _letters(bus: Bus, topic: str) -> list[DeadLetter]:
    async with bus.open_dead_letters(topic) as letters:
        return [letter async for letter in letters]


async def _bury(bus: Bus, topic: str, text: str) -> None:
    async def reject(_: Message) -> None:
        raise Reject("no")

    async with watching(bus) as watch:
        subscription = await bus.subscribe(topic, reject, group="g", retry=AT_ONCE)
        await publish_text(bus, topic, text)
        await watch.wait(DeadLettered, len(text))
        await subscription.close()


@case(trio_only=True, limit=50)
async def questions_that_are_cancelled_anywhere_change_nothing(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        await bus.configure_topic(topic, THREE)
        await _bury(bus, topic, "ab")
        roles = bus.census().roles()

        async def look_at_events() -> None:
            async with bus.open_events() as events:
                await bus.ping()
                assert events is not None

        questions: list[Callable[[], Awaitable[object]]] = [
            lambda: bus.get_topic(topic),
            bus.list_topics,
            lambda: bus.lag(topic, "g"),
            lambda: bus.list_groups(topic),
            bus.ping,
            lambda: _letters(bus, topic),
            look_at_events,
        ]

        async def look(_: bool) -> None:
            found = await bus.get_topic(topic)
            assert found is not None
            assert found.partitions == 3

        for question in questions:
            assert await cancel_at_every_checkpoint(question, after=look, at_most=30) >= 1
        assert len(await _letters(bus, topic)) == 2
        assert (await bus.lag(topic, "g")).messages == 0
        assert bus.census().roles() == roles


@case(trio_only=True, limit=50)
async def a_topic_whose_making_was_cancelled_anywhere_is_as_it_was_asked_for_or_is_not(
    harness: Harness,
) -> None:
    made: list[str] = []
    async with harness.open_bus() as bus:

        async def make() -> None:
            made.append(harness.topic())
            await bus.configure_topic(made[-1], THREE)

        async def look(cut_short: bool) -> None:
            found = await bus.get_topic(made[-1])
            assert found is None or found.partitions == 3
            assert found is not None or cut_short
            again = await bus.configure_topic(made[-1], THREE)
            assert again.partitions == 3

        assert await cancel_at_every_checkpoint(make, after=look, at_most=20) >= 1


@case(trio_only=True, limit=50)
async def a_topic_whose_removal_was_cancelled_anywhere_can_be_removed(harness: Harness) -> None:
    topics: list[str] = []
    async with harness.open_bus() as bus:

        async def make(_: object = None) -> None:
            if topics:
                await bus.remove_topic(topics[-1])
                assert await bus.get_topic(topics[-1]) is None
            topics.append(harness.topic())
            await bus.configure_topic(topics[-1])

        async def remove() -> None:
            await bus.remove_topic(topics[-1])

        await make()
        assert await cancel_at_every_checkpoint(remove, after=make, at_most=20) >= 1


@case(trio_only=True, limit=50)
async def a_redrive_cancelled_anywhere_can_be_repeated_and_loses_nothing(harness: Harness) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus() as bus:
        await _bury(bus, topic, "a")
        await bus.subscribe(topic, seen, group="g")
        [letter] = await _letters(bus, topic)
        rounds = 0

        async def redrive() -> None:
            await bus.redrive(letter)

        async def repeat(_: bool) -> None:
            nonlocal letter, rounds
            done = await bus.redrive(letter)
            assert done.letter == letter.id
            rounds += 1
            [found] = await _letters(bus, topic)
            assert found.redriven >= letter.redriven + 1
            letter = found
            while not any(m.position == done.receipt.position for m in seen.messages):
                await seen.wait(len(seen.messages) + 1)

        assert await cancel_at_every_checkpoint(redrive, after=repeat, at_most=20) >= 1
    assert set(seen.bodies) == {b"a"}
    assert len(seen.messages) >= rounds


@case(trio_only=True, limit=50)
async def a_closing_cancelled_anywhere_ends_the_subscription_and_loses_nothing(
    harness: Harness,
) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus() as bus:
        subscription = await bus.subscribe(topic, seen, group="g")
        published = 0

        async def close() -> None:
            await subscription.close()

        async def go_on(_: bool) -> None:
            nonlocal subscription, published
            await subscription.close()
            await bus.publish(topic, str(published).encode(), key="k")
            published += 1
            subscription = await bus.subscribe(topic, seen, group="g")
            await seen.wait(published)

        assert await cancel_at_every_checkpoint(close, after=go_on, at_most=8) >= 1
    assert seen.bodies == [str(number).encode() for number in range(published)]


@case(trio_only=True, limit=50)
async def a_discarding_cancelled_anywhere_discards_all_that_waits_or_nothing(
    harness: Harness,
) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus() as bus:
        subscription = await bus.subscribe(topic, seen, group="g")
        assert subscription.park("k")
        discarded: int | None = None

        async def fill(cut_short: bool) -> None:
            nonlocal discarded
            [parked] = subscription.parked()
            assert parked.waiting == (3 if cut_short else 0)
            assert discarded == (None if cut_short else 3)
            discarded = None
            await publish_text(bus, topic, "abc"[parked.waiting :])
            while subscription.parked()[0].waiting < 3:
                await bus.ping()

        async def discard() -> None:
            nonlocal discarded
            discarded = await subscription.discard("k")

        discarded = 3
        await fill(cut_short=False)
        assert await cancel_at_every_checkpoint(discard, after=fill) >= 1
        assert subscription.release("k")
        await seen.wait(3)
    assert seen.text == "abc"


@case(trio_only=True, limit=50)
async def a_publish_at_a_rate_cancelled_anywhere_costs_the_next_one_nothing(
    harness: Harness,
) -> None:
    topic = harness.topic()
    receipts: list[Receipt] = []
    seen = Seen()
    async with harness.open_bus(publish_rate=Rate(200.0, burst=1)) as bus:
        await bus.publish(topic, b"first")

        async def publish() -> None:
            for body in (b"x", b"y", b"z"):
                receipt = await bus.publish(topic, body, key="k")
                receipts.append(receipt)

        assert await cancel_at_every_checkpoint(publish, at_most=30) >= 2
        last = await bus.publish(topic, b"last")
        await bus.subscribe(topic, seen, group="g", order="partition", rate=Rate(5000.0))
        while not seen.messages or seen.messages[-1].position != last.position:
            await seen.wait(len(seen.messages) + 1)
    stored = {message.position for message in seen.messages}
    assert stored.issuperset(receipt.position for receipt in receipts)
