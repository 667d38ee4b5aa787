"""A bus is called from another event loop than its own, or from a thread without one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import anyio
import pytest
import trio

from tbus import Bus, BusClosed, open_bus

OTHERS = ("trio", "asyncio")


async def handled(message: object) -> None:
    pass


def entering(open_it: Callable[..., Any], *args: Any) -> Callable[[], Awaitable[None]]:
    async def enter() -> None:
        async with open_it(*args):
            pass

    return enter


def entries(bus: Bus) -> dict[str, Callable[[], Awaitable[object]]]:
    """A call of each method that is awaited, or entered by `async with`."""
    letter: Any = object()
    return {
        "publish": partial(bus.publish, "t", b""),
        "open_publisher": entering(bus.open_publisher),
        "subscribe": partial(bus.subscribe, "t", handled),
        "open_messages": entering(bus.open_messages, "t"),
        "open_dead_letters": entering(bus.open_dead_letters, "t"),
        "redrive": partial(bus.redrive, letter),
        "configure_topic": partial(bus.configure_topic, "t"),
        "get_topic": partial(bus.get_topic, "t"),
        "list_topics": bus.list_topics,
        "remove_topic": partial(bus.remove_topic, "t"),
        "lag": partial(bus.lag, "t", "g"),
        "list_groups": partial(bus.list_groups, "t"),
        "ping": bus.ping,
        "open_events": entering(bus.open_events),
    }


def in_a_thread(call: Callable[[], object]) -> object:
    """What it returns, or raises, in a thread of its own. This one stands still meanwhile: nothing
    that is refused, or only looks, needs its loop."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(call).result(10)


def in_another_loop(call: Callable[[], Awaitable[object]], other: str) -> None:
    in_a_thread(partial(anyio.run, call, backend=other))


def awaited(bus_type: type[Bus]) -> set[str]:
    return {
        name
        for name, method in inspect.getmembers(bus_type, inspect.isfunction)
        if not name.startswith("_")
        and (inspect.iscoroutinefunction(method) or name.startswith("open_"))
    }


@pytest.mark.parametrize("name", sorted(awaited(Bus)))
@pytest.mark.asyncio_too
async def test_it_is_refused_and_told_how_to_call(name: str) -> None:
    async with open_bus() as bus:
        call = entries(bus)[name]
        for other in OTHERS:
            with pytest.raises(RuntimeError, match=r"another event loop.*from_thread\.run"):
                in_another_loop(call, other)
        assert await bus.list_topics() == []


@pytest.mark.asyncio_too
async def test_a_subscription_is_its_own_loops_too() -> None:
    async with open_bus() as bus:
        subscription = await bus.subscribe("t", handled, group="g")
        for call in (subscription.close, partial(subscription.discard, "k")):
            for other in OTHERS:
                with pytest.raises(RuntimeError, match="another event loop"):
                    in_another_loop(call, other)
        for change in (subscription.park, subscription.release):
            with pytest.raises(RuntimeError, match="another event loop"):
                in_a_thread(partial(change, "k"))
        assert subscription.parked() == ()


async def test_a_worker_thread_calls_it_by_way_of_its_loop() -> None:
    async with open_bus() as bus:
        call = partial(trio.from_thread.run, bus.publish, "t", b"")
        assert (await trio.to_thread.run_sync(call)).topic == "t"


@pytest.mark.asyncio_too
async def test_the_bus_goes_on_and_an_ended_one_says_that_it_has_ended() -> None:
    async with open_bus() as bus:
        with pytest.raises(RuntimeError, match="another event loop"):
            in_another_loop(partial(bus.publish, "t", b""), "trio")
        assert (await bus.publish("t", b"")).topic == "t"
    with pytest.raises(BusClosed):
        in_another_loop(partial(bus.publish, "t", b""), "trio")


@pytest.mark.asyncio_too
async def test_any_thread_may_look() -> None:
    async with open_bus() as bus:
        assert in_a_thread(bus.health) == bus.health()
        assert in_a_thread(lambda: bus.census().roles()) == bus.census().roles()


def test_a_second_loop_of_the_same_thread_is_another_one() -> None:
    buses: list[Bus] = []

    async def hold(until: asyncio.Event) -> None:
        async with open_bus() as bus:
            buses.append(bus)
            await until.wait()

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    with closing(first), closing(second):
        until = asyncio.Event()
        held = first.create_task(hold(until))
        while not buses:
            first.run_until_complete(asyncio.sleep(0))
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run_until_complete(buses[0].publish("t", b""))
        until.set()
        first.run_until_complete(held)
