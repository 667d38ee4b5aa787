"""Pulled messages over a feed by hand: what each way of leaving `async with message` means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus._dispatch import Lane
from tbus._errors import Discard, Reject, TransportLost
from tbus._events import Event
from tbus._intake import Intake, IntakeOptions
from tbus._message import Message
from tbus._messages import Messages
from tbus._retry import Retry
from tbus._runtime import current_runtime
from tbus._timers import Timers
from tbus._transport import Verdict

from .kit import HandFeed, make_delivery, text

DONE = Verdict.DONE


class Broken(Exception):
    pass


class Rig:
    def __init__(self, nursery: trio.Nursery, concurrency: int) -> None:
        runtime = current_runtime()
        timers = Timers(runtime)
        nursery.start_soon(timers.run)
        self.feed = HandFeed()
        self.events: list[Event] = []
        self.buried: list[str] = []
        self.bury_errors: list[Exception] = []
        self.may_bury = trio.Event()
        self.may_bury.set()
        self.messages = Messages(runtime)
        self.intake = self.messages.intake = Intake(
            "t", "g", self.feed,
            IntakeOptions(
                concurrency, 100, "key",
                Retry(attempts=2, initial=1.0, factor=2.0, maximum=60.0, jitter=0.0),
                "t.dead", 30.0,
            ),
            runtime=runtime, timers=timers, emit=self.events.append, bury=self.bury,
            on_ready=self.messages.on_ready,
        )  # fmt: skip
        nursery.start_soon(self.intake.run)

    async def bury(self, message: Message, *rest: Any) -> None:
        await self.may_bury.wait()
        if self.bury_errors:
            raise self.bury_errors.pop(0)
        self.buried.append(text(message))

    def give(self, *bodies: str, key: str | None = "k") -> None:
        self.feed.give(*(make_delivery(body, key) for body in bodies))


@asynccontextmanager
async def open_rig(concurrency: int = 100) -> AsyncIterator[Rig]:
    async with trio.open_nursery() as nursery:
        yield Rig(nursery, concurrency)
        nursery.cancel_scope.cancel()


async def test_a_message_is_settled_when_its_block_is_left(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.give("a", "b")
        seen = []
        async for message in rig.messages:
            async with message:
                seen.append(text(message))
                assert len(rig.feed.settled) == len(seen) - 1
            if len(seen) == 2:
                break
        assert rig.feed.settled == [("a", DONE), ("b", DONE)]


async def test_a_message_that_is_out_keeps_its_key_and_no_other(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.give("a1", "a2", key="a")
        rig.give("b1", key="b")
        first = await anext(rig.messages)
        other = await anext(rig.messages)
        assert (text(first), text(other)) == ("a1", "b1")
        with trio.move_on_after(100) as scope:
            await anext(rig.messages)
        assert scope.cancelled_caught
        async with first:
            pass
        assert text(await anext(rig.messages)) == "a2"


async def test_no_more_messages_are_out_than_was_asked_for(autojump_clock: MockClock) -> None:
    async with open_rig(concurrency=2) as rig:
        rig.give(*"abc", key=None)
        first = await anext(rig.messages)
        await anext(rig.messages)
        with trio.move_on_after(100) as scope:
            await anext(rig.messages)
        assert scope.cancelled_caught
        async with first:
            pass
        assert text(await anext(rig.messages)) == "c"


async def test_an_exception_goes_on_and_the_message_comes_again(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.give("a", "b")
        message = await anext(rig.messages)
        with pytest.raises(Broken):
            async with message:
                raise Broken
        assert message.attempt == 1
        again = await anext(rig.messages)
        assert trio.current_time() == pytest.approx(1)
        assert (text(again), again.attempt) == ("a", 2)
        async with again:
            pass
        assert rig.feed.settled == [("a", DONE)]


@pytest.mark.parametrize("error", [Reject("never"), Discard("old news")])
async def test_what_tells_the_bus_what_to_do_goes_on_too(
    autojump_clock: MockClock, error: Exception
) -> None:
    async with open_rig() as rig:
        rig.give("a", "b")
        message = await anext(rig.messages)
        with pytest.raises(type(error)) as caught:
            async with message:
                raise error
        assert caught.value is error
        assert rig.feed.settled == [("a", DONE)]
        assert rig.buried == (["a"] if isinstance(error, Reject) else [])
        assert text(await anext(rig.messages)) == "b"


async def test_a_cancelled_block_gives_its_message_back_without_an_attempt(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.give("a", "b")
        for _ in range(3):
            message = await anext(rig.messages)
            assert (text(message), message.attempt) == ("a", 1)
            with trio.move_on_after(5):
                async with message:
                    await trio.sleep_forever()
        assert rig.feed.settled == []
        assert rig.events == []
        message = await anext(rig.messages)
        async with message:
            assert (text(message), message.attempt) == ("a", 1)
        assert rig.feed.settled == [("a", DONE)]


async def test_a_message_is_handled_once_for_each_time_it_is_yielded(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.give("a")
        message = await anext(rig.messages)
        async with message:
            pass
        with pytest.raises(RuntimeError, match="has been settled"):
            async with message:
                pass


async def test_a_message_that_is_being_handled_is_not_entered_again(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.give("a")
        message = await anext(rig.messages)
        async with message:
            with pytest.raises(RuntimeError, match="is being handled already"):
                async with message:
                    raise AssertionError
            assert rig.feed.settled == []
        assert rig.feed.settled == [("a", DONE)]


async def test_a_message_that_was_given_back_is_not_handled_any_more(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.give("a")
        message = await anext(rig.messages)
        rig.messages.end()
        rig.messages.give_back()
        with pytest.raises(RuntimeError, match="was given back as the reading ended"):
            async with message:
                raise AssertionError
        assert rig.feed.settled == []


async def test_a_dead_letter_that_cannot_be_stored_is_tried_again_behind_the_scenes(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.bury_errors = [TransportLost("down")]
        rig.give("a", "b")
        with pytest.raises(Reject):
            async with await anext(rig.messages):
                raise Reject("never")
        assert rig.feed.settled == []
        assert text(await anext(rig.messages)) == "b"
        assert trio.current_time() == pytest.approx(1)
        assert rig.buried == ["a"]
        assert rig.feed.settled == [("a", DONE)]


async def test_asking_for_the_next_can_be_cancelled_while_a_dead_letter_is_stored(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.bury_errors = [TransportLost("down")]
        rig.give("a", "b")
        with pytest.raises(Reject):
            async with await anext(rig.messages):
                raise Reject("never")
        rig.may_bury = trio.Event()
        with trio.move_on_after(100) as scope:
            await anext(rig.messages)
        assert scope.cancelled_caught
        assert rig.intake.dispatcher.running == 0
        rig.may_bury.set()
        assert text(await anext(rig.messages)) == "b"
        assert rig.buried == ["a"]


async def test_ending_ends_the_loop_of_whoever_waits(autojump_clock: MockClock) -> None:
    seen: list[str] = []

    async def read(rig: Rig) -> None:
        async for message in rig.messages:
            async with message:
                seen.append(text(message))

    async with open_rig() as rig, trio.open_nursery() as nursery:
        nursery.start_soon(read, rig)
        nursery.start_soon(read, rig)
        rig.give("a")
        await wait_all_tasks_blocked()
        rig.messages.end()
    assert seen == ["a"]


async def test_several_tasks_may_read_and_no_message_is_read_twice(
    autojump_clock: MockClock,
) -> None:
    seen: list[str] = []

    async def read(rig: Rig) -> None:
        async for message in rig.messages:
            async with message:
                await trio.sleep(1)
                seen.append(text(message))

    async with open_rig() as rig, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read, rig)
        rig.give(*"abcdefghi", key=None)
        await trio.sleep(3.5)
        assert sorted(seen) == list("abcdefghi")
        rig.messages.end()


async def test_settling_a_message_wakes_whoever_waits_for_the_next_of_its_key(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig, trio.open_nursery() as nursery:
        rig.give("a1", "a2", key="a")
        first = await anext(rig.messages)
        seen: list[tuple[str, float]] = []

        async def read() -> None:
            message = await anext(rig.messages)
            seen.append((text(message), trio.current_time()))

        nursery.start_soon(read)
        async with first:
            await trio.sleep(1)
        await wait_all_tasks_blocked()
        assert seen == [("a2", 1.0)]


async def test_what_is_out_at_the_end_is_given_back_and_settles_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.give("a", "b")
        async with await anext(rig.messages):
            rig.messages.end()
            rig.messages.give_back()
            rig.intake.stop()
            await rig.intake.wait_idle()
        with pytest.raises(StopAsyncIteration):
            await anext(rig.messages)
        assert rig.feed.settled == []


async def test_the_end_may_come_while_a_failure_is_dealt_with(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig, trio.open_nursery() as nursery:
        rig.may_bury = trio.Event()
        rig.give("a")
        message = await anext(rig.messages)

        async def fail() -> None:
            with pytest.raises(Reject):
                async with message:
                    raise Reject("never")

        nursery.start_soon(fail)
        await wait_all_tasks_blocked()
        rig.messages.end()
        rig.messages.give_back()
        rig.intake.stop()
        rig.may_bury.set()
        await rig.intake.wait_idle()
    assert rig.buried == ["a"]
    assert rig.feed.settled == [("a", DONE)]


async def test_a_message_that_nobody_entered_stays_out(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.give("a")
        await anext(rig.messages)
        lanes: list[Lane[Message]] = list(rig.messages._out)
        assert [text(lane.head) for lane in lanes] == ["a"]
        assert rig.feed.settled == []
