"""Feeds of the memory broker: order, credit, cursors, ownership, cuts, losses."""

from __future__ import annotations

from datetime import datetime

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus._errors import ConfigurationError, ConsumerGone, MessagesLost
from tbus._events import FeedReset, RetentionTook
from tbus._message import Position
from tbus._topic import TopicOptions
from tbus._transport import EndOfFeed, Feed, FeedRequest, Start, Verdict
from tbus.transports.memory import MemoryTransport
from tests.memory.kit import Outbox, Recorder, bodies, finish, open_one, receive_count


async def is_quiet(feed: Feed) -> bool:
    """Whether the feed has nothing to hand over now."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                await feed.receive()
                nursery.cancel_scope.cancel()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            scope.cancel()
    return scope.cancelled_caught


async def open_owner(transport: MemoryTransport, **options: float) -> Feed:
    return await transport.open_feed(FeedRequest("t", group="g", **options))  # type: ignore[arg-type]


async def test_a_burst_comes_as_one_batch_in_order() -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        feed = await open_owner(transport)
        async with trio.open_nursery() as nursery:
            batches: list[str] = []

            async def receive() -> None:
                batches.append(bodies(await feed.receive()))

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            outbox.send_all("abcde")
        assert batches == ["abcde"]


async def test_a_cancelled_receive_takes_nothing() -> None:
    async with open_one() as transport:
        feed = await open_owner(transport)
        assert await is_quiet(feed)
        Outbox(transport).send("a")
        with trio.CancelScope() as scope:
            scope.cancel()
            await feed.receive()
        assert scope.cancelled_caught
        assert bodies(await feed.receive()) == "a"


async def test_no_more_messages_are_handed_over_than_the_credit_allows() -> None:
    async with open_one() as transport:
        Outbox(transport).send_all("abcdef")
        feed = await open_owner(transport, max_in_flight=2)
        first = await receive_count(feed, 2)
        assert await is_quiet(feed)
        feed.settle(first[1], Verdict.DONE)
        assert bodies(await feed.receive()) == "c"
        assert await is_quiet(feed)


async def test_a_settlement_wakes_a_feed_that_waits_for_credit() -> None:
    async with open_one() as transport:
        Outbox(transport).send_all("ab")
        feed = await open_owner(transport, max_in_flight=1)
        first = await feed.receive()
        async with trio.open_nursery() as nursery:
            got: list[str] = []

            async def receive() -> None:
                got.append(bodies(await feed.receive()))

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            finish(feed, first)
        assert got == ["b"]


async def test_bytes_bound_the_credit_and_one_large_message_may_exceed_it() -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        for body in ("x" * 50, "y" * 3, "z" * 3, "w" * 3):
            outbox.send(body, None)
        feed = await open_owner(transport, max_in_flight_bytes=6)
        large = await receive_count(feed, 1)
        assert await is_quiet(feed)
        finish(feed, large)
        assert bodies(await receive_count(feed, 2)) == "yyyzzz"
        assert await is_quiet(feed)


async def test_a_group_goes_on_where_it_settled_and_skips_what_was_done_beyond() -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        outbox.send_all("abcde")
        feed = await open_owner(transport)
        got = await receive_count(feed, 5)
        for index in (0, 2, 3):
            feed.settle(got[index], Verdict.DONE)
        feed.settle(got[4], Verdict.GIVE_BACK)
        lag = await transport.lag("t", "g")
        assert lag.messages == 2
        await feed.aclose()
        successor = await open_owner(transport)
        again = await receive_count(successor, 2)
        assert bodies(again) == "be"
        assert [delivery.redelivered for delivery in again] == [1, 1]
        assert [got[0].epoch, again[0].epoch] == [1, 2]


async def test_what_is_given_back_comes_again_before_what_is_behind_it() -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        outbox.send_all("abcd")
        feed = await open_owner(transport, max_in_flight=3)
        got = await receive_count(feed, 3)
        feed.settle(got[2], Verdict.GIVE_BACK)
        feed.settle(got[1], Verdict.GIVE_BACK)
        feed.settle(got[1], Verdict.DONE)  # the second settlement of one delivery
        assert bodies(await receive_count(feed, 2)) == "bc"


async def test_a_stopped_feed_ends_and_a_waiting_receive_hears_of_it() -> None:
    async with open_one() as transport:
        feed = await open_owner(transport)
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(EndOfFeed):
                    await feed.receive()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            feed.stop()
        feed.stop()
        await feed.aclose()
        with pytest.raises(EndOfFeed):
            await feed.receive()


async def test_a_standby_takes_over_when_the_owner_leaves_and_replays_in_order() -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        owner = await open_owner(transport)
        standby = await open_owner(transport)
        outbox.send_all("abc")
        got = await receive_count(owner, 3)
        assert await is_quiet(standby)
        owner.settle(got[1], Verdict.DONE)
        await owner.aclose()
        again = await receive_count(standby, 2)
        assert bodies(again) == "ac"
        assert {delivery.epoch for delivery in again} == {2}
        owner.settle(got[0], Verdict.DONE)  # of an owner that is none any more
        assert (await transport.lag("t", "g")).messages == 2


async def test_an_owner_that_is_cut_is_replaced_after_ack_wait_and_fenced(
    autojump_clock: MockClock,
) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        owner = await open_owner(transport, ack_wait=7.0)
        standby = await open_owner(transport)
        outbox.send_all("ab")
        got = await receive_count(owner, 2)
        begun = trio.current_time()
        transport.faults.cut_feeds(20.0)
        # Only the owner stays cut.
        standby.resume()  # type: ignore[attr-defined]
        owner.settle(got[0], Verdict.DONE)  # nobody hears it
        again = await receive_count(standby, 2)
        assert trio.current_time() - begun == 7.0
        assert bodies(again) == "ab"
        assert again[0].epoch == 2
        await trio.sleep(20)
        owner.settle(got[1], Verdict.DONE)
        assert (await transport.lag("t", "g")).messages == 2
        finish(standby, again)
        assert (await transport.lag("t", "g")).messages == 0


async def test_an_owner_that_was_replaced_stands_by_again_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    async with open_one("one") as transport, open_one("one") as other:
        first = await open_owner(transport)
        second = await open_owner(other)
        transport.faults.disconnect(40.0)
        await trio.sleep(50.0)
        Outbox(other).send("a")
        assert (await second.receive())[0].epoch == 2
        await second.aclose()
        assert (await first.receive())[0].epoch == 3


async def test_a_feed_survives_a_cut_and_gets_nothing_twice(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with open_one(recorder=recorder) as transport:
        outbox = Outbox(transport)
        feed = await open_owner(transport, max_in_flight=4)
        outbox.send_all("abcdef")
        got = await receive_count(feed, 4)
        feed.settle(got[2], Verdict.DONE)
        transport.faults.cut_feeds(100.0, topic="t")
        feed.settle(got[0], Verdict.DONE)
        outbox.send("g")
        begun = trio.current_time()
        assert bodies(await receive_count(feed, 2)) == "ef"
        assert trio.current_time() - begun == 100.0
        assert recorder.of(FeedReset) == [FeedReset("t", "g", "the connection was cut")]
        feed.settle(got[1], Verdict.DONE)
        feed.settle(got[3], Verdict.DONE)
        assert bodies(await receive_count(feed, 1)) == "g"
        assert (await transport.lag("t", "g")).messages == 3


async def test_settlements_that_the_broker_forgot_come_again_to_the_next_owner_only() -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        outbox.send_all("abcd")
        feed = await open_owner(transport)
        finish(feed, await receive_count(feed, 4))
        transport.faults.forget_settlements("t", "g", 2)
        assert (await transport.lag("t", "g")).messages == 2
        assert await is_quiet(feed)
        await feed.aclose()
        successor = await open_owner(transport)
        assert bodies(await receive_count(successor, 2)) == "cd"


async def test_an_owner_that_resumes_settles_again_what_the_broker_forgot(
    autojump_clock: MockClock,
) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        outbox.send_all("ab")
        feed = await open_owner(transport)
        finish(feed, await receive_count(feed, 2))
        transport.faults.forget_settlements("t", "g", 2)
        transport.faults.cut_feeds(1.0)
        await trio.sleep(1.0)
        outbox.send("c")
        assert bodies(await feed.receive()) == "c"
        assert (await transport.lag("t", "g")).messages == 1


async def test_members_share_the_partitions_evenly_and_each_has_one_owner() -> None:
    async with open_one() as transport:
        await transport.configure_topic("t", TopicOptions(partitions=6), "create_or_update")
        outbox = Outbox(transport)
        feeds = [await open_owner(transport) for _ in range(3)]
        for number in range(200):
            outbox.send(f"{number}", f"{number}")
        owned: list[set[int]] = []
        for feed in feeds:
            got = await feed.receive()
            owned.append({delivery.position.partition for delivery in got})
        assert [len(partitions) for partitions in owned] == [2, 2, 2]
        assert set.union(*owned) == set(range(6))


async def test_a_new_member_gets_a_partition_once_its_owner_has_settled_it(
    autojump_clock: MockClock,
) -> None:
    async with open_one() as transport:
        await transport.configure_topic("t", TopicOptions(partitions=2), "create_or_update")
        outbox = Outbox(transport)
        first = await open_owner(transport)
        for number in range(20):
            outbox.send(f"{number}", f"{number}")
        got = await receive_count(first, 20)
        second = await open_owner(transport)
        outbox.send("late", "late")
        for number in range(20, 40):
            outbox.send(f"{number}", f"{number}")
        assert await is_quiet(second)
        finish(first, got)
        begun = trio.current_time()
        moved = await second.receive()
        kept = await first.receive()
        assert trio.current_time() == begun  # at once, not after ack_wait
        assert len(moved) + len(kept) == 21
        assert {delivery.epoch for delivery in moved} == {2}
        assert {delivery.epoch for delivery in kept} == {1}


async def test_a_new_member_waits_no_longer_than_ack_wait_for_an_owner_that_settles_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        outbox.send("a")
        first = await open_owner(transport, ack_wait=4.0)
        await first.receive()
        first.stop()
        begun = trio.current_time()
        second = await open_owner(transport)
        again = await second.receive()
        assert bodies(again) == "a"
        assert again[0].redelivered == 1
        assert trio.current_time() - begun == 4.0


async def test_without_order_members_share_a_burst_and_take_over_what_is_given_back() -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        request = FeedRequest("t", group="g", order="none")
        one, two = [await transport.open_feed(request) for _ in range(2)]
        got: dict[str, str] = {}
        async with trio.open_nursery() as nursery:

            async def receive(name: str, feed: Feed) -> None:
                got[name] = bodies(await feed.receive())

            nursery.start_soon(receive, "one", one)
            nursery.start_soon(receive, "two", two)
            await wait_all_tasks_blocked()
            outbox.send_all("abcd")
        assert sorted(got["one"] + got["two"]) == list("abcd")
        assert got["one"]
        assert got["two"]
        await one.aclose()
        assert sorted(bodies(await two.receive())) == sorted(got["one"])


async def test_without_order_one_message_goes_to_one_of_those_who_wait() -> None:
    async with open_one() as transport:
        request = FeedRequest("t", group="g", order="none")
        feeds = [await transport.open_feed(request) for _ in range(2)]
        got: list[str] = []
        async with trio.open_nursery() as nursery:

            async def receive(feed: Feed) -> None:
                got.append(bodies(await feed.receive()))

            for feed in feeds:
                nursery.start_soon(receive, feed)
            await wait_all_tasks_blocked()
            Outbox(transport).send("a")
            await wait_all_tasks_blocked()
            assert got == ["a"]
            Outbox(transport).send("b")
        assert got == ["a", "b"]


async def test_without_order_what_a_cut_member_holds_goes_to_the_others_after_ack_wait(
    autojump_clock: MockClock,
) -> None:
    async with open_one("shared") as cut, open_one("shared") as whole:
        request = FeedRequest("t", group="g", order="none", ack_wait=5.0)
        one = await cut.open_feed(request)
        Outbox(whole).send_all("ab")
        held = await one.receive()
        begun = trio.current_time()
        cut.faults.disconnect()
        two = await whole.open_feed(request)
        assert bodies(await receive_count(two, 2)) == "ab"
        assert trio.current_time() - begun == 5.0
        assert bodies(held) == "ab"


async def test_a_member_that_is_cancelled_when_woken_passes_the_message_on() -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        request = FeedRequest("t", group="g", order="none")
        one, two = [await transport.open_feed(request) for _ in range(2)]
        got: list[str] = []
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def cancelled() -> None:
                with scope:
                    await one.receive()

            async def receive() -> None:
                got.append(bodies(await two.receive()))

            nursery.start_soon(cancelled)
            await wait_all_tasks_blocked()
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            scope.cancel()
            outbox.send("a")
        assert got == ["a"]


async def test_one_group_cannot_mix_orders() -> None:
    async with open_one() as transport:
        await open_owner(transport)
        with pytest.raises(ConfigurationError, match="another order"):
            await transport.open_feed(FeedRequest("t", group="g", order="none"))


async def test_without_a_group_every_feed_sees_every_message() -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        outbox.send("a")
        early = await transport.open_feed(FeedRequest("t"))
        late = await transport.open_feed(FeedRequest("t", start="latest"))
        outbox.send("b")
        assert bodies(await early.receive()) == "ab"
        assert bodies(await late.receive()) == "b"


@pytest.mark.parametrize(
    ("start", "expected"), [("earliest", "abcd"), ("latest", "d"), (Position(0, 2), "bcd")]
)
async def test_a_new_group_begins_where_it_asked(start: Start, expected: str) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        outbox.send_all("abc")
        feed = await transport.open_feed(FeedRequest("t", group="new", start=start))
        outbox.send("d")
        assert bodies(await receive_count(feed, len(expected))) == expected


@pytest.mark.parametrize("start", [Position(1, 1), datetime(2026, 1, 1)])  # noqa: DTZ001
async def test_a_start_that_does_not_fit_is_refused(start: Start) -> None:
    async with open_one() as transport:
        with pytest.raises(ConfigurationError, match="start="):
            await transport.open_feed(FeedRequest("t", start=start))
        assert transport._feeds == {}


async def test_what_retention_took_unread_is_raised_once_and_the_feed_goes_on(
    autojump_clock: MockClock,
) -> None:
    recorder = Recorder()
    async with open_one(recorder=recorder) as transport:
        await transport.configure_topic("t", TopicOptions(retention_time=60), "create_or_update")
        outbox = Outbox(transport)
        feed = await open_owner(transport, max_in_flight=1)
        outbox.send_all("abc")
        first = await feed.receive()
        await trio.sleep(61)
        outbox.send("d")
        finish(feed, first)
        with pytest.raises(MessagesLost) as caught:
            await feed.receive()
        assert (caught.value.first, caught.value.last) == (2, 3)
        assert recorder.of(RetentionTook) == [RetentionTook("t", "g", 2, 3)]
        last = await feed.receive()
        assert bodies(last) == "d"
        assert (await transport.lag("t", "g")).messages == 1
        await feed.aclose()
        successor = await open_owner(transport)  # is not told again
        assert bodies(await successor.receive()) == "d"


async def test_what_was_settled_before_retention_took_it_is_no_loss(
    autojump_clock: MockClock,
) -> None:
    async with open_one() as transport:
        await transport.configure_topic("t", TopicOptions(retention_time=60), "create_or_update")
        outbox = Outbox(transport)
        feed = await open_owner(transport)
        outbox.send_all("abc")
        finish(feed, await feed.receive())
        await trio.sleep(61)
        outbox.send("d")
        assert bodies(await feed.receive()) == "d"


async def test_what_is_done_or_in_flight_when_retention_takes_it_is_no_loss(
    autojump_clock: MockClock,
) -> None:
    async with open_one() as transport:
        await transport.configure_topic("t", TopicOptions(retention_time=60), "create_or_update")
        outbox = Outbox(transport)
        feed = await open_owner(transport)
        outbox.send_all("abcd")
        got = await feed.receive()
        feed.settle(got[1], Verdict.DONE)
        transport.faults.cut_feeds(61.0)  # goes back to the first that is not settled
        await trio.sleep(61.0)
        outbox.send("e")
        assert bodies(await feed.receive()) == "e"
        feed.settle(got[2], Verdict.GIVE_BACK)
        outbox.send("f")
        with pytest.raises(MessagesLost) as caught:
            await feed.receive()
        assert (caught.value.first, caught.value.last) == (3, 3)
        await feed.aclose()
        successor = await open_owner(transport)
        with pytest.raises(MessagesLost) as caught:
            await successor.receive()
        assert (caught.value.first, caught.value.last) == (1, 4)


@pytest.mark.parametrize("what", ["topic", "group"])
async def test_a_feed_whose_topic_or_group_is_removed_says_so(what: str) -> None:
    async with open_one() as transport:
        feed = await open_owner(transport)
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(ConsumerGone, match="'t' was removed"):
                    await feed.receive()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            if what == "topic":
                assert await transport.remove_topic("t")
                assert not await transport.remove_topic("t")
            else:
                assert transport.faults.remove_group("t", "g")
                assert not transport.faults.remove_group("t", "g")
        await feed.aclose()


async def test_lag_counts_what_is_not_settled_and_its_age(autojump_clock: MockClock) -> None:
    async with open_one() as transport:
        outbox = Outbox(transport)
        outbox.send("a")
        await trio.sleep(10)
        outbox.send_all("bc")
        feed = await open_owner(transport)
        got = await receive_count(feed, 3)
        feed.settle(got[1], Verdict.DONE)
        lag = await transport.lag("t", "g")
        assert lag.messages == 2
        assert lag.age == pytest.approx(10)
        feed.settle(got[0], Verdict.DONE)
        lag = await transport.lag("t", "g")
        assert lag.messages == 1
        assert lag.age == pytest.approx(0)
        feed.settle(got[2], Verdict.DONE)
        assert (await transport.lag("t", "g")).age is None
        assert (await transport.lag("t", "unseen")).messages == 3
