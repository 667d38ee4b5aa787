"""Many things of one kind cross into the clients' loop, whose thread is a real one."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import anyio
import pytest

from tbus._bridge import Bridge, open_bridge
from tbus._crossing import Crossing, WayBack
from tbus._errors import BusClosed


class Taker:
    """Keeps what has crossed, by the call that took it."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []
        self.threads: set[int] = set()

    def take(self, crossed: deque[Any]) -> None:
        self.threads.add(threading.get_ident())
        taken = []
        while crossed:
            taken.append(crossed.popleft())
        self.calls.append(taken)

    @property
    def taken(self) -> list[Any]:
        return [thing for call in self.calls for thing in call]


async def look(bridge: Bridge, taker: Taker) -> list[Any]:
    """What the loop has when it comes to this."""

    async def look() -> list[Any]:
        return taker.taken

    return await bridge.call(look)


@pytest.mark.asyncio_too
async def test_what_is_sent_is_there_in_order_before_what_is_submitted_afterwards() -> None:
    taker = Taker()
    async with open_bridge() as bridge:
        crossing = Crossing[int](bridge, taker.take)
        for number in range(5000):
            crossing.send(number)
        assert await look(bridge, taker) == list(range(5000))
        thread = bridge._thread.ident
    assert taker.threads == {thread}


@pytest.mark.asyncio_too
async def test_what_comes_while_the_loop_is_at_work_is_taken_by_one_call() -> None:
    taker = Taker()
    async with open_bridge() as bridge:
        crossing = Crossing[int](bridge, taker.take)
        begun, go_on = anyio.Event(), threading.Event()

        def work() -> None:
            bridge.runtime.run_soon(begun.set)
            go_on.wait()

        bridge.submit(work)
        await begun.wait()
        for number in range(100):
            crossing.send(number)
        go_on.set()
        assert await look(bridge, taker) == list(range(100))
    assert len(taker.calls) == 1


@pytest.mark.asyncio_too
async def test_nothing_is_overlooked_that_comes_while_the_loop_takes() -> None:
    taker = Taker()
    async with open_bridge() as bridge:
        crossing = Crossing[int](bridge, taker.take)
        for number in range(20_000):
            crossing.send(number)
            if number % 7 == 0:
                await anyio.lowlevel.checkpoint()
        assert await look(bridge, taker) == list(range(20_000))
    assert len(taker.calls) > 1


async def test_a_thing_that_comes_between_the_asking_and_the_taking_is_taken() -> None:
    """The order of the two steps on each side, without the threads."""
    taker = Taker()
    async with open_bridge() as bridge:
        crossing = Crossing[str](bridge, taker.take)
        asked: list[Any] = []
        bridge.submit = lambda function, *_: asked.append(function)  # type: ignore[method-assign]

        def take_late(crossed: deque[str]) -> None:
            crossing.send("while it takes")
            taker.take(crossed)

        crossing._take = take_late
        crossing.send("first")
        crossing.send("second")
        assert len(asked) == 1
        asked[0]()
        assert len(asked) == 2, "it is asked again, for it may have been too late"
        assert taker.taken == ["first", "second", "while it takes"]


@pytest.mark.asyncio_too
async def test_once_the_loop_has_ended_nothing_crosses_also_if_it_was_asked() -> None:
    taker = Taker()
    async with open_bridge() as bridge:
        crossing = Crossing[int](bridge, taker.take)
    for asked in (False, True):
        crossing._asked = asked
        with pytest.raises(BusClosed):
            crossing.send(1)
    assert not crossing._crossed
    assert taker.calls == []


async def test_what_no_loop_took_can_be_taken_back() -> None:
    taker = Taker()
    async with open_bridge() as bridge:
        crossing = Crossing[int](bridge, taker.take)
        crossing.send(1)
        assert await look(bridge, taker) == [1]
        bridge._inbox = deque()  # as if the loop had made its last pass
        crossing.send(2)
        crossing.send(3)
        bridge._inbox.clear()
    assert taker.taken == [1]
    assert crossing.take_back() == [2, 3]
    assert crossing.take_back() == []


@pytest.mark.asyncio_too
async def test_what_the_loop_tells_is_taken_by_one_call_before_what_it_posts_afterwards() -> None:
    taker = Taker()
    async with open_bridge() as bridge:
        back = WayBack[int](bridge, taker.take)

        async def tell(first: int) -> None:
            for number in range(first, first + 1000):
                back.send(number)

        await bridge.call(tell, 0)  # whose answer is posted behind all of them
        assert taker.taken == list(range(1000))
        assert len(taker.calls) < 1000
        await bridge.call(tell, 1000)
    assert taker.taken == list(range(2000))
    assert taker.threads == {threading.get_ident()}


async def test_a_thing_that_the_loop_tells_while_the_program_takes_is_taken() -> None:
    """The order of the two steps on each side, without the threads."""
    taker = Taker()
    async with open_bridge() as bridge:
        back = WayBack[str](bridge, taker.take)
        asked: list[Any] = []
        bridge.post = lambda function, *_: asked.append(function)  # type: ignore[method-assign]

        def take_late(crossed: deque[str]) -> None:
            taker.take(crossed)
            back.send("just too late")

        back._take = take_late
        back.send("first")
        back.send("second")
        assert len(asked) == 1
        asked[0]()
        assert len(asked) == 2, "it is asked again"
        back._take = taker.take
        asked[1]()
        assert taker.taken == ["first", "second", "just too late"]
        del bridge.post


@pytest.mark.asyncio_too
async def test_what_the_loop_tells_in_its_last_pass_is_taken() -> None:
    taker = Taker()
    async with open_bridge() as bridge:
        back = WayBack[int](bridge, taker.take)

        async def tell() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                back.send(1)

        bridge.submit(bridge.start, tell)
        await look(bridge, taker)
    assert taker.taken == [1]


@pytest.mark.asyncio_too
@pytest.mark.parametrize("way", ["in", "back"])
async def test_what_stands_behind_a_thing_that_cannot_be_taken_is_taken(way: str) -> None:
    taken: list[int] = []

    def take(crossed: deque[int]) -> None:
        while crossed:
            if (number := crossed.popleft()) == 1:
                raise ValueError(number)
            taken.append(number)

    async with open_bridge() as bridge:
        back = WayBack[int](bridge, take)
        crossing = Crossing[int](bridge, take)

        async def tell() -> None:
            for number in range(4):
                back.send(number)

        if way == "back":
            await bridge.call(tell)
        else:
            for number in range(4):
                crossing.send(number)
        with anyio.fail_after(5), pytest.raises(ValueError, match="1"):
            await bridge.wait_failed()
        await look(bridge, Taker())
    assert taken == [0, 2, 3]
