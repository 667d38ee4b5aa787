"""The pipelined publisher over the memory broker, whose faults make outcomes wait or fail."""

# The publisher is left before the reader's nursery ends: that is what is tested.
# flake8: noqa: ASYNC111
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus._config import BusConfig
from tbus._envelope import Envelope
from tbus._errors import (
    BusClosed,
    ConfigurationError,
    InvalidTopic,
    OutcomeUnknown,
    PublishFailed,
    PublishRefused,
    TransportLost,
)
from tbus._message import PublishOutcome
from tbus._publisher import SLICE_SENDS, PipelinedPublisher, Publisher, PublisherStatistics
from tbus._runtime import current_runtime
from tbus._transport import FeedRequest
from tbus.transports.memory import MemoryTransport, open_memory


class Broken(Exception):
    pass


@attrs.define
class Rig:
    transport: MemoryTransport
    publisher: Publisher
    may_send_error: Exception | None = None

    def open(self, max_in_flight: int = 1000) -> PipelinedPublisher:
        return PipelinedPublisher(self.publisher, max_in_flight, self.may_send)

    def may_send(self) -> None:
        if self.may_send_error is not None:
            raise self.may_send_error

    async def stored(self, topic: str = "t") -> list[str]:
        """What the broker holds, in its order."""
        feed = await self.transport.open_feed(FeedRequest(topic, max_in_flight=10_000))
        found: list[str] = []
        with trio.move_on_after(1):
            while True:
                found += [delivery.encoded().decode() for delivery in await feed.receive()]
        await feed.aclose()
        return found


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    async with open_memory(BusConfig(), lambda _: None) as transport:
        yield Rig(transport, Publisher(transport, current_runtime(), 10.0))


async def is_stuck(publisher: PipelinedPublisher, body: bytes = b"x") -> bool:
    """Whether `send` finds no room, for as long as half a second; it is then cancelled."""
    with trio.move_on_after(0.5) as scope:
        await publisher.send("t", body)
    return scope.cancelled_caught


# --- sending ---


async def test_what_the_transport_does_not_take_is_not_waited_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise BusClosed("the bus has ended")

    async with open_rig() as rig:
        monkeypatch.setattr(rig.transport, "send_nowait", refuse)
        with trio.fail_after(5), pytest.raises(BusClosed):
            async with rig.open() as publisher:
                await publisher.send("t", b"x")
        assert publisher.statistics().sent == 0


