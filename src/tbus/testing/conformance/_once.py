"""At most once, by choice; and messages that the broker delivers far too often."""

from __future__ import annotations

from ..._errors import Discard
from ..._events import DeadLettered, Discarded, NotHandled
from ..._message import Message
from ..harness import Ability, Harness
from ._case import case
from ._kit import Gate, Seen, publish_text, settle_down, watching


@case()
async def at_most_once_an_error_is_told_and_nothing_is_tried_again(harness: Harness) -> None:
    topic = harness.topic()
    runs: list[bytes] = []

    async def fail(message: Message) -> None:
        runs.append(message.body)
        if message.body == b"b":
            raise ValueError("no")
        if message.body == b"c":
            raise Discard("old")

    seen = Seen(fail)
    async with harness.open_bus() as bus, watching(bus) as watch:
        await bus.subscribe(topic, seen, group="g", delivery="at_most_once")
        await publish_text(bus, topic, "abcd")
        await seen.wait(2)
        event = await watch.wait(NotHandled)
        assert (await watch.wait(Discarded)).reason == "old"
        assert f"{topic}.dead" not in await bus.list_topics()
    assert runs == [b"a", b"b", b"c", b"d"]
    assert (event.topic, event.group, event.key) == (topic, "g", "k")
    assert event.error == "ValueError: no"
    async with harness.open_bus() as bus:
        assert (await bus.lag(topic, "g")).messages == 0


@case()
async def at_most_once_a_message_is_settled_while_its_handler_runs_and_not_before(
    harness: Harness,
) -> None:
    topic = harness.topic()
    gate = Gate()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, gate, group="g", delivery="at_most_once")
        await publish_text(bus, topic, "abc")
        await gate.wait(1)
        while (await bus.lag(topic, "g")).messages > 2:
            await bus.ping()
        await settle_down(bus)
        assert (await bus.lag(topic, "g")).messages == 2
        assert [message.body for message in gate.inside] == [b"a"]
        gate.open()


@case()
async def at_most_once_what_was_begun_is_not_handled_again_and_what_was_not_is_not_lost(
    harness: Harness,
) -> None:
    topic = harness.topic()
    gate, seen = Gate(), Seen()
    async with harness.open_bus(grace=0.05) as bus:
        await bus.subscribe(topic, gate, group="g", delivery="at_most_once")
        await publish_text(bus, topic, "abc")
        await gate.wait(1)
    assert not gate.inside
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g", delivery="at_most_once")
        await seen.wait(2)
        await settle_down(bus)
    assert seen.text == "bc"


@case(needs=Ability.COUNT_DELIVERIES)
async def what_the_broker_delivers_too_often_goes_to_the_dead_letters_without_a_run(
    harness: Harness,
) -> None:
    topic = harness.topic()
    seen = Seen()
    for delivery in range(2):
        gate = Gate()
        async with harness.open_bus(grace=0.05) as bus:
            await bus.subscribe(topic, gate, group="g", order="none", max_deliveries=2)
            if not delivery:
                await bus.publish(topic, b"a", key="k")
            await gate.wait(1)
    async with harness.open_bus() as bus, watching(bus) as watch:
        await bus.subscribe(topic, seen, group="g", order="none", max_deliveries=2)
        event = await watch.wait(DeadLettered)
        await bus.publish(topic, b"b", key="k")
        await seen.wait(1)
    assert seen.text == "b"
    assert event.attempts == 0
    assert "delivered it 3 times" in event.reason
    assert "max_deliveries is 2" in event.reason
