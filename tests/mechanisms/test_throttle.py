"""Waiting for a turn: exact times, first come first served, and nothing lost on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus import (
    AdaptiveRate,
    Bus,
    BusClosed,
    ConfigurationError,
    DeadLettered,
    Message,
    PublishFailed,
    PublishRefused,
    Rate,
    Reject,
    Retry,
    TransportLost,
    open_bus,
)
from tbus._pace import Pace
from tbus._runtime import current_runtime
from tbus._throttle import Turnstile
from tbus.testing.conformance._kit import Seen, watching
from tbus.transports.memory import MemoryTransport
from tests.brokers.nats import NatsServer

ONE_A_SECOND = Rate(1, burst=1)


def faults(bus: Bus) -> Any:
    return cast("MemoryTransport", bus.transport).faults


class Row:
    """Callers of a turnstile, each with a name and a scope; notes when each got through."""

    def __init__(self, nursery: trio.Nursery, rate: Rate) -> None:
        self.turnstile = Turnstile(Pace(rate, trio.current_time()), current_runtime())
        self.start = trio.current_time()
        self.passed: list[tuple[str, float]] = []
        self.scopes: dict[str, trio.CancelScope] = {}
        self._nursery = nursery

    async def _pass(self, name: str) -> None:
        with self.scopes[name]:
            await self.turnstile.wait()
            self.passed.append((name, trio.current_time() - self.start))

    async def add(self, names: str) -> None:
        for name in names:
            self.scopes[name] = trio.CancelScope()
            self._nursery.start_soon(self._pass, name)
            await wait_all_tasks_blocked()


@asynccontextmanager
async def row(rate: Rate) -> AsyncIterator[Row]:
    async with trio.open_nursery() as nursery:
        yield Row(nursery, rate)


# --- the row -----------------------------------------------------------------------------


async def test_who_comes_first_goes_first_at_exactly_the_rate(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    async with row(Rate(2, burst=2)) as callers:
        mock_clock.autojump_threshold = float("inf")
        await callers.add("abcde")
        mock_clock.autojump_threshold = 0
    assert callers.passed == [("a", 0.0), ("b", 0.0), ("c", 0.5), ("d", 1.0), ("e", 1.5)]


@pytest.mark.parametrize(
    ("cancelled", "passed"),
    [
        ("b", [("a", 0), ("c", 1), ("d", 2)]),
        ("c", [("a", 0), ("b", 1), ("d", 2)]),
        ("d", [("a", 0), ("b", 1), ("c", 2)]),
        ("bc", [("a", 0), ("d", 1)]),
        ("cb", [("a", 0), ("d", 1)]),
    ],
)
async def test_who_gives_up_takes_no_token_and_delays_nobody(
    cancelled: str, passed: list[tuple[str, float]], mock_clock: MockClock
) -> None:
    async with row(ONE_A_SECOND) as callers:
        await callers.add("abcd")
        mock_clock.jump(0.5)
        for name in cancelled:
            callers.scopes[name].cancel()
        await wait_all_tasks_blocked()
        mock_clock.autojump_threshold = 0
    assert callers.passed == passed


async def test_who_was_cancelled_before_it_came_takes_no_token(mock_clock: MockClock) -> None:
    async with row(ONE_A_SECOND) as callers:
        with trio.CancelScope() as scope:
            scope.cancel()
            await callers.turnstile.wait()
        assert scope.cancelled_caught
        await callers.add("a")
    assert callers.passed == [("a", 0.0)]


async def test_who_is_cancelled_at_the_moment_of_its_turn_takes_no_token(
    mock_clock: MockClock,
) -> None:
    async with row(ONE_A_SECOND) as callers:
        await callers.add("abc")
        callers.scopes["b"].deadline = callers.start + 1.0
        mock_clock.autojump_threshold = 0
    assert callers.passed in (
        [("a", 0.0), ("c", 1.0)],
        [("a", 0.0), ("b", 1.0), ("c", 2.0)],
    )


async def test_who_comes_while_others_wait_does_not_go_before_them(mock_clock: MockClock) -> None:
    async with row(ONE_A_SECOND) as callers:
        await callers.add("ab")
        mock_clock.jump(1.0)  # there is a token, and b has not run yet
        await callers.add("c")
        mock_clock.autojump_threshold = 0
    assert callers.passed == [("a", 0.0), ("b", 1.0), ("c", 2.0)]


async def test_closing_tells_everybody_who_waits_and_who_comes(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        turnstile = Turnstile(Pace(ONE_A_SECOND, 0.0), current_runtime())
        told = []

        async def wait() -> None:
            with pytest.raises(BusClosed):
                await turnstile.wait()
            told.append(trio.current_time())

        await turnstile.wait()
        for _ in range(3):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert len(turnstile) == 3
        turnstile.close()
    assert len(told) == 3
    assert len(turnstile) == 0
    with pytest.raises(BusClosed):
        await turnstile.wait()


# --- publishing --------------------------------------------------------------------------


async def test_publishes_are_stored_at_the_rate(autojump_clock: MockClock) -> None:
    async with open_bus(publish_rate=Rate(10, burst=2)) as bus:
        start = trio.current_time()
        times = []
        for _ in range(5):
            await bus.publish("t", b"")
            times.append(trio.current_time() - start)
    assert times == pytest.approx([0, 0, 0.1, 0.2, 0.3])


async def test_all_callers_of_a_bus_share_its_rate(autojump_clock: MockClock) -> None:
    async with open_bus(publish_rate=Rate(10, burst=1)) as bus:
        start = trio.current_time()
        async with bus.open_publisher() as publisher, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(bus.publish, "t", b"")
                await publisher.send("t", b"")
        assert trio.current_time() - start == pytest.approx(1.9)


async def test_without_a_rate_there_is_no_turnstile() -> None:
    async with open_bus() as bus:
        assert bus._publisher.turnstile is None


async def test_a_publish_whose_turn_does_not_come_in_time_was_not_sent(
    autojump_clock: MockClock,
) -> None:
    async with open_bus(publish_rate=Rate(0.1, burst=1)) as bus:
        await bus.publish("t", b"")
        start = trio.current_time()
        with pytest.raises(TransportLost, match=r"not sent.*publish_rate=0\.1"):
            await bus.publish("t", b"", timeout=3.0)
        assert trio.current_time() - start == 3.0
        await bus.publish("t", b"", timeout=8.0)  # it has taken no token
        assert trio.current_time() - start == 10.0
        assert await bus.transport.last_positions("t") == {0: 2}


async def test_the_time_in_the_row_counts_against_a_publish_s_timeout(
    autojump_clock: MockClock,
) -> None:
    async with open_bus(publish_rate=Rate(1, burst=1)) as bus:
        await bus.publish("t", b"")
        faults(bus).suspend()
        start = trio.current_time()
        with pytest.raises(Exception, match="no answer"):
            await bus.publish("t", b"", timeout=3.0)
        assert trio.current_time() - start == 3.0


async def test_a_publish_that_is_cancelled_in_the_row_was_not_sent(
    autojump_clock: MockClock,
) -> None:
    async with open_bus(publish_rate=ONE_A_SECOND) as bus:
        await bus.publish("t", b"")
        start = trio.current_time()
        with trio.move_on_after(0.5):
            await bus.publish("t", b"")
        await bus.publish("t", b"")
        assert trio.current_time() - start == 1.0
        assert await bus.transport.last_positions("t") == {0: 2}


async def test_one_publisher_s_events_keep_their_order(autojump_clock: MockClock) -> None:
    seen = Seen()
    async with open_bus(publish_rate=Rate(5, burst=1)) as bus:
        await bus.subscribe("t", seen, group="g")
        async with bus.open_publisher(max_in_flight=2) as publisher:
            for number in range(10):
                await publisher.send("t", b"%d" % number, key="k")
            assert publisher.statistics().sent == 10
        await seen.wait(10)
    assert seen.text == "0123456789"


async def test_a_send_that_is_cancelled_in_the_row_leaves_its_room_to_others(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_bus(publish_rate=ONE_A_SECOND) as bus,
        bus.open_publisher(max_in_flight=1) as publisher,
    ):
        await publisher.send("t", b"")
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                with trio.move_on_after(0.5):
                    await publisher.send("t", b"")

            nursery.start_soon(give_up)
            await wait_all_tasks_blocked()
            start = trio.current_time()
            await publisher.send("t", b"")
            assert trio.current_time() - start == 1.0
        assert publisher.statistics().sent == 2


async def test_no_more_wait_in_the_row_than_a_publisher_has_room_for(
    mock_clock: MockClock,
) -> None:
    async with (
        open_bus(publish_rate=ONE_A_SECOND) as bus,
        bus.open_publisher(max_in_flight=3) as publisher,
        trio.open_nursery() as nursery,
    ):
        for _ in range(10):
            nursery.start_soon(publisher.send, "t", b"")
        await wait_all_tasks_blocked()
        assert bus._publisher.turnstile is not None
        assert len(bus._publisher.turnstile) == 3
        mock_clock.autojump_threshold = 0
    assert publisher.statistics().stored == 10


async def test_who_waits_for_a_turn_is_told_when_the_bus_has_ended(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery, open_bus(publish_rate=Rate(0.001, burst=1)) as bus:
        await bus.publish("t", b"")
        ended = []

        async def publish() -> None:
            with pytest.raises(BusClosed):
                await bus.publish("t", b"", timeout=10_000.0)
            ended.append(trio.current_time())

        for _ in range(3):
            nursery.start_soon(publish)
        await wait_all_tasks_blocked()
        start = trio.current_time()
    assert ended == [start] * 3


async def test_dead_letters_wait_for_no_turn_and_redrives_do(autojump_clock: MockClock) -> None:
    async def reject(message: Message) -> None:
        raise Reject("no")

    async with open_bus(publish_rate=ONE_A_SECOND) as bus, watching(bus) as watch:
        subscription = await bus.subscribe("t", reject, group="g")
        await bus.publish("t", b"")
        start = trio.current_time()
        await watch.wait(DeadLettered)
        assert trio.current_time() == start
        await subscription.close()
        async with bus.open_dead_letters("t") as letters:
            async for letter in letters:
                await bus.redrive(letter)
        assert trio.current_time() == start + 1.0


async def test_an_adaptive_rate_gives_way_to_a_broker_that_refuses(
    autojump_clock: MockClock,
) -> None:
    async with open_bus(publish_rate=AdaptiveRate(10, burst=1, least=2)) as bus:
        assert bus._publisher.turnstile is not None
        pace = bus._publisher.turnstile.pace
        await bus.publish("t", b"")
        faults(bus).refuse_publishes(1000.0)
        while pace.per_second > 2:
            with pytest.raises(PublishRefused):
                await bus.publish("t", b"")
        faults(bus).restore()
        while pace.per_second < 10:
            await bus.publish("t", b"")
        faults(bus).refuse_publishes(1000.0)
        with pytest.raises(PublishFailed):
            await _send_while(bus, lambda: pace.per_second > 2)
        assert pace.per_second == pytest.approx(2)


async def _send_while(bus: Bus, condition: Callable[[], bool]) -> None:
    async with bus.open_publisher() as publisher:
        while condition():
            await publisher.send("t", b"")


# --- handling ----------------------------------------------------------------------------


class Times:
    """A handler that notes when it ran for what."""

    def __init__(self, fail: set[bytes] | None = None) -> None:
        self.runs: list[tuple[str, float]] = []
        self._start = trio.current_time()
        self._fail = fail or set()
        self._more = trio.Event()

    async def __call__(self, message: Message) -> None:
        self.runs.append((message.body.decode(), round(trio.current_time() - self._start, 6)))
        self._more.set()
        self._more = trio.Event()
        if message.body in self._fail:
            raise ValueError(message.body)

    async def wait(self, count: int) -> None:
        while len(self.runs) < count:
            await self._more.wait()


async def test_handlers_are_begun_at_the_rate_in_the_broker_s_order(
    autojump_clock: MockClock,
) -> None:
    async with open_bus() as bus:
        times = Times()
        await bus.subscribe("t", times, group="g", rate=Rate(2, burst=2))
        for number in range(5):
            await bus.publish("t", b"%d" % number, key=f"{number}")
        await times.wait(5)
    assert times.runs == [("0", 0.0), ("1", 0.0), ("2", 0.5), ("3", 1.0), ("4", 1.5)]


async def test_what_waits_holds_no_worker_and_no_other_subscription(mock_clock: MockClock) -> None:
    async with open_bus(concurrency=1, grace=0) as bus:
        slow, fast = Times(), Times()
        subscription = await bus.subscribe("slow", slow, group="g", rate=0.01)
        await bus.subscribe("fast", fast, group="g")
        for number in range(100):
            await bus.publish("slow", b"%d" % number)
            await bus.publish("fast", b"%d" % number)
        await fast.wait(100)
        await wait_all_tasks_blocked()
        assert len(slow.runs) == 1
        assert len(bus._pool) == 0
        assert bus.health().in_flight == 99
        assert subscription.statistics().ready == 0


async def test_each_run_counts_retries_too(autojump_clock: MockClock) -> None:
    async with open_bus() as bus, watching(bus) as watch:
        times = Times(fail={b"a"})
        retry = Retry(attempts=3, initial=0.0, jitter=0.0)
        await bus.subscribe("t", times, group="g", rate=ONE_A_SECOND, retry=retry)
        await bus.publish("t", b"a", key="k")
        await bus.publish("t", b"b", key="k")
        await watch.wait(DeadLettered)
        await times.wait(4)
    assert times.runs == [("a", 0.0), ("a", 1.0), ("a", 2.0), ("b", 3.0)]


async def test_a_paced_subscription_ends_at_once_and_gives_back_what_waits(
    autojump_clock: MockClock,
) -> None:
    async with open_bus() as bus:
        times, rest = Times(), Seen()
        subscription = await bus.subscribe("t", times, group="g", rate=Rate(0.001, burst=1))
        for body in (b"a", b"b", b"c"):
            await bus.publish("t", body, key="k")
        await times.wait(1)
        start = trio.current_time()
        await subscription.close()
        assert trio.current_time() == start
        await bus.subscribe("t", rest, group="g")
        await rest.wait(2)
    assert rest.text == "bc"


async def test_pulled_messages_come_at_the_rate(autojump_clock: MockClock) -> None:
    times = []
    async with open_bus() as bus:
        for _ in range(4):
            await bus.publish("t", b"")
        start = trio.current_time()
        async with bus.open_messages("t", group="g", rate=ONE_A_SECOND) as messages:
            async for message in messages:
                async with message:
                    times.append(trio.current_time() - start)
                if len(times) == 4:
                    break
    assert times == [0.0, 1.0, 2.0, 3.0]


async def test_an_adaptive_rate_gives_way_to_handlers_that_fail(autojump_clock: MockClock) -> None:
    async with open_bus(grace=0) as bus:
        times = Times(fail={b"a"})
        rate = AdaptiveRate(10, burst=1, least=1)
        retry = Retry(attempts=None, initial=0.0, jitter=0.0)
        await bus.subscribe("t", times, group="g", rate=rate, retry=retry)
        await bus.publish("t", b"a")
        await times.wait(200)
    late = [when for _, when in times.runs[-3:]]
    assert late[1] - late[0] == pytest.approx(1.0)
    assert late[2] - late[1] == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [0, -1.0, "fast", True, [1]])
async def test_what_is_no_rate_is_refused(rate: Any) -> None:
    async with open_bus() as bus:
        with pytest.raises(ConfigurationError, match=r"rate|per_second"):
            await bus.subscribe("t", Seen(), rate=rate)


@pytest.mark.broker
async def test_both_rates_hold_on_a_real_broker(shared_nats_server: NatsServer, topic: str) -> None:
    async with open_bus(shared_nats_server.url, publish_rate=Rate(200, burst=1)) as bus:
        start = trio.current_time()
        async with bus.open_publisher() as publisher:
            for _ in range(21):
                await publisher.send(topic, b"")
        assert trio.current_time() - start >= 0.1
        seen = Seen()
        start = trio.current_time()
        await bus.subscribe(topic, seen, group="g", rate=Rate(200, burst=1))
        with trio.fail_after(10):
            await seen.wait(21)
        assert trio.current_time() - start >= 0.1
