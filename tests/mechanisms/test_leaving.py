"""Partitions that go to another owner while their messages are handled, on virtual time."""

from __future__ import annotations

import msgspec
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus._dispatch import KeyedDispatcher, Lane
from tbus._errors import TransportLost
from tbus._intake import HAND_OVER
from tbus._message import Delivery, Message, Position
from tbus._transport import Verdict

from .kit import make_delivery, text
from .test_intake import Broken, open_rig

DONE = Verdict.DONE


def deliver(body: str, key: str, *, partition: int = 0, epoch: int = 1) -> Delivery:
    delivery = make_delivery(body, key)
    place = Position(partition, delivery.position.offset)
    return msgspec.structs.replace(delivery, position=place, epoch=epoch)


class Held:
    """A handler that waits until its message is let go."""

    def __init__(self) -> None:
        self.running: dict[str, trio.Event] = {}
        self.cancelled: list[str] = []

    async def __call__(self, message: Message) -> None:
        event = self.running[text(message)] = trio.Event()
        try:
            await event.wait()
        except trio.Cancelled:
            self.cancelled.append(text(message))
            raise
        finally:
            del self.running[text(message)]

    def let_go(self, body: str) -> None:
        self.running[body].set()


async def test_what_runs_may_end_and_be_settled_and_what_waits_is_forgotten(
    autojump_clock: MockClock,
) -> None:
    held, drained = Held(), trio.Event()
    async with open_rig(held) as rig:
        rig.feed.give(deliver("a1", "a"), deliver("a2", "a"), deliver("b1", "b", partition=1))
        await wait_all_tasks_blocked()
        rig.intake.drain({0: 1}, drained.set)
        await wait_all_tasks_blocked()
        assert sorted(held.running) == ["a1", "b1"]
        assert not drained.is_set()
        held.let_go("a1")
        await wait_all_tasks_blocked()
        assert drained.is_set()
        assert rig.feed.settled == [("a1", DONE)]
        assert list(held.running) == ["b1"]
        held.let_go("b1")
        await wait_all_tasks_blocked()
    assert rig.feed.settled == [("a1", DONE), ("b1", DONE)]


