"""Dead letters are read without taking them, and go back as they were."""

from __future__ import annotations

from ..._bus import Bus
from ..._dead_letters import DeadLetter
from ..._errors import Reject
from ..._events import DeadLettered
from ..._message import Message, Position
from ..harness import Ability, Harness
from ._case import case
from ._kit import Seen, publish_text, watching


async def _reject(message: Message) -> None:
    raise Reject(f"not {message.body.decode()}")


async def _bury(bus: Bus, topic: str, text: str) -> None:
    """One dead letter of a group for every character, in order."""
    async with watching(bus) as watch:
        subscription = await bus.subscribe(topic, _reject, group="g")
        await publish_text(bus, topic, text)
        await watch.wait(DeadLettered, len(text))
        await subscription.close()


async def _letters(bus: Bus, topic: str, start: Position | None = None) -> list[DeadLetter]:
    async with bus.open_dead_letters(topic, start=start) as letters:
        return [letter async for letter in letters]


@case()
async def dead_letters_are_read_to_the_last_one_and_stay_where_they_are(harness: Harness) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus(source="tests") as bus:
        await _bury(bus, topic, "abc")
        found = await _letters(bus, topic)
        assert await _letters(bus, topic) == found
        await bus.subscribe(f"{topic}.dead", seen, group="undertaker")
        await seen.wait(3)
    assert seen.text == "abc"
    assert [letter.body for letter in found] == [b"a", b"b", b"c"]
    first = found[0]
    assert (first.topic, first.group, first.key, first.source) == (topic, "g", "k", "tests")
    assert (first.attempts, first.reason, first.error_type) == (1, "not a", "Reject")
    assert first.headers == ()
    assert "Reject: not a" in first.traceback
    assert [letter.position for letter in found] == sorted(letter.position for letter in found)
    assert first.first_failed is not None
    assert first.first_failed == first.last_failed


@case()
async def dead_letters_are_read_from_a_position_on(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        await _bury(bus, topic, "abcd")
        _, second, third, last = await _letters(bus, topic)
        assert await _letters(bus, topic, third.stored_at) == [third, last]
        after = Position(last.stored_at.partition, last.stored_at.offset + 1)
        assert await _letters(bus, topic, after) == []
        assert second.stored_at < third.stored_at


@case()
async def a_topic_without_dead_letters_has_none_and_none_is_made(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        assert await _letters(bus, topic) == []
        assert f"{topic}.dead" not in await bus.list_topics()


@case()
async def a_redriven_message_is_the_original_again_and_everybody_sees_that_it_went_back(
    harness: Harness,
) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus() as bus:
        await _bury(bus, topic, "ab")
        first, second = await _letters(bus, topic)
        done = await bus.redrive(second)
    async with harness.open_bus() as bus:
        assert [letter.redriven for letter in await _letters(bus, topic)] == [0, 1]
        await bus.subscribe(topic, seen, group="g")
        [message] = await seen.wait(1)
    assert (message.body, message.key, message.attempt) == (b"b", "k", 1)
    assert message.position == done.receipt.position
    assert dict(message.headers) == {
        "Tbus-Redriven-From": f"{topic}.dead {second.stored_at}",
        "Tbus-Redriven-Letter": second.id,
        "Tbus-Redriven-Group": "g",
        "Tbus-Redriven-Count": "1",
    }
    assert first.redriven == second.redriven == 0


@case(needs=Ability.DEDUPLICATE)
async def a_redrive_that_is_tried_again_is_stored_once(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        await _bury(bus, topic, "a")
        [letter] = await _letters(bus, topic)
        first, second = await bus.redrive(letter), await bus.redrive(letter)
        [letter] = await _letters(bus, topic)
        third = await bus.redrive(letter)
    assert (first.receipt.duplicate, second.receipt.duplicate) == (False, True)
    assert first.receipt.position == second.receipt.position
    assert letter.redriven == 1
    assert not third.receipt.duplicate
