"""The keyed dispatcher: single laws, and any interleaving of its calls against a model."""

from __future__ import annotations

from collections import defaultdict, deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from tbus._dispatch import KeyedDispatcher, Lane, LaneState

Item = tuple[str | None, int]


class AnyInterleaving(RuleBasedStateMachine):
    """The model: for each key what was pushed and is not finished, in order, and in which
    state that key is. Keyless items are keys of their own."""

    running = Bundle("running")
    held = Bundle("held")

    @initialize(limit=st.integers(1, 4))
    def open(self, limit: int) -> None:
        self.dispatcher: KeyedDispatcher[Item] = KeyedDispatcher(limit)
        self.waiting: dict[object, deque[Item]] = defaultdict(deque)
        self.is_running: dict[object, Lane[Item]] = {}
        self.is_held: dict[object, Lane[Item]] = {}
        self.pushed: set[Item] = set()
        self.ended: set[Item] = set()
        self.number = 0

    def model_key(self, item: Item) -> object:
        return item if item[0] is None else item[0]

    @rule(key=st.sampled_from(["a", "b", "c", None]))
    def push(self, key: str | None) -> None:
        self.number += 1
        item = (key, self.number)
        lane = self.dispatcher.push(key, item)
        assert lane.items[-1] == item
        self.pushed.add(item)
        self.waiting[self.model_key(item)].append(item)

    @rule(target=running)
    def take(self) -> object:
        lane = self.dispatcher.take()
        free = self.waiting.keys() - self.is_running.keys() - self.is_held.keys()
        if lane is None:
            assert not free or len(self.is_running) == self.dispatcher.limit
            return multiple()
        key = self.model_key(lane.head)
        assert key in free
        assert lane.head == self.waiting[key][0], "not the first of its key"
        self.is_running[key] = lane
        return lane

    @rule(lane=consumes(running))
    def finish(self, lane: Lane[Item]) -> None:
        key = self.model_key(lane.head)
        item = self.dispatcher.finish(lane)
        assert item == self.waiting[key].popleft()
        assert item not in self.ended
        self.ended.add(item)
        del self.is_running[key]
        if not self.waiting[key]:
            del self.waiting[key]

    @rule(target=held, lane=consumes(running))
    def hold(self, lane: Lane[Item]) -> Lane[Item]:
        key = self.model_key(lane.head)
        self.dispatcher.hold(lane)
        self.is_held[key] = self.is_running.pop(key)
        return lane

    @rule(lane=consumes(held))
    def release(self, lane: Lane[Item]) -> None:
        # One that was cleared away meanwhile is not held any more.
        found = [key for key, other in self.is_held.items() if other is lane]
        assert self.dispatcher.release(lane) is bool(found)
        assert not self.dispatcher.release(lane)
        for key in found:
            del self.is_held[key]

    @rule(target=held, key=st.sampled_from(["a", "b", "c"]))
    def withdraw(self, key: str) -> object:
        lane = self.dispatcher.lane(key)
        assert (lane is None) is (key not in self.waiting)
        is_ready = lane is not None and key not in self.is_running and key not in self.is_held
        if lane is None or self.dispatcher.withdraw(lane) is not is_ready:
            assert lane is None
            return multiple()
        if not is_ready:
            return multiple()
        self.is_held[key] = lane
        return lane

    @rule(key=st.sampled_from(["a", "b", "c"]), at=st.integers(0, 3))
    def split(self, key: str, at: int) -> None:
        lane = self.dispatcher.lane(key)
        if lane is None:
            return
        at = max(at, key in self.is_running)
        items = self.waiting[key]
        expected = list(items)[at:]
        assert self.dispatcher.split(lane, at) == expected
        self.ended |= set(expected)
        self.waiting[key] = deque(list(items)[:at])
        if not self.waiting[key]:
            del self.waiting[key]
            self.is_held.pop(key, None)

    @precondition(lambda self: self.number > 3)
    @rule()
    def clear(self) -> None:
        taken = self.dispatcher.clear()
        expected: set[Item] = set()
        for key in list(self.waiting):
            items = self.waiting[key]
            kept = [items.popleft()] if key in self.is_running else []
            expected.update(items)
            if kept:
                self.waiting[key] = deque(kept)
            else:
                del self.waiting[key]
        self.is_held.clear()
        assert len(taken) == len(expected)
        assert set(taken) == expected
        self.ended |= expected

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        here = list(self.dispatcher)
        assert len(here) == len(set(here)) == len(self.dispatcher)
        assert set(here) == self.pushed - self.ended
        by_key: dict[object, list[Item]] = defaultdict(list)
        for item in here:
            by_key[self.model_key(item)].append(item)
        assert by_key == {key: list(items) for key, items in self.waiting.items()}

    @invariant()
    def every_key_is_in_one_state_and_the_limit_is_kept(self) -> None:
        assert self.dispatcher.running == len(self.is_running) <= self.dispatcher.limit
        free = self.waiting.keys() - self.is_running.keys() - self.is_held.keys()
        assert self.dispatcher.ready == len(free)
        assert all(lane.state is LaneState.RUNNING for lane in self.is_running.values())
        assert all(lane.state is LaneState.HELD for lane in self.is_held.values())


