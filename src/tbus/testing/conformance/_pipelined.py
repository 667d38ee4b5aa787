"""The pipelined publisher: order, outcomes, failures."""

from __future__ import annotations

import anyio

from ..._errors import BusClosed, PublishFailed, PublishRefused
from ..._message import PublishOutcome
from ..._topic import TopicOptions
from ..harness import Ability, Harness
from ._case import case
from ._kit import Seen, raising


@case()
async def what_one_publisher_sends_is_stored_in_that_order(harness: Harness) -> None:
    topic = harness.topic()
    bodies = [str(number).encode() for number in range(500)]
    seen = Seen()
    async with harness.open_bus() as bus:
        async with bus.open_publisher(max_in_flight=100) as publisher:
            for body in bodies:
                await publisher.send(topic, body, key="k")
        await bus.subscribe(topic, seen, group="g")
        await seen.wait(500)
    assert seen.bodies == bodies


@case()
async def leaving_waits_for_every_outcome(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        async with bus.open_publisher() as publisher:
            for _ in range(300):
                await publisher.send(topic, b"")
        statistics = publisher.statistics()
    assert (statistics.sent, statistics.stored, statistics.in_flight) == (300, 300, 0)


@case()
async def no_more_events_than_allowed_are_without_an_outcome(harness: Harness) -> None:
    topic = harness.topic()
    peak = 0
    async with harness.open_bus() as bus, bus.open_publisher(max_in_flight=7) as publisher:
        for _ in range(100):
            await publisher.send(topic, b"")
            peak = max(peak, publisher.statistics().in_flight)
    assert peak <= 7


@case()
async def every_outcome_is_told_to_who_asks(harness: Harness) -> None:
    topic = harness.topic()
    told: list[PublishOutcome] = []
    sent: list[str] = []
    async with (
        harness.open_bus() as bus,
        anyio.create_task_group() as tasks,
        bus.open_publisher() as publisher,
    ):
        outcomes = publisher.outcomes

        async def read() -> None:
            told.extend([outcome async for outcome in outcomes])

        tasks.start_soon(read)
        sent.extend([await publisher.send(topic, b"", id=f"id-{number}") for number in range(50)])
    assert sorted(outcome.event_id for outcome in told) == sorted(sent)
    assert all(outcome.success and outcome.topic == topic for outcome in told)


@case(needs=Ability.FILL)
async def leaving_with_failures_that_nobody_has_read_raises_them(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        await bus.configure_topic(topic, TopicOptions(max_messages=2))
        with raising(PublishFailed, "2 events", topic) as raised:
            async with bus.open_publisher() as publisher:
                for number in range(4):
                    await publisher.send(topic, b"", id=f"id-{number}")
        outcomes = raised.error.outcomes
        assert [outcome.event_id for outcome in outcomes] == ["id-2", "id-3"]
        assert all(isinstance(outcome.error, PublishRefused) for outcome in outcomes)
        statistics = publisher.statistics()
        assert (statistics.stored, statistics.failed) == (2, 2)


@case(needs=Ability.FILL)
async def failures_that_were_read_are_not_raised(harness: Harness) -> None:
    topic = harness.topic()
    errors = []
    async with harness.open_bus() as bus:
        await bus.configure_topic(topic, TopicOptions(max_messages=1))
        await bus.publish(topic, b"")
        async with bus.open_publisher() as publisher:
            await publisher.send(topic, b"")
            async for outcome in publisher.outcomes:
                errors.append(outcome.error)
                break
    assert [type(error) for error in errors] == [PublishRefused]


@case(needs=Ability.FILL)
async def a_send_raises_when_too_many_failures_wait_unread(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        await bus.configure_topic(topic, TopicOptions(max_messages=1))
        await bus.publish(topic, b"")
        sent = 0
        with raising(PublishFailed) as raised:
            async with bus.open_publisher(max_in_flight=5) as publisher:
                while True:
                    await publisher.send(topic, b"")
                    sent += 1
        # What was on its way when the call raised failed later, and is told as a note.
        assert 5 <= sent < 20
        assert len(raised.error.outcomes) >= 5


@case(needs=Ability.FILL)
async def an_exception_from_the_block_leaves_as_itself_and_says_that_events_failed(
    harness: Harness,
) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        await bus.configure_topic(topic, TopicOptions(max_messages=1))
        await bus.publish(topic, b"")
        with raising(KeyError) as raised:
            async with bus.open_publisher() as publisher:
                await publisher.send(topic, b"")
                raise KeyError("mine")
        assert "1 events" in raised.error.__notes__[0]


@case()
async def a_publisher_that_was_left_takes_nothing_more(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        async with bus.open_publisher() as publisher:
            pass
        with raising(BusClosed, "publisher"):
            await publisher.send(topic, b"")


@case(needs=Ability.SUSPEND)
async def leaving_that_is_cancelled_waits_for_nothing(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus(grace=0.2) as bus:
        await bus.publish(topic, b"")
        await harness.suspend()
        with anyio.move_on_after(0.05) as scope:
            async with bus.open_publisher() as publisher:
                await publisher.send(topic, b"")
        assert scope.cancelled_caught
        await harness.resume()
