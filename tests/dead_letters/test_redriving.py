"""A redriven letter is the original again, and everybody can see that it went back."""

from __future__ import annotations

from typing import cast

import attrs
import pytest
import trio
from trio.testing import MockClock

from tbus import (
    BusClosed,
    ConfigurationError,
    DeadLetter,
    Envelope,
    InvalidTopic,
    OutcomeUnknown,
    PublishRefused,
    TopicOptions,
    open_bus,
)
from tbus._bus import Bus
from tbus.testing import Harness
from tbus.testing.conformance._kit import Seen
from tbus.transports.memory import MemoryTransport

from .kit import bury, reject
from .test_reading import letters_of


async def only_letter(bus: Bus, topic: str) -> DeadLetter:
    [letter] = await letters_of(bus, topic)
    return letter


async def test_the_original_is_published_again_with_its_key_and_headers(broker: Harness) -> None:
    topic = broker.topic()
    seen = Seen()
    async with broker.open_bus() as bus:
        await bury(bus, topic, "a")
        letter = await only_letter(bus, topic)
        done = await bus.redrive(letter)
        await bus.subscribe(topic, seen, group="g")
        [message] = await seen.wait(1)
    assert (message.body, message.key, message.attempt) == (b"a", "k", 1)
    assert message.headers == (
        ("A", "1"),
        ("A", "a"),
        ("Tbus-Redriven-From", f"{topic}.dead {letter.stored_at}"),
        ("Tbus-Redriven-Letter", letter.id),
        ("Tbus-Redriven-Group", "g"),
        ("Tbus-Redriven-Count", "1"),
    )
    assert done.letter == letter.id
    assert (done.receipt.topic, done.receipt.position) == (topic, message.position)
    assert not done.receipt.duplicate


async def test_an_event_is_redriven_within_the_window_in_which_its_own_id_is_discarded(
    broker: Harness,
) -> None:
    topic = broker.topic()
    event = Envelope.new("order-1", "OrderPlaced", {"total": 42})
    seen = Seen()
    async with broker.open_bus() as bus:
        subscription = await bus.subscribe(topic, reject, group="g")
        await bus.publish(topic, event)
        letters: list[DeadLetter] = []
        while not letters:
            letters = await letters_of(bus, topic)
        await subscription.close()
        await bus.redrive(letters[0])
        await bus.subscribe(topic, seen, group="g")
        [message] = await seen.wait(1)
    assert message.envelope == event
    assert message.key == "order-1"


async def test_what_was_redriven_is_seen_by_whoever_reads_the_letter_next(
    broker: Harness,
) -> None:
    topic = broker.topic()
    async with broker.open_bus() as bus:
        await bury(bus, topic, "ab")
        first, second = await letters_of(bus, topic)
        await bus.redrive(second)
    async with broker.open_bus() as bus:
        found = await letters_of(bus, topic)
    assert [letter.redriven for letter in found] == [0, 1]
    assert found[0] == first
    assert found[1].last_redriven is not None
    assert found[1].last_redriven >= second.stored
    assert attrs.evolve(found[1], redriven=0, last_redriven=None) == second


async def test_redriving_one_reading_of_a_letter_twice_stores_it_once(broker: Harness) -> None:
    topic = broker.topic()
    async with broker.open_bus() as bus:
        await bury(bus, topic, "a")
        letter = await only_letter(bus, topic)
        first, second = await bus.redrive(letter), await bus.redrive(letter)
        assert (await only_letter(bus, topic)).redriven == 1
    assert (first.receipt.duplicate, second.receipt.duplicate) == (False, True)
    assert first.receipt.position == second.receipt.position
    assert first.event_id == second.event_id


async def test_a_letter_that_is_read_again_can_be_redriven_once_more(broker: Harness) -> None:
    topic = broker.topic()
    async with broker.open_bus() as bus:
        await bury(bus, topic, "a")
        first = await bus.redrive(await only_letter(bus, topic))
        second = await bus.redrive(await only_letter(bus, topic))
        assert (await only_letter(bus, topic)).redriven == 2
    assert not second.receipt.duplicate
    assert second.receipt.position > first.receipt.position