async def test_what_was_fetched_with_it_and_is_not_handed_out_yet_is_forgotten_too(
    autojump_clock: MockClock,
) -> None:
    """It goes out in slices. One that came after the drain would begin amid its key."""
    handled: list[str] = []
    drained = trio.Event()
    bodies = [str(number) for number in range(4 * HAND_OVER)]

    async def handle(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if not handled:
            rig.intake.drain({0: 1}, drained.set)
        handled.append(text(message))

    async with open_rig(handle) as rig:
        others = [deliver("other", "b", partition=1), deliver("later", "a", epoch=2)]
        rig.feed.give(*(deliver(body, "a") for body in bodies), *others)
        await drained.wait()
        await wait_all_tasks_blocked()
    assert handled[0] == bodies[0]
    assert sorted(handled[1:]) == ["later", "other"]


async def test_a_partition_is_not_held_up_by_what_runs_of_another_that_goes(
    autojump_clock: MockClock,
) -> None:
    held, first, second = Held(), trio.Event(), trio.Event()
    async with open_rig(held) as rig:
        rig.feed.give(deliver("a1", "a"), deliver("b1", "b", partition=1))
        await wait_all_tasks_blocked()
        rig.intake.drain({0: 1}, first.set)
        rig.intake.drain({1: 1, 2: 1}, second.set)
        held.let_go("b1")
        await wait_all_tasks_blocked()
        assert (first.is_set(), second.is_set()) == (False, True)
        held.let_go("a1")
        await wait_all_tasks_blocked()
        assert first.is_set()


async def test_a_partition_of_which_nothing_runs_is_drained_at_once(
    autojump_clock: MockClock,
) -> None:
    drained = trio.Event()
    async with open_rig() as rig:
        rig.raises = {"a": [Broken()]}
        rig.feed.give(deliver("a", "k"))
        await wait_all_tasks_blocked()  # it has failed, and waits for its next attempt
        rig.intake.drain({0: 1}, drained.set)
        assert drained.is_set()
        await trio.sleep(1000)
    assert rig.times("a") == [0.0]
    assert rig.feed.settled == []


async def test_a_message_that_fails_while_its_partition_drains_is_not_tried_again(
    autojump_clock: MockClock,
) -> None:
    drained = trio.Event()

    async def handle(_: Message) -> None:
        await trio.sleep(1)
        raise Broken

    async with open_rig(handle) as rig:
        rig.feed.give(deliver("a", "k"))
        await wait_all_tasks_blocked()
        rig.intake.drain({0: 1}, drained.set)
        with trio.fail_after(1.5):
            await drained.wait()
        await trio.sleep(1000)
        assert len(rig.intake.dispatcher) == 0
    assert rig.feed.settled == []


async def test_handlers_of_a_lost_partition_are_cancelled_and_others_are_not(
    autojump_clock: MockClock,
) -> None:
    held = Held()
    async with open_rig(held) as rig:
        rig.feed.give(deliver("a", "a"), deliver("b", "b", partition=1))
        await wait_all_tasks_blocked()
        rig.intake.lose({0: 1})
        await wait_all_tasks_blocked()
        assert held.cancelled == ["a"]
        assert list(held.running) == ["b"]
        assert len(rig.intake.dispatcher) == 1
        assert rig.events == []  # no failure, no retry
        held.let_go("b")
        await wait_all_tasks_blocked()
    assert rig.feed.settled == [("b", DONE)]


async def test_a_partition_that_comes_back_is_handled_under_its_new_epoch(
    autojump_clock: MockClock,
) -> None:
    held = Held()
    async with open_rig(held) as rig:
        rig.feed.give(deliver("a", "k"), deliver("b", "k"))
        await wait_all_tasks_blocked()
        rig.intake.lose({0: 1})
        rig.feed.give(deliver("a", "k", epoch=2), deliver("b", "k", epoch=2))
        await wait_all_tasks_blocked()
        assert list(held.running) == ["a"]
        held.let_go("a")
        await wait_all_tasks_blocked()
        held.let_go("b")
        await wait_all_tasks_blocked()
    assert rig.feed.settled == [("a", DONE), ("b", DONE)]


async def test_a_dead_letter_that_waits_goes_with_its_partition(autojump_clock: MockClock) -> None:
    async with open_rig() as rig:
        rig.raises = {"a": [Broken(), Broken(), Broken()]}
        rig.bury_errors = [TransportLost() for _ in range(50)]
        rig.feed.give(deliver("a", "k"))
        await trio.sleep(10)
        assert rig.intake.graves
        rig.intake.lose({0: 1})
        assert not rig.intake.graves
        await trio.sleep(1000)
    assert rig.buried == []


def _lost() -> Exception:
    from tbus._errors import TransportLost

    return TransportLost("nobody is there")


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 3), st.booleans()), max_size=30),
    st.lists(st.sampled_from(["take", "hold", "finish"]), max_size=20),
)
def test_what_is_dropped_is_all_that_is_wanted_and_does_not_run(
    items: list[tuple[int | None, bool]], steps: list[str]
) -> None:
    dispatcher: KeyedDispatcher[tuple[int, bool]] = KeyedDispatcher(4)
    running: list[Lane[tuple[int, bool]]] = []
    for number, (key, wanted) in enumerate(items):
        dispatcher.push(key, (number, wanted))
    for step in steps:
        if step == "take" and (lane := dispatcher.take()) is not None:
            running.append(lane)
        elif step == "hold" and running:
            dispatcher.hold(running.pop())
        elif step == "finish" and running:
            dispatcher.finish(running.pop())
    before = set(dispatcher)
    heads = {lane.head for lane in running}
    assert set(dispatcher.running_items()) == heads
    expected = {item for item in before if item[1] and item not in heads}
    assert set(dispatcher.drop(lambda item: item[1])) == expected
    assert set(dispatcher) == before - expected
    assert len(dispatcher) == len(before - expected)
    # What is left can be handled to the end, those of one key in order.
    for lane in running:
        dispatcher.finish(lane)
    done = []
    while (lane := dispatcher.take()) is not None:
        done.append(dispatcher.finish(lane))
    keys = {number: key for number, (key, _) in enumerate(items)}
    for key in range(4):
        numbers = [number for number, _ in done if keys[number] == key]
        assert numbers == sorted(numbers)
    held = {item for item in before - expected - heads if item not in done}
    assert set(dispatcher) == held
    assert dispatcher.ready == 0
