"""What was settled crosses into the clients' loop: all of it, once, in order."""

from __future__ import annotations

import threading

import trio

from tbus._bridge import open_bridge
from tbus._message import Delivery, Position
from tbus._settlements import Settlements
from tbus._transport import Verdict


def delivery(number: int) -> Delivery:
    return Delivery(Position(0, number), b"", (), 0.0)


def offsets(deliveries: list[Delivery]) -> list[int]:
    return [one.position.offset for one in deliveries]


async def test_what_is_settled_before_the_crossing_crosses_together() -> None:
    heard: list[tuple[str, list[int], int]] = []
    crossed = trio.Event()

    def hear(kind: str, deliveries: list[Delivery]) -> None:
        heard.append((kind, offsets(deliveries), threading.get_ident()))
        if kind == "done":
            bridge.post(crossed.set)

    async with open_bridge() as bridge:
        settlements = Settlements(bridge, lambda d: hear("done", d), lambda d: hear("back", d))
        for number in range(6):
            settlements.add(delivery(number), Verdict.GIVE_BACK if number == 3 else Verdict.DONE)
        await crossed.wait()
    assert [one[:2] for one in heard] == [("back", [3]), ("done", [0, 1, 2, 4, 5])]
    assert threading.get_ident() not in {one[2] for one in heard}


async def test_what_is_settled_while_others_are_heard_crosses_too() -> None:
    heard: list[int] = []
    hearing, crossed, added = trio.Event(), trio.Event(), threading.Event()

    def hear(deliveries: list[Delivery]) -> None:
        heard.extend(offsets(deliveries))
        if len(heard) == 1:
            bridge.runtime.run_soon(hearing.set)
            added.wait(5)  # the clients' loop is held here, until the program has gone on
        else:
            bridge.post(crossed.set)

    async with open_bridge() as bridge:
        settlements = Settlements(bridge, hear, hear)
        settlements.add(delivery(1), Verdict.DONE)
        await hearing.wait()
        settlements.add(delivery(2), Verdict.DONE)
        added.set()
        with trio.fail_after(5):
            await crossed.wait()
    assert heard == [1, 2]


async def test_what_is_settled_after_the_end_is_told_to_nobody() -> None:
    heard: list[Delivery] = []
    async with open_bridge() as bridge:
        settlements = Settlements(bridge, heard.extend, heard.extend)
    settlements.add(delivery(1), Verdict.DONE)
    settlements.add(delivery(2), Verdict.GIVE_BACK)
    assert heard == []


async def test_what_is_settled_after_it_was_closed_is_told_to_nobody() -> None:
    heard: list[int] = []
    hearing, crossed, closed = trio.Event(), trio.Event(), threading.Event()

    def hear(deliveries: list[Delivery]) -> None:
        heard.extend(offsets(deliveries))
        bridge.runtime.run_soon(hearing.set)
        closed.wait(5)  # the clients' loop is held here: closed while a crossing goes on
        bridge.post(crossed.set)

    async with open_bridge() as bridge:
        settlements = Settlements(bridge, hear, hear)
        settlements.add(delivery(1), Verdict.DONE)
        await hearing.wait()
        settlements.close()
        settlements.add(delivery(2), Verdict.DONE)
        closed.set()
        await crossed.wait()
        settlements.add(delivery(3), Verdict.GIVE_BACK)
        await bridge.call(pass_by)
    assert heard == [1]


async def pass_by() -> None:
    """In the clients' loop: everything that has crossed before has been heard."""
