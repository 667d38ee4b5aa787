"""One timer for all that is kept alive: each rings once, at its time, those far away together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from tbus.transports.nats._alarms import FAR, FAR_TICKS, TICK, Alarms


class Bell:
    """Notes who rang when, and when the last one did."""

    def __init__(self, expected: int) -> None:
        self.rung: list[tuple[str, float]] = []
        self._expected = expected
        self._all = asyncio.Event()

    def ring(self, name: str) -> None:
        self.rung.append((name, asyncio.get_running_loop().time()))
        if len(self.rung) == self._expected:
            self._all.set()

    async def wait(self) -> list[str]:
        async with asyncio.timeout(10):
            await self._all.wait()
        return [name for name, _ in self.rung]


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    async def body() -> Any:
        return await test()

    return asyncio.run(body())


def test_each_rings_once_in_order_and_never_too_early() -> None:
    async def test() -> None:
        alarms, bell = Alarms(), Bell(4)
        begun = asyncio.get_running_loop().time()
        delays = {"c": 0.06, "a": 0.02, "d": 0.09, "b": 0.04}
        for name, delay in delays.items():
            alarms.set(partial(bell.ring, name), delay)
        assert await bell.wait() == ["a", "b", "c", "d"]
        for name, when in bell.rung:
            assert when >= begun + delays[name] - 1e-6
        assert len(alarms) == 0

    run(test)


def test_who_is_set_again_rings_at_the_new_time_only_and_who_is_cancelled_never() -> None:
    async def test() -> None:
        alarms, bell = Alarms(), Bell(3)
        sooner, later, never = (partial(bell.ring, name) for name in ("sooner", "later", "never"))
        alarms.set(later, 0.01)
        alarms.set(sooner, 60)
        alarms.set(never, 0.02)
        alarms.set(later, 0.06)
        alarms.set(sooner, 0.03)
        alarms.cancel(never)
        alarms.cancel(never)  # whoever is not set is no harm
        alarms.set(partial(bell.ring, "last"), 0.1)
        assert await bell.wait() == ["sooner", "later", "last"]

    run(test)


def test_one_that_is_set_later_and_is_due_sooner_rings_before_the_timer_would() -> None:
    async def test() -> None:
        alarms, bell = Alarms(), Bell(1)
        alarms.set(partial(bell.ring, "later"), 60)
        alarms.set(partial(bell.ring, "sooner"), 0.01)
        assert await bell.wait() == ["sooner"]

    run(test)


def test_what_is_far_away_rings_at_moments_in_common_and_what_is_near_at_its_own() -> None:
    async def test() -> None:
        alarms, loop = Alarms(), asyncio.get_running_loop()
        common = FAR_TICKS * TICK
        begin = (loop.time() // common + 1) * common + FAR
        for number in range(1, 10):
            alarms.set(partial(print, number), begin + number * common / 10 - loop.time())
        assert len(alarms._ticks) == 1
        for number in range(4):
            alarms.set(partial(print, "near", number), FAR / 2 + number * 2 * TICK)
        assert len(alarms._ticks) == 5

    run(test)


def test_who_sets_itself_again_while_it_rings_rings_again() -> None:
    async def test() -> None:
        alarms, bell = Alarms(), Bell(3)

        def again() -> None:
            bell.ring("again")
            if len(bell.rung) < 3:
                alarms.set(again, 0.0)

        alarms.set(again, 0.0)
        assert await bell.wait() == ["again"] * 3

    run(test)


def test_who_is_always_late_does_not_keep_the_loop_for_itself() -> None:
    async def test() -> None:
        alarms, loop, ended = Alarms(), asyncio.get_running_loop(), asyncio.Event()
        rung = 0

        def again() -> None:
            nonlocal rung
            rung += 1
            if rung < 1000:
                alarms.set(again, -1.0)

        alarms.set(again, -1.0)
        loop.call_later(5 * TICK, ended.set)
        await ended.wait()
        alarms.cancel(again)
        assert 1 < rung < 10

    run(test)


def test_one_that_raises_is_told_to_the_loop_and_holds_up_no_other() -> None:
    async def test() -> None:
        alarms, bell = Alarms(), Bell(2)
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

        def fail() -> None:
            raise ValueError("no")

        alarms.set(partial(bell.ring, "before"), 0.03)
        alarms.set(fail, 0.03)
        alarms.set(partial(bell.ring, "after"), 0.03)
        assert sorted(await bell.wait()) == ["after", "before"]
        assert [type(context["exception"]) for context in told] == [ValueError]

    run(test)


@pytest.mark.parametrize("delay", [0.02, 5.0])
def test_the_loop_has_one_timer_and_none_where_nothing_is_set(delay: float) -> None:
    async def test() -> None:
        alarms, loop = Alarms(), asyncio.get_running_loop()
        bells = [partial(print, number) for number in range(50)]
        for number, bell in enumerate(bells):
            alarms.set(bell, delay + number / 100)
        timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert len(timers) == 1
        for bell in bells:
            alarms.cancel(bell)
        assert all(timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]

    run(test)
