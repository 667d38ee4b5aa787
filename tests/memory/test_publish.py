"""Publishing to the memory broker: stored, refused, unknown, never sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus._errors import OutcomeUnknown, PublishRefused, TransportLost
from tbus._events import Connected, ConnectionLost, TopicMade
from tbus._message import Position, Receipt
from tbus._topic import TopicOptions
from tbus._transport import FeedRequest
from tests.memory.kit import Outbox, Recorder, bodies, finish, open_one, receive_count


async def test_an_event_is_stored_from_offset_1_on_and_its_topic_made() -> None:
    recorder = Recorder()
    async with open_one(recorder=recorder) as transport:
        outbox = Outbox(transport)
        outbox.send_all("ab")
        assert outbox.told == [
            ("a", Receipt("t", Position(0, 1))),
            ("b", Receipt("t", Position(0, 2))),
        ]
        assert recorder.of(TopicMade) == [TopicMade("t")]
        assert recorder.of(Connected) == [Connected("memory://")]


async def test_a_repeated_id_is_stored_once_within_the_window_and_again_after_it(
    autojump_clock: MockClock,
) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        outbox.send("a", event_id="one")
        await trio.sleep(100)
        outbox.send("a", event_id="one")
        await trio.sleep(19.9)
        outbox.send("a", event_id="one")
        await trio.sleep(0.1)
        outbox.send("a", event_id="one")
        assert [outcome for _, outcome in outbox.told] == [
            Receipt("t", Position(0, 1)),
            Receipt("t", Position(0, 1), True),
            Receipt("t", Position(0, 1), True),
            Receipt("t", Position(0, 2)),
        ]


async def test_one_key_stays_in_one_partition_and_no_key_goes_round() -> None:
    async with open_one() as transport:
        await transport.configure_topic("t", TopicOptions(partitions=4), "create_or_update")
        outbox = Outbox(transport)
        for number in range(40):
            outbox.send(f"{number}", f"key{number % 10}")
        feed = await transport.open_feed(FeedRequest("t"))
        places: dict[str | None, set[int]] = {}
        for delivery in await receive_count(feed, 40):
            places.setdefault(delivery.key, set()).add(delivery.position.partition)
            assert delivery.keyed
        assert all(len(partitions) == 1 for partitions in places.values())
        assert len(set.union(*places.values())) > 1
        outbox.told.clear()
        for number in range(40, 48):
            outbox.send(f"{number}", None)
        places_of_none = [told.position for _, told in outbox.told if isinstance(told, Receipt)]
        assert sorted(place.partition for place in places_of_none) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("options", [TopicOptions(max_messages=2), TopicOptions(max_bytes=4)])
async def test_a_full_topic_refuses_and_drops_nothing_until_age_makes_room(
    options: TopicOptions, autojump_clock: MockClock
) -> None:
    async with open_one() as transport:
        await transport.configure_topic("t", options, "create_or_update")
        outbox = Outbox(transport)
        outbox.send_all("abc")
        assert isinstance(outbox.outcome("c"), PublishRefused)
        feed = await transport.open_feed(FeedRequest("t", group="g"))
        got = await receive_count(feed, 2)
        assert bodies(got) == "ab"
        finish(feed, got)
        outbox.send("d")
        assert isinstance(outbox.outcome("d"), PublishRefused)
        assert options.retention_time is not None
        await trio.sleep(options.retention_time + 0.001)
        outbox.send("e")
        assert outbox.outcome("e") == Receipt("t", Position(0, 3))
        assert bodies(await feed.receive()) == "e"


async def test_the_brokers_limits_hold_for_topics_that_set_none() -> None:
    async with open_one(max_messages=1) as transport:
        await transport.configure_topic("own", TopicOptions(max_messages=2), "create_or_update")
        outbox = Outbox(transport)
        for topic in ("t", "own"):
            for number in range(3):
                outbox.send(f"{topic}{number}", topic=topic)
        refused = [name for name, outcome in outbox.told if isinstance(outcome, PublishRefused)]
        assert refused == ["t1", "t2", "own2"]
        assert "max_messages=1" in str(outbox.outcome("t1"))


async def test_publishes_are_refused_for_the_time_asked(autojump_clock: MockClock) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        transport.faults.refuse_publishes(5.0)
        outbox.send("a")
        await trio.sleep(5.0)
        outbox.send("b")
        assert isinstance(outbox.outcome("a"), PublishRefused)
        assert outbox.outcome("b") == Receipt("t", Position(0, 1))


@pytest.mark.parametrize("stored", [True, False])
async def test_a_lost_outcome_is_unknown_at_its_timeout_whether_stored_or_not(
    stored: bool, autojump_clock: MockClock
) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        transport.faults.lose_outcomes(1, stored=stored)
        begun = trio.current_time()
        outbox.send("a", timeout=3.0)
        outbox.send("b")
        await transport.flush()
        assert trio.current_time() - begun == 3.0
        unknown = outbox.outcome("a")
        assert isinstance(unknown, OutcomeUnknown)
        assert unknown.event_id == "a"
        outbox.told.clear()
        outbox.send("a")
        assert outbox.outcome("a") == (
            Receipt("t", Position(0, 1), True) if stored else Receipt("t", Position(0, 2))
        )


async def test_what_waits_for_a_broken_connection_is_sent_in_order_before_anything_new(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    async with open_one(recorder=recorder) as transport:
        outbox = Outbox(transport)
        feed = await transport.open_feed(FeedRequest("t", group="g"))
        transport.faults.disconnect(2.0)
        assert not transport.is_connected()
        outbox.send("a")
        outbox.send("x", timeout=1.0)
        outbox.send("y").withdrawn = True
        outbox.send("b")
        assert outbox.told == []
        await transport.flush()
        assert transport.is_connected()
        outbox.send("c")
        assert isinstance(outbox.outcome("x"), TransportLost)
        assert isinstance(outbox.outcome("y"), TransportLost)
        assert bodies(await receive_count(feed, 3)) == "abc"
        assert len(recorder.of(ConnectionLost)) == 1
        assert len(recorder.of(Connected)) == 2


async def test_what_was_sent_after_a_reconnect_and_not_answered_is_unknown(
    autojump_clock: MockClock,
) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        transport.faults.lose_outcomes()
        transport.faults.disconnect(1.0)
        begun = trio.current_time()
        outbox.send("a", timeout=3.0)
        await transport.flush()
        assert trio.current_time() - begun == 3.0
        assert isinstance(outbox.outcome("a"), OutcomeUnknown)


async def test_a_silent_broker_stores_what_it_was_sent_when_it_wakes(
    autojump_clock: MockClock,
) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        transport.faults.suspend(5.0)
        outbox.send("a", timeout=1.0)
        outbox.send("b")
        await trio.sleep(1.5)
        assert isinstance(outbox.outcome("a"), OutcomeUnknown)
        assert await transport.ping() == 3.5
        assert outbox.outcome("b") == Receipt("t", Position(0, 2))


@pytest.mark.parametrize("sent", [True, False])
async def test_abandoned_events_get_the_outcome_that_is_true(sent: bool) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        if sent:
            transport.faults.suspend()
        else:
            transport.faults.disconnect()
        outbox.send("a")
        transport.abandon()
        assert isinstance(outbox.outcome("a"), OutcomeUnknown if sent else TransportLost)


async def test_closing_gives_every_event_its_outcome_and_refuses_late_ones() -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        transport.faults.disconnect()
        outbox.send("a")
    outbox.send("b")
    assert isinstance(outbox.outcome("a"), TransportLost)
    assert isinstance(outbox.outcome("b"), TransportLost)
    with pytest.raises(TransportLost):
        await transport.ping()


async def test_a_delay_holds_outcomes_and_deliveries_in_order(autojump_clock: MockClock) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        feed = await transport.open_feed(FeedRequest("t", group="g"))
        transport.faults.delay(0.3)
        begun = trio.current_time()
        outbox.send_all("ab")
        assert outbox.told == []
        assert bodies(await receive_count(feed, 2)) == "ab"
        assert trio.current_time() - begun == pytest.approx(0.3)
        await transport.flush()
        assert [told for told, _ in outbox.told] == ["a", "b"]
        assert await transport.ping() == pytest.approx(0.3)
        transport.faults.restore()
        outbox.send("c")
        assert bodies(await feed.receive()) == "c"


async def test_timestamps_pass_as_the_virtual_clock_does(autojump_clock: MockClock) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        feed = await transport.open_feed(FeedRequest("t"))
        outbox.send("a")
        await trio.sleep(86_400 * 3)
        outbox.send("b")
        first, second = await receive_count(feed, 2)
        assert second.timestamp - first.timestamp == pytest.approx(86_400 * 3)
        since = datetime.fromtimestamp(first.timestamp, UTC) + timedelta(days=1)
        late = await transport.open_feed(FeedRequest("t", group="late", start=since))
        assert bodies(await late.receive()) == "b"


async def test_an_idle_transport_has_one_task_and_no_deadline() -> None:
    async with open_one() as transport:
        await transport.open_feed(FeedRequest("t", group="g"))
        await wait_all_tasks_blocked()
        (holding,) = transport.holdings()
        assert (holding.kind, holding.waits_for) == ("task", "nothing")
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")
