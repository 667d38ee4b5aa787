"""Dead letters are read without taking anything, to the end, and no further."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from tbus import (
    BusClosed,
    ConfigurationError,
    DeadLetter,
    InvalidTopic,
    Position,
    TopicOptions,
    TransportLost,
    open_bus,
)
from tbus._bus import Bus
from tbus._stored import AT_ONCE
from tbus.testing import Harness
from tbus.testing.conformance._kit import Seen
from tbus.transports.memory import MemoryTransport
from tests.brokers.harness import ask
from tests.brokers.nats import NatsServer

from .kit import bury


def faults(bus: Bus) -> Any:
    return cast("MemoryTransport", bus.transport).faults


async def letters_of(bus: Bus, topic: str, **options: Any) -> list[DeadLetter]:
    async with bus.open_dead_letters(topic, **options) as letters:
        return [letter async for letter in letters]


async def test_all_letters_of_a_topic_come_oldest_first_with_their_originals(
    broker: Harness,
) -> None:
    topic = broker.topic()
    async with broker.open_bus(source="tests") as bus:
        await bury(bus, topic, "abc")
        found = await letters_of(bus, topic)
    assert [letter.body for letter in found] == [b"a", b"b", b"c"]
    first = found[0]
    assert (first.topic, first.group, first.key) == (topic, "g", "k")
    assert first.headers == (("A", "1"), ("A", "a"))
    assert (first.attempts, first.reason, first.error_type) == (1, "a", "Reject")
    assert (first.source, first.stored_in) == ("tests", f"{topic}.dead")
    assert first.position < found[1].position
    assert first.stored_at < found[1].stored_at
    assert "Reject: a" in first.traceback
    assert first.timestamp <= first.stored
    assert (first.redriven, first.last_redriven) == (0, None)


async def test_a_topic_without_letters_has_none_and_nothing_is_made(broker: Harness) -> None:
    topic = broker.topic()
    async with broker.open_bus() as bus:
        assert await letters_of(bus, topic) == []
        assert not [name for name in await bus.list_topics() if name.startswith(topic)]


async def test_reading_takes_nothing_and_leaves_nothing(broker: Harness) -> None:
    topic = broker.topic()
    seen = Seen()
    async with broker.open_bus() as bus:
        await bury(bus, topic, "abc")
        assert await letters_of(bus, topic) == await letters_of(bus, topic)
        await bus.subscribe(f"{topic}.dead", seen, group="undertaker")
        await seen.wait(3)
    assert seen.text == "abc"


async def test_more_letters_than_are_taken_at_once_are_read_to_the_end(broker: Harness) -> None:
    topic = broker.topic()
    bodies = [str(number) for number in range(600)]
    async with broker.open_bus() as bus:
        await bury(bus, topic, bodies)
        found = await letters_of(bus, topic)
    assert [letter.body.decode() for letter in found] == bodies


async def test_what_comes_while_somebody_reads_is_left_out(broker: Harness) -> None:
    topic = broker.topic()
    async with broker.open_bus() as bus:
        await bury(bus, topic, "ab")
        async with bus.open_dead_letters(topic) as letters:
            await bury(bus, topic, "c")
            assert [letter.body async for letter in letters] == [b"a", b"b"]


async def test_reading_can_stop_early_and_go_on_from_a_position(broker: Harness) -> None:
    topic = broker.topic()
    async with broker.open_bus() as bus:
        await bury(bus, topic, "abcd")
        async with bus.open_dead_letters(topic) as letters:
            await anext(letters)
            second = await anext(letters)
        after = Position(second.stored_at.partition, second.stored_at.offset + 1)
        rest = await letters_of(bus, topic, start=after)
        beyond = Position(0, rest[-1].stored_at.offset + 1)
        assert await letters_of(bus, topic, start=beyond) == []
    assert [letter.body for letter in rest] == [b"c", b"d"]


async def test_only_letters_of_the_topic_and_group_come_whatever_else_is_stored_there(
    broker: Harness,
) -> None:
    one, other, dead = broker.topic(), broker.topic(), broker.topic()
    async with broker.open_bus() as bus:
        await bury(bus, one, "a", dead_letter=dead)
        await bury(bus, other, "b", dead_letter=dead)
        await bus.publish(dead, b"no letter")
        await bury(bus, one, "c", group="h", dead_letter=dead)  # it has a from the beginning
        ones = await letters_of(bus, one, dead_letter=dead)
        assert [(letter.group, letter.body) for letter in ones][:2] == [("g", b"a"), ("h", b"a")]
        ones = await letters_of(bus, one, dead_letter=dead, group="g")
        assert [(letter.group, letter.body) for letter in ones] == [("g", b"a")]
        assert await letters_of(bus, one, group="another", dead_letter=dead) == []
        others = await letters_of(bus, other, group="g", dead_letter=dead)
    assert [letter.body for letter in others] == [b"b"]


async def test_a_letter_that_was_stored_twice_comes_once(broker: Harness) -> None:
    topic = broker.topic()
    async with broker.open_bus() as bus:
        await bury(bus, topic, "a")
        [letter] = await letters_of(bus, topic)
        # As it stands there, once more, with an id that the broker does not know.
        again = Seen()
        subscription = await bus.subscribe(f"{topic}.dead", again, start="earliest")
        [stored] = await again.wait(1)
        await subscription.close()
        await bus.publish(f"{topic}.dead", stored.body, key="k", headers=stored.headers)
        assert await letters_of(bus, topic) == [letter]


async def test_a_broker_that_falls_silent_is_not_waited_for_without_end(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbus._stored.AT_ONCE", 1)
    async with open_bus(grace=0) as bus:
        await bury(bus, "t", "abc")
        for break_it in (faults(bus).cut_feeds, lambda _: faults(bus).suspend()):
            async with bus.open_dead_letters("t") as letters:
                await anext(letters)
                break_it(None)
                before = trio.current_time()
                with pytest.raises(TransportLost, match=r"'t\.dead' was not read to its end"):
                    await anext(letters)
                assert trio.current_time() - before <= 20.0
            faults(bus).restore()


async def test_letters_that_retention_takes_meanwhile_are_not_waited_for(
    mock_clock: MockClock,
) -> None:
    async with open_bus() as bus:
        await bus.configure_topic("t.dead", TopicOptions(retention_time=10.0))
        await bury(bus, "t", "abc")
        async with bus.open_dead_letters("t") as letters:
            mock_clock.jump(11.0)
            assert [letter async for letter in letters] == []


async def test_letters_that_retention_takes_before_others_are_left_out(
    mock_clock: MockClock,
) -> None:
    async with open_bus() as bus:
        await bus.configure_topic("t.dead", TopicOptions(retention_time=10.0))
        await bury(bus, "t", "a")
        mock_clock.jump(6.0)
        await bury(bus, "t", "b")
        async with bus.open_dead_letters("t") as letters:
            mock_clock.jump(6.0)
            assert [letter.body async for letter in letters] == [b"b"]
        assert [letter.body for letter in await letters_of(bus, "t", start=Position(0, 1))] == [
            b"b"
        ]


@pytest.mark.broker
async def test_letters_that_somebody_deleted_are_left_out(
    shared_nats_server: NatsServer, topic: str
) -> None:
    stream = f"{topic}=dead"
    async with open_bus(shared_nats_server.url) as bus:
        await bury(bus, topic, "abcdef")
        for sequence in (1, 3, 4, 6):
            deleted = ask(
                shared_nats_server, f"$JS.API.STREAM.MSG.DELETE.{stream}", {"seq": sequence}
            )
            assert deleted["success"]
        assert [letter.body for letter in await letters_of(bus, topic)] == [b"b", b"e"]
        assert [letter.body for letter in await letters_of(bus, topic, start=Position(0, 3))] == [
            b"e"
        ]


@pytest.mark.broker
async def test_letters_that_a_server_removed_meanwhile_are_not_waited_for(
    shared_nats_server: NatsServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbus._stored.QUIET", 0.2)
    async with open_bus(shared_nats_server.url) as bus:
        await bury(bus, topic, [str(number) for number in range(AT_ONCE + 10)])
        async with bus.open_dead_letters(topic) as letters:
            await anext(letters)
            # What is on its way comes all the same; what was not asked for is gone.
            assert ask(shared_nats_server, f"$JS.API.STREAM.PURGE.{topic}=dead")["success"]
            assert len([letter async for letter in letters]) < AT_ONCE + 9


async def test_reading_ends_with_the_bus(broker: Harness) -> None:
    topic = broker.topic()
    async with broker.open_bus() as bus:
        await bury(bus, topic, "a")
    with pytest.raises(BusClosed):
        await letters_of(bus, topic)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"topic": "no topic"}, InvalidTopic),
        ({"group": "no group"}, InvalidTopic),
        ({"dead_letter": "t"}, ConfigurationError),
        ({"dead_letter": None}, ConfigurationError),
        ({"start": "latest"}, ConfigurationError),
    ],
)
async def test_what_cannot_be_read_is_refused_by_name(
    options: dict[str, Any], kind: type[Exception]
) -> None:
    async with open_bus() as bus:
        with pytest.raises(kind, match=next(iter(options))):
            await letters_of(bus, **{"topic": "t", **options})