async def test_what_one_task_sends_is_stored_in_its_order(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        async with rig.open(max_in_flight=10) as publisher:
            rig.transport.faults.delay(0.1)
            for number in range(100):
                await publisher.send("t", str(number).encode())
        rig.transport.faults.restore()
        assert await rig.stored() == [str(number) for number in range(100)]


async def test_send_tells_the_id_by_which_a_repeat_is_known(autojump_clock: MockClock) -> None:
    async with open_rig() as rig, rig.open() as publisher:
        envelope = Envelope.new("k", "Happened", {})
        assert await publisher.send("t", envelope) == envelope.event_id
        assert await publisher.send("t", b"x", id="mine") == "mine"
        assert await publisher.send("t", b"x") != await publisher.send("t", b"x")


async def test_leaving_waits_until_every_outcome_is_known(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.transport.faults.delay(7.0)
        async with rig.open() as publisher:
            await publisher.send("t", b"x")
            assert publisher.statistics() == PublisherStatistics(1, 0, 0, 1, 0)
        assert trio.current_time() == pytest.approx(7.0)
        assert publisher.statistics() == PublisherStatistics(1, 1, 0, 0, 0)


async def test_no_more_are_under_way_than_there_is_room_for(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.transport.faults.delay(1.0)
        async with rig.open(max_in_flight=3) as publisher:
            times = []
            for _ in range(9):
                await publisher.send("t", b"x")
                times.append(round(trio.current_time(), 6))
                assert publisher.statistics().in_flight <= 3
        assert times == [0.0] * 3 + [1.0] * 3 + [2.0] * 3


async def test_room_is_freed_when_an_outcome_is_known_not_when_it_is_read(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig, rig.open(max_in_flight=3) as publisher:
        outcomes = publisher.outcomes
        for _ in range(100):
            await publisher.send("t", b"x")
        assert publisher.statistics() == PublisherStatistics(100, 100, 0, 0, 0)
        assert (await anext(outcomes)).success


async def test_a_send_that_is_cancelled_while_it_waits_for_room_has_sent_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.transport.faults.delay(1.0)
        async with rig.open(max_in_flight=1) as publisher:
            await publisher.send("t", b"first")
            assert await is_stuck(publisher, b"cancelled")
            assert publisher.statistics().sent == 1
            await publisher.send("t", b"second")
        rig.transport.faults.restore()
        assert await rig.stored() == ["first", "second"]


async def test_a_send_under_a_cancellation_sends_nothing(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        async with rig.open() as publisher:
            await publisher.send("t", b"before")
            with trio.CancelScope() as scope:
                scope.cancel()
                await publisher.send("t", b"cancelled")
            assert scope.cancelled_caught
        assert await rig.stored() == ["before"]


async def test_sending_without_an_end_gives_the_loop_to_others(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig, rig.open() as publisher, trio.open_nursery() as nursery:
        others = 0

        async def other() -> None:
            nonlocal others
            while True:
                await trio.lowlevel.checkpoint()
                others += 1

        nursery.start_soon(other)
        for _ in range(5 * SLICE_SENDS):
            await publisher.send("t", b"x")
        assert others >= 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("topic", "body", "fields", "error"),
    [
        ("no topic", b"x", {}, InvalidTopic),
        ("t", "text", {}, ConfigurationError),
        ("t", b"x", {"timeout": 0}, ConfigurationError),
        ("t", b"x", {"key": ""}, ConfigurationError),
        ("t", b"x", {"id": "a\nb"}, ConfigurationError),
        ("t", b"x", {"headers": [("a", "b\r\nc")]}, ConfigurationError),
        ("t", b"x", {"headers": [("a b", "c")]}, ConfigurationError),
        ("t", b"x", {"headers": {"id": "5"}}, ConfigurationError),
        ("t", b"x", {"headers": [("a", "b", "c")]}, ConfigurationError),
        ("t", b"x", {"headers": [("a", "\ud800")]}, ConfigurationError),
        ("t", b"x", {"headers": [("Nats-Msg-Id", "other")]}, ConfigurationError),
        ("t", Envelope.new("k", "E", {}), {"key": "other"}, ConfigurationError),
    ],
)
async def test_what_cannot_be_sent_is_an_error_at_once_and_takes_no_room(
    autojump_clock: MockClock, topic: str, body: bytes, fields: dict[str, object], error: type
) -> None:
    async with open_rig() as rig, rig.open(max_in_flight=1) as publisher:
        with pytest.raises(error):
            await publisher.send(topic, body, **fields)  # type: ignore[arg-type]
        assert publisher.statistics() == PublisherStatistics(0, 0, 0, 0, 0)


async def test_a_publisher_that_was_left_sends_no_more(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        async with rig.open() as publisher:
            pass
        with pytest.raises(BusClosed, match="has been left"):
            await publisher.send("t", b"x")


async def test_a_send_that_waits_for_room_when_the_bus_ends_is_refused(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.transport.faults.delay(1.0)
        async with rig.open(max_in_flight=1) as publisher:
            await publisher.send("t", b"x")
            rig.may_send_error = BusClosed("this bus is ending")
            with pytest.raises(BusClosed):
                await publisher.send("t", b"y")
            rig.may_send_error = None
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    with pytest.raises(BusClosed):
                        await publisher.send("t", b"z")

                nursery.start_soon(send)
                await wait_all_tasks_blocked()
                rig.may_send_error = BusClosed("this bus is ending")
        assert publisher.statistics().sent == 1


# --- failures ---


async def test_leaving_raises_the_failures_that_nobody_has_read(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.transport.faults.refuse_publishes(1.0)
        with pytest.raises(PublishFailed, match="2 events were not stored") as caught:
            async with rig.open() as publisher:
                ids = [await publisher.send("t", b"x"), await publisher.send("t", b"y")]
        assert [outcome.event_id for outcome in caught.value.outcomes] == ids
        assert all(isinstance(o.error, PublishRefused) for o in caught.value.outcomes)
        assert not any(outcome.success for outcome in caught.value.outcomes)


async def test_failures_that_were_read_are_not_raised(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.transport.faults.refuse_publishes(1.0)
        async with rig.open() as publisher:
            await publisher.send("t", b"x")
            assert isinstance((await anext(publisher.outcomes)).error, PublishRefused)


async def test_send_raises_when_as_many_failures_wait_as_there_is_room(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.transport.faults.refuse_publishes(1.0)
        async with rig.open(max_in_flight=3) as publisher:
            ids = [await publisher.send("t", b"x") for _ in range(3)]
            with pytest.raises(PublishFailed) as caught:
                await publisher.send("t", b"not sent")
            assert [outcome.event_id for outcome in caught.value.outcomes] == ids
            assert publisher.statistics() == PublisherStatistics(3, 0, 3, 0, 0)
            await trio.sleep(1)
            await publisher.send("t", b"sent")
        assert await rig.stored() == ["sent"]


async def test_a_sender_that_waits_for_room_hears_of_the_failures(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.transport.faults.lose_outcomes(2, stored=False)
        async with rig.open(max_in_flight=2) as publisher:
            for _ in range(2):
                await publisher.send("t", b"x", timeout=5.0)
            with pytest.raises(PublishFailed) as caught:
                await publisher.send("t", b"y")
        # The first timeout makes room; the second one, at the same time, fills the measure
        # only if it was first.
        assert trio.current_time() == pytest.approx(5.0)
        assert {type(outcome.error) for outcome in caught.value.outcomes} == {OutcomeUnknown}


async def test_an_event_that_could_not_leave_in_time_was_not_sent(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.transport.faults.disconnect()
        with pytest.raises(PublishFailed) as caught:
            async with rig.open() as publisher:
                await publisher.send("t", b"x", timeout=3.0)
        assert trio.current_time() == pytest.approx(3.0)
        (outcome,) = caught.value.outcomes
        assert isinstance(outcome.error, TransportLost)


async def test_an_exception_of_the_body_leaves_as_itself_with_the_failures_noted(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.transport.faults.refuse_publishes(1.0)
        with pytest.raises(Broken) as caught:  # noqa: PT012
            async with rig.open() as publisher:
                await publisher.send("t", b"x")
                raise Broken
        assert caught.value.__notes__ == ["tbus: 1 events of this publisher failed, too"]


async def test_an_exception_of_the_body_waits_for_the_outcomes_as_well(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.transport.faults.delay(2.0)
        with pytest.raises(Broken):  # noqa: PT012
            async with rig.open() as publisher:
                await publisher.send("t", b"x")
                raise Broken
        assert trio.current_time() == pytest.approx(2.0)
        assert publisher.statistics().stored == 1


async def test_a_cancelled_body_waits_for_nothing_and_what_is_unsent_is_withdrawn(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.transport.faults.disconnect()
        with trio.move_on_after(1) as scope:
            async with rig.open() as publisher:
                await publisher.send("t", b"x")
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(1.0)
        rig.transport.faults.restore()
        await rig.publisher.publish("t", b"y")
        assert await rig.stored() == ["y"]


async def test_an_interrupt_from_the_keyboard_waits_for_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.transport.faults.delay(100.0)
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            async with rig.open() as publisher:
                await publisher.send("t", b"x")
                raise KeyboardInterrupt
        assert trio.current_time() < 1.0


async def test_waiting_for_the_outcomes_can_be_cancelled(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.transport.faults.delay(100.0)
        with trio.move_on_after(1) as scope:
            async with rig.open() as publisher:
                await publisher.send("t", b"x")
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(1.0)


# --- outcomes ---


async def test_every_outcome_is_told_once_and_the_end_after_all_of_them(
    autojump_clock: MockClock,
) -> None:
    told: list[PublishOutcome] = []
    async with open_rig() as rig:

        async def read(publisher: PipelinedPublisher) -> None:
            async for outcome in publisher.outcomes:
                told.append(outcome)  # noqa: PERF401 - they come one by one

        rig.transport.faults.delay(0.5)
        async with trio.open_nursery() as nursery, rig.open(max_in_flight=10) as publisher:
            nursery.start_soon(read, publisher)
            await wait_all_tasks_blocked()
            ids = [await publisher.send("t", b"x") for _ in range(35)]
        assert sorted(outcome.event_id for outcome in told) == sorted(ids)
        assert {outcome.topic for outcome in told} == {"t"}
        assert all(outcome.success for outcome in told)
        offsets = [o.receipt.position.offset for o in told if o.receipt is not None]
        assert sorted(offsets) == list(range(1, 36))


async def test_a_reader_that_waits_gets_the_failures_and_leaving_raises_none(
    autojump_clock: MockClock,
) -> None:
    for _ in range(20):  # which of two tasks runs first is Trio's choice, at random
        told: list[PublishOutcome] = []
        async with open_rig() as rig:

            async def read(publisher: PipelinedPublisher, told: list[PublishOutcome]) -> None:
                async for outcome in publisher.outcomes:
                    told.append(outcome)  # noqa: PERF401 - they come one by one

            rig.transport.faults.lose_outcomes(3, stored=False)
            async with trio.open_nursery() as nursery, rig.open() as publisher:
                nursery.start_soon(read, publisher, told)
                await wait_all_tasks_blocked()
                for _ in range(3):
                    await publisher.send("t", b"x", timeout=1.0)
        assert [type(outcome.error) for outcome in told] == [OutcomeUnknown] * 3


async def test_of_unread_successes_only_as_many_are_kept_as_there_is_room(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        async with rig.open(max_in_flight=5) as publisher:
            outcomes = publisher.outcomes
            for _ in range(50):
                await publisher.send("t", b"x")
            assert publisher._successes is not None
            assert len(publisher._successes) == 5
        read = 0
        async for outcome in outcomes:
            assert outcome.success
            read += 1
        assert read == 5
        assert publisher.statistics().stored == 50


async def test_successes_that_nobody_asks_for_are_only_counted(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig, rig.open() as publisher:
        for _ in range(50):
            await publisher.send("t", b"x")
        assert publisher._successes is None
        assert publisher.statistics().stored == 50


async def test_a_failure_is_kept_for_a_reader_that_comes_late(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.transport.faults.refuse_publishes(1.0)
        async with rig.open(max_in_flight=2) as publisher:
            event_id = await publisher.send("t", b"x")
            await trio.sleep(2)
            for _ in range(50):
                await publisher.send("t", b"x")
            outcome = await anext(publisher.outcomes)
            assert outcome.event_id == event_id
            assert isinstance(outcome.error, PublishRefused)


async def test_a_repeated_id_is_a_success_that_says_so(autojump_clock: MockClock) -> None:
    async with open_rig() as rig, rig.open() as publisher:
        outcomes = publisher.outcomes
        await publisher.send("t", b"x", id="one")
        await publisher.send("t", b"x", id="one")
        receipts = [(await anext(outcomes)).receipt for _ in range(2)]
        assert [receipt is not None and receipt.duplicate for receipt in receipts] == [False, True]


async def test_waiting_for_an_outcome_can_be_cancelled_and_loses_none(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig, rig.open() as publisher:
        rig.transport.faults.delay(1.0)
        outcomes = publisher.outcomes
        event_id = await publisher.send("t", b"x")
        with trio.move_on_after(0.5) as scope:
            await anext(outcomes)
        assert scope.cancelled_caught
        assert (await anext(outcomes)).event_id == event_id
