"""Suspects are handled one at a time, each after it was stored that it is begun."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus import Rate
from tbus._careful import Turns
from tbus._message import Delivery
from tbus._transport import Verdict
from tbus.testing.conformance._kit import Gate

from .kit import make_delivery, text
from .test_batches import open_lists
from .test_intake import Rig, open_rig
from .test_pulled_messages import open_rig as open_pulled

DONE = Verdict.DONE


def suspect(body: str, key: str | None = None) -> Delivery:
    return make_delivery(body, key or body, redelivered=1, suspect=True)


def begun(rig: Rig) -> str:
    return " ".join(body for body, _ in rig.feed.begun)


def store(rig: Rig) -> None:
    """The last one is stored."""
    rig.feed.begun[-1][1]()


async def test_suspects_run_one_at_a_time_each_after_it_was_stored(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    async with open_rig(gate) as rig:
        rig.feed.give(suspect("a"), suspect("b"), make_delivery("c", "c"))
        await wait_all_tasks_blocked()
        assert begun(rig) == "a"
        assert not gate.inside
        store(rig)
        await wait_all_tasks_blocked()
        assert [message.body for message in gate.inside] == [b"a"]
        assert begun(rig) == "a"
        gate.open()
        await wait_all_tasks_blocked()
        assert begun(rig) == "a b"
        store(rig)
        await wait_all_tasks_blocked()
        assert sorted(rig.feed.settled) == [("a", DONE), ("b", DONE), ("c", DONE)]
        assert gate.peak == 1
    assert begun(rig) == "a b"


async def test_what_runs_already_ends_first_and_afterwards_all_run_beside_each_other(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.before_return = lambda message: trio.sleep(8 if text(message) == "w" else 5)  # noqa: ASYNC105
        rig.give("w", key="w")
        rig.give("x", key="x")
        await trio.sleep(1)
        rig.feed.give(suspect("a"))
        rig.give("y", key="y")
        rig.give("z", key="z")
        await trio.sleep(6)
        assert begun(rig) == ""
        await trio.sleep(2)
        assert begun(rig) == "a"
        store(rig)
        await trio.sleep(100)
    assert sorted(rig.runs, key=lambda run: (run[2], run[0])) == [
        ("w", 1, 0.0), ("x", 1, 0.0), ("a", 1, 9.0), ("y", 1, 14.0), ("z", 1, 14.0),
    ]  # fmt: skip


async def test_waiting_for_its_turn_costs_a_handler_no_time(autojump_clock: MockClock) -> None:
    async with open_rig(timeout=10.0) as rig:
        rig.before_return = lambda _: trio.sleep(9)  # noqa: ASYNC105
        rig.feed.give(suspect("a"), suspect("b"))
        for _ in range(2):
            await trio.sleep(50)
            store(rig)
        await trio.sleep(50)
    assert [body for body, _ in rig.feed.settled] == ["a", "b"]
    assert rig.events == []


async def test_a_suspect_that_fails_keeps_its_key_and_lets_the_others_go_on(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.raises["a"] = [ValueError("no")]
        rig.feed.give(suspect("a"), suspect("b"), make_delivery("a2", "a"))
        while len(rig.feed.settled) < 3:
            await trio.sleep(0.1)
            store(rig)
    assert [body for body, _, _ in rig.runs] == ["a", "b", "a", "a2"]
    assert begun(rig) == "a b a"


async def test_suspects_of_two_subscriptions_take_turns(autojump_clock: MockClock) -> None:
    turns = Turns()
    gates = [Gate(), Gate()]
    async with open_rig(gates[0]) as first, open_rig(gates[1]) as second:
        for rig in (first, second):
            rig.intake._turns = turns
            rig.feed.give(suspect("a"), suspect("b"))
        await wait_all_tasks_blocked()
        for gate in gates:
            gate.open()
        order = []
        for _ in range(4):
            [rig] = [r for r in (first, second) if len(r.feed.begun) > len(r.feed.settled)]
            order.append(rig)
            store(rig)
            await wait_all_tasks_blocked()
        assert order in ([first, second] * 2, [second, first] * 2)
        assert begun(first) == begun(second) == "a b"


async def test_the_end_does_not_wait_for_what_is_not_begun(autojump_clock: MockClock) -> None:
    turns = Turns()
    async with open_rig() as first, open_rig() as second:
        for rig in (first, second):
            rig.intake._turns = turns
            rig.feed.give(suspect("a"))
            await wait_all_tasks_blocked()
        first.subscription.stop()
        await first.intake.wait_idle()
        await wait_all_tasks_blocked()
        assert begun(second) == "a"
        store(first)  # too late
        store(second)
        await wait_all_tasks_blocked()
    assert first.runs == []
    assert [body for body, _, _ in second.runs] == ["a"]


async def test_a_suspect_whose_partition_goes_is_waited_for_no_longer(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        rig.feed.give(suspect("a"))
        await wait_all_tasks_blocked()
        rig.intake.drain({0: 0}, lambda: None)
        rig.feed.give(make_delivery("b", "b", epoch=1), make_delivery("c", "c", epoch=1))
        await trio.sleep(1)
    assert [body for body, _, _ in rig.runs] == ["b", "c"]


async def test_lists_hold_no_suspect_but_alone(autojump_clock: MockClock) -> None:
    async with open_lists(size=2, within=5.0) as (rig, lists):
        rig.feed.give(suspect("a"), make_delivery("b", "b"), suspect("c"), make_delivery("d", "d"))
        for _ in range(3):
            await trio.sleep(1)
            store(rig)
        await trio.sleep(100)
    assert sorted(bodies for bodies, _ in lists.runs) == ["a", "b d", "c"]
    assert begun(rig) == "a c"


async def test_a_rate_holds_for_suspects_too(autojump_clock: MockClock) -> None:
    async with open_rig(rate=Rate(1.0, burst=1)) as rig:
        rig.feed.give(suspect("a"), suspect("b"), make_delivery("c", "c"))
        while len(rig.feed.settled) < 3:
            await trio.sleep(0.01)
            if len(rig.feed.begun) > len(rig.feed.settled):
                store(rig)
    assert [body for body, _, _ in rig.runs] == ["a", "b", "c"]
    assert rig.runs[2][2] >= 2.0


async def test_pulled_suspects_come_one_at_a_time(autojump_clock: MockClock) -> None:
    async with open_pulled(concurrency=10) as rig:
        rig.feed.give(suspect("a"), make_delivery("b", "b"))
        await wait_all_tasks_blocked()
        rig.feed.begun[0][1]()
        async with await anext(rig.messages) as message:
            assert message.body == b"a"
            with trio.move_on_after(10) as waited:
                await anext(rig.messages)
            assert waited.cancelled_caught
        async with await anext(rig.messages) as message:
            assert message.body == b"b"
    assert [body for body, _ in rig.feed.settled] == ["a", "b"]
