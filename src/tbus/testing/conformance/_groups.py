"""Who sees what, and from where on."""

from __future__ import annotations

from ..._errors import ConfigurationError
from ..harness import Harness
from ._case import case
from ._kit import Seen, publish_text, raising


@case()
async def without_a_group_every_subscription_sees_everything_from_then_on(harness: Harness) -> None:
    topic = harness.topic()
    first, second = Seen(), Seen()
    async with harness.open_bus() as bus:
        await publish_text(bus, topic, "old")
        await bus.subscribe(topic, first)
        await bus.subscribe(topic, second)
        await publish_text(bus, topic, "new")
        await first.wait(3)
        await second.wait(3)
    assert first.text == "new"
    assert second.text == "new"


@case()
async def every_group_sees_everything_from_the_beginning(harness: Harness) -> None:
    topic = harness.topic()
    first, second = Seen(), Seen()
    async with harness.open_bus() as bus:
        await publish_text(bus, topic, "old")
        await bus.subscribe(topic, first, group="one")
        await bus.subscribe(topic, second, group="two")
        await publish_text(bus, topic, "new")
        await first.wait(6)
        await second.wait(6)
    assert first.text == "oldnew"
    assert second.text == "oldnew"


@case()
async def a_new_group_may_start_at_the_end_or_at_a_position(harness: Harness) -> None:
    topic = harness.topic()
    latest, placed = Seen(), Seen()
    async with harness.open_bus() as bus:
        await bus.publish(topic, b"a", key="k")
        here = await bus.publish(topic, b"b", key="k")
        await bus.subscribe(topic, latest, group="latest", start="latest")
        await bus.subscribe(topic, placed, group="placed", start=here.position)
        await bus.publish(topic, b"c", key="k")
        await latest.wait(1)
        await placed.wait(2)
    assert latest.text == "c"
    assert placed.text == "bc"


@case()
async def what_is_published_once_subscribe_has_returned_arrives(harness: Harness) -> None:
    async with harness.open_bus() as bus:
        for _ in range(10):
            topic, seen = harness.topic(), Seen()
            await bus.subscribe(topic, seen)
            await bus.publish(topic, b"a")
            await seen.wait(1)


@case()
async def the_next_bus_goes_on_where_the_last_one_ended_and_repeats_nothing(
    harness: Harness,
) -> None:
    topic = harness.topic()
    text = "abcdefghij"
    parts = []
    for part in range(3):
        seen = Seen()
        async with harness.open_bus() as bus:
            await bus.subscribe(topic, seen, group="g")
            await publish_text(bus, topic, text)
            await seen.wait(10)
        assert seen.text == text, f"bus {part + 1}"
        parts.append(seen)
    assert sum(len(seen.messages) for seen in parts) == 30


@case()
async def a_group_may_be_taken_up_again_in_the_same_bus(harness: Harness) -> None:
    topic = harness.topic()
    first, second = Seen(), Seen()
    async with harness.open_bus() as bus:
        subscription = await bus.subscribe(topic, first, group="g")
        await publish_text(bus, topic, "abc")
        await first.wait(3)
        await subscription.close()
        await publish_text(bus, topic, "def")
        await bus.subscribe(topic, second, group="g")
        await second.wait(3)
    assert first.text == "abc"
    assert second.text == "def"


@case()
async def the_same_topic_and_group_twice_in_one_bus_is_refused(harness: Harness) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g")
        with raising(ConfigurationError, topic, "'g'"):
            await bus.subscribe(topic, seen, group="g")
        with raising(ConfigurationError, topic, "'g'"):
            async with bus.open_messages(topic, group="g"):
                pass
        await bus.subscribe(topic, seen, group="another")
        await bus.publish(topic, b"x")
        await seen.wait(2)


@case()
async def what_no_subscription_can_be_is_refused(harness: Harness) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus() as bus:
        with raising(ConfigurationError, "handler"):
            await bus.subscribe(topic, None)  # type: ignore[arg-type]  # to be refused
        with raising(ConfigurationError, "timeout"):
            await bus.subscribe(topic, seen, timeout=0)
        with raising(ConfigurationError, "concurrency"):
            await bus.subscribe(topic, seen, concurrency=-1)
        with raising(ConfigurationError, "max_in_flight"):
            await bus.subscribe(topic, seen, max_in_flight=-1)
        with raising(ConfigurationError, "order"):
            await bus.subscribe(topic, seen, order="random")  # type: ignore[arg-type]  # to be refused
        with raising(ConfigurationError, "dead_letter"):
            await bus.subscribe(topic, seen, dead_letter=topic)
        with raising(ConfigurationError, "a group"):
            await bus.subscribe(topic, seen, group="a group")
        assert topic not in await bus.list_topics()


@case()
async def a_topic_s_groups_are_listed_and_readers_without_a_group_are_none(
    harness: Harness,
) -> None:
    topic, other = harness.topic(), harness.topic()
    async with harness.open_bus() as bus:
        await bus.configure_topic(other)
        assert await bus.list_groups(topic) == []
        seen = Seen()
        await bus.subscribe(topic, seen, group="ship.eu")
        await bus.subscribe(topic, seen, group="bill", order="none")
        await bus.subscribe(topic, seen)
        assert await bus.list_groups(topic) == ["bill", "ship.eu"]
        assert await bus.list_groups(other) == []
    async with harness.open_bus() as bus:  # they stay when nobody is in them any more
        assert await bus.list_groups(topic) == ["bill", "ship.eu"]