async def test_what_fails_again_is_another_letter_that_counts(broker: Harness) -> None:
    topic = broker.topic()
    seen = Seen()
    async with broker.open_bus() as bus:
        await bury(bus, topic, "a")
        await bus.redrive(await only_letter(bus, topic))
        subscription = await bus.subscribe(topic, reject, group="g")
        found: list[DeadLetter] = []
        while len(found) < 2:
            found = await letters_of(bus, topic)
        await subscription.close()
        assert [letter.redriven for letter in found] == [1, 0]
        assert found[1].position > found[0].position
        await bus.redrive(found[1])
        await bus.subscribe(topic, seen, group="g")
        [message] = await seen.wait(1)
    headers = dict(message.headers)
    assert headers["Tbus-Redriven-Count"] == "2"
    assert headers["Tbus-Redriven-Letter"] == found[1].id


async def test_a_letter_can_be_redriven_to_another_topic(broker: Harness) -> None:
    topic, other = broker.topic(), broker.topic()
    async with broker.open_bus() as bus:
        await bury(bus, topic, "a")
        done = await bus.redrive(await only_letter(bus, topic), to=other)
        assert done.receipt.topic == other
        assert (await only_letter(bus, topic)).redriven == 1


async def test_records_are_kept_as_long_as_letters_are(broker: Harness) -> None:
    topic = broker.topic()
    options = TopicOptions(retention_time=3600.0, storage="memory", max_messages=2)
    async with broker.open_bus() as bus:
        await bus.configure_topic(f"{topic}.dead", options)
        await bury(bus, topic, "a")
        await bus.redrive(await only_letter(bus, topic))
        records = await bus.get_topic(f"{topic}.dead.redriven")
    assert records is not None
    assert records.retention_time == 3600.0
    assert records.max_messages is None


async def test_a_redrive_whose_outcome_was_lost_is_stored_once_when_it_is_tried_again(
    autojump_clock: MockClock,
) -> None:
    async with open_bus() as bus:
        await bury(bus, "t", "a")
        letter = await only_letter(bus, "t")
        cast("MemoryTransport", bus.transport).faults.lose_outcomes(1, stored=True)
        with pytest.raises(OutcomeUnknown):
            await bus.redrive(letter)
        assert (await only_letter(bus, "t")).redriven == 0
        assert (await bus.redrive(letter)).receipt.duplicate
        assert (await only_letter(bus, "t")).redriven == 1


async def test_a_redrive_that_is_not_on_record_has_not_succeeded(
    autojump_clock: MockClock,
) -> None:
    async with open_bus() as bus:
        await bury(bus, "t", "a")
        letter = await only_letter(bus, "t")
        await bus.configure_topic("t.dead.redriven", TopicOptions(max_bytes=1))
        with pytest.raises(PublishRefused):
            await bus.redrive(letter)
        await bus.configure_topic("t.dead.redriven", TopicOptions())
        assert (await bus.redrive(letter)).receipt.duplicate
        assert (await only_letter(bus, "t")).redriven == 1


async def test_what_cannot_be_redriven_is_refused(autojump_clock: MockClock) -> None:
    async with open_bus() as bus:
        await bury(bus, "t", "a")
        letter = await only_letter(bus, "t")
        with pytest.raises(ConfigurationError, match="letter"):
            await bus.redrive(cast("DeadLetter", letter.id))
        with pytest.raises(InvalidTopic, match="to day"):
            await bus.redrive(letter, to="to day")
    with pytest.raises(BusClosed):
        await bus.redrive(letter)


async def test_a_redrive_that_is_cancelled_leaves_nothing_waiting(
    autojump_clock: MockClock,
) -> None:
    async with open_bus() as bus:
        await bury(bus, "t", "a")
        letter = await only_letter(bus, "t")
        faults = cast("MemoryTransport", bus.transport).faults
        faults.disconnect()
        with trio.move_on_after(1.0):
            await bus.redrive(letter)
        faults.restore()
        assert (await bus.redrive(letter)).event_id.endswith("-1")