TestAnyInterleaving = AnyInterleaving.TestCase


def test_a_message_pushed_while_its_key_is_held_waits_behind_the_head() -> None:
    dispatcher: KeyedDispatcher[int] = KeyedDispatcher(2)
    dispatcher.push("k", 1)
    lane = dispatcher.take()
    assert lane is not None
    dispatcher.hold(lane)
    dispatcher.push("k", 2)
    assert dispatcher.take() is None
    dispatcher.release(lane)
    assert dispatcher.take() is lane
    assert dispatcher.finish(lane) == 1
    assert lane.head == 2


def test_ready_keys_take_turns_so_a_busy_key_does_not_hold_up_another() -> None:
    dispatcher: KeyedDispatcher[str] = KeyedDispatcher(1)
    for item in ("a1", "a2", "a3"):
        dispatcher.push("a", item)
    dispatcher.push("b", "b1")
    order = []
    while (lane := dispatcher.take()) is not None:
        order.append(dispatcher.finish(lane))
    assert order == ["a1", "b1", "a2", "a3"]


def test_messages_without_a_key_run_beside_each_other() -> None:
    dispatcher: KeyedDispatcher[int] = KeyedDispatcher(10)
    for number in range(3):
        dispatcher.push(None, number)
    lanes = [dispatcher.take() for _ in range(3)]
    assert [lane.head for lane in lanes if lane is not None] == [0, 1, 2]


@pytest.mark.parametrize("verb", ["finish", "hold"])
def test_a_lane_that_is_not_running_is_neither_finished_nor_held(verb: str) -> None:
    dispatcher: KeyedDispatcher[int] = KeyedDispatcher(1)
    lane = dispatcher.push("k", 1)
    with pytest.raises(RuntimeError, match="'k' is ready, not running"):
        getattr(dispatcher, verb)(lane)
    assert dispatcher.running == 0
    assert dispatcher.take() is lane


def test_a_key_leaves_nothing_behind_when_its_last_message_is_finished() -> None:
    dispatcher: KeyedDispatcher[int] = KeyedDispatcher(1)
    for key in ("k", None):
        dispatcher.push(key, 1)
        lane = dispatcher.take()
        assert lane is not None
        dispatcher.finish(lane)
        assert lane.state is LaneState.GONE
    assert not dispatcher._lanes
    assert not dispatcher._keyless


def test_what_runs_while_everything_is_cleared_can_still_be_finished() -> None:
    dispatcher: KeyedDispatcher[int] = KeyedDispatcher(1)
    dispatcher.push("k", 1)
    dispatcher.push("k", 2)
    lane = dispatcher.take()
    assert lane is not None
    assert dispatcher.clear() == [2]
    dispatcher.push("k", 3)
    assert dispatcher.finish(lane) == 1
    assert dispatcher.take() is lane
    assert lane.head == 3
