"""Lifecycle events: every reader gets every one, or is told how many it missed, and where."""

# An async test that awaits nothing runs in the loop that it asks about.
# flake8: noqa: ASYNC124
from __future__ import annotations

import logging

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tbus._event_stream import EventHub, EventReader
from tbus._events import ConnectionLost, Event, EventsMissed, NotHandled, TopicMade


def event(number: int) -> Event:
    return TopicMade(f"t{number}")


async def read_all(reader: EventReader) -> list[Event]:
    return [found async for found in reader]


async def test_every_reader_gets_every_event_in_order() -> None:
    hub = EventHub()
    with hub.open(10) as one, hub.open(10) as other:
        for number in range(5):
            hub.emit(event(number))
        hub.end()
        expected = [event(number) for number in range(5)]
        assert await read_all(one) == expected
        assert await read_all(other) == expected


async def test_a_reader_waits_for_what_happens_next() -> None:
    hub = EventHub()
    seen: list[Event] = []
    with hub.open(10) as reader:
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                seen.append(await anext(reader))

            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            hub.emit(event(1))
    assert seen == [event(1)]


async def test_a_slow_reader_is_told_how_many_it_missed_where_they_are_missing() -> None:
    hub = EventHub()
    with hub.open(3) as reader:
        for number in range(10):
            hub.emit(event(number))
        assert [await anext(reader) for _ in range(3)] == [event(0), event(1), event(2)]
        hub.emit(event(10))
        hub.end()
        assert await read_all(reader) == [EventsMissed(7), event(10)]


async def test_what_was_missed_at_the_very_end_is_told_too() -> None:
    hub = EventHub()
    with hub.open(1) as reader:
        for number in range(4):
            hub.emit(event(number))
        hub.end()
        assert await read_all(reader) == [event(0), EventsMissed(3)]


@given(st.integers(1, 4), st.lists(st.booleans(), max_size=40))
def test_events_and_missed_ones_add_up_whatever_the_reader_does(
    buffer: int, steps: list[bool]
) -> None:
    async def run() -> list[Event]:
        hub = EventHub()
        seen: list[Event] = []
        waiting = 0
        with hub.open(buffer) as reader:
            for number, reads in enumerate(steps):
                hub.emit(event(number))
                waiting = reader._receive.statistics().current_buffer_used
                if reads and waiting:
                    seen.append(await anext(reader))
            hub.end()
            seen += await read_all(reader)
        return seen

    expected = 0
    for found in trio.run(run):
        if isinstance(found, EventsMissed):
            assert found.count > 0
            expected += found.count
        else:
            assert found == event(expected)
            expected += 1
    assert expected == len(steps)


async def test_a_slow_reader_holds_up_neither_the_bus_nor_another_reader() -> None:
    hub = EventHub()
    with hub.open(1), hub.open(100) as quick:
        for number in range(50):
            hub.emit(event(number))
        hub.end()
        assert len(await read_all(quick)) == 50


async def test_a_reader_that_has_left_is_told_nothing() -> None:
    hub = EventHub()
    with hub.open(10) as reader:
        pass
    hub.emit(event(1))
    assert hub._readers == []
    assert await read_all(reader) == []


async def test_a_reader_that_comes_after_the_end_finds_the_end() -> None:
    hub = EventHub()
    hub.end()
    with hub.open(10) as reader:
        assert await read_all(reader) == []


async def test_an_event_after_the_end_is_nobodys_and_no_error() -> None:
    hub = EventHub()
    with hub.open(10) as reader:
        hub.end()
        hub.emit(event(1))
        with hub.open(10) as late:
            hub.emit(event(2))
            assert await read_all(late) == []
        assert await read_all(reader) == []


async def test_waiting_for_an_event_can_be_cancelled_and_loses_none() -> None:
    hub = EventHub()
    with hub.open(10) as reader:
        with trio.CancelScope() as scope:
            scope.cancel()
            hub.emit(event(1))
            await anext(reader)
        assert scope.cancelled_caught
        assert await anext(reader) == event(1)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of what is in the log."""
    return [(record.levelname, record.getMessage()) for record in caplog.records]


LOST = ConnectionLost("nats://somewhere", "reset")
LOST_TEXT = "ConnectionLost(address='nats://somewhere', reason='reset')"


async def test_every_event_is_in_the_log_for_whoever_wants_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "tbus.events"):
        EventHub().emit(event(1))
    assert told(caplog) == [("DEBUG", "TopicMade(topic='t1', again=False)")]


async def test_trouble_is_a_warning_unless_somebody_reads_the_events(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = EventHub()
    with caplog.at_level(logging.DEBUG, "tbus.events"):
        with hub.open(10) as reader:
            hub.emit(LOST)
            assert await anext(reader) == LOST
        hub.emit(LOST)
    assert told(caplog) == [("DEBUG", LOST_TEXT), ("WARNING", LOST_TEXT)]


async def test_of_trouble_that_goes_on_there_is_a_warning_a_second_and_how_much_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = EventHub(iter([0.0, 0.1, 0.9, 1.0, 1.5, 1.5]).__next__)
    with caplog.at_level(logging.WARNING, "tbus.events"):
        for _ in range(5):
            hub.emit(LOST)
        hub.emit(NotHandled("t", "g", "k", "0:1", "ValueError"))
        hub.end()
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("tbus.events.ConnectionLost", LOST_TEXT),
        ("tbus.events.ConnectionLost", f"{LOST_TEXT}, and 2 more before"),
        ("tbus.events.NotHandled", str(NotHandled("t", "g", "k", "0:1", "ValueError"))),
        ("tbus.events.ConnectionLost", "ConnectionLost: 1 more in the end"),
    ]
