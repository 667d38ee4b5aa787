"""Delays and deadlines to the moment, on the memory broker under virtual time."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import pytest
import trio
import trio.testing

from tbus import Retry, open_bus
from tbus._errors import OutcomeUnknown, RetryAfter, TransportLost
from tbus._events import DeadLettered, Stalled
from tbus.testing.conformance._kit import Gate, Seen, publish_text, watching
from tbus.transports.memory import MemoryTransport


async def test_retries_come_after_exactly_the_policy_s_delays(autojump_clock):
    times = []

    async def fail(message):
        times.append((message.body, trio.current_time()))
        if message.body == b"a":
            raise ValueError("never")

    async with open_bus() as bus, watching(bus) as watch:
        start = trio.current_time()
        retry = Retry(attempts=5, initial=1.0, factor=3.0, maximum=10.0, jitter=0.0)
        await bus.subscribe("t", fail, group="g", retry=retry)
        await publish_text(bus, "t", "ab")
        await watch.wait(DeadLettered)
    assert [(body, time - start) for body, time in times] == [
        (b"a", 0.0), (b"a", 1.0), (b"a", 4.0), (b"a", 13.0), (b"a", 23.0), (b"b", 23.0),
    ]  # fmt: skip


async def test_jitter_moves_a_delay_by_no_more_than_its_part(autojump_clock):
    times = []

    async def fail(message):
        times.append(trio.current_time())
        raise ValueError("never")

    async with open_bus() as bus, watching(bus) as watch:
        retry = Retry(attempts=30, initial=1.0, factor=1.0, jitter=0.5)
        await bus.subscribe("t", fail, group="g", retry=retry)
        await publish_text(bus, "t", "a")
        await watch.wait(DeadLettered)
    delays = [after - before for before, after in pairwise(times)]
    assert all(0.5 <= delay <= 1.5 for delay in delays)
    assert len(set(delays)) > 10


async def test_retry_after_waits_for_exactly_that(autojump_clock):
    seen = Seen()
    times = []

    async def later(message):
        times.append(trio.current_time())
        if message.attempt < 3:
            raise RetryAfter(message.attempt * 100.0)
        await seen(message)

    async with open_bus() as bus:
        await bus.subscribe("t", later, group="g")
        await publish_text(bus, "t", "a")
        await seen.wait(1)
    assert [time - times[0] for time in times] == [0.0, 100.0, 300.0]


async def test_without_a_dead_letter_topic_it_is_tried_at_the_maximum_for_ever(autojump_clock):
    times = []

    async def fail(message):
        times.append(trio.current_time())
        raise ValueError("never")

    async with open_bus(grace=0) as bus, watching(bus) as watch:
        retry = Retry(attempts=2, initial=1.0, maximum=60.0, jitter=0.0)
        await bus.subscribe("t", fail, group="g", retry=retry, dead_letter=None)
        await publish_text(bus, "t", "a")
        stalled = await watch.wait(Stalled, 4)
    assert [time - times[0] for time in times] == [0.0, 1.0, 61.0, 121.0, 181.0]
    assert stalled.delay == 60.0
    assert stalled.age == 181.0


async def test_a_handler_has_its_time_and_no_more(autojump_clock):
    times = []

    async def hang(message):
        times.append(trio.current_time())
        if message.attempt == 1:
            await trio.sleep_forever()

    seen = Seen(hang)
    async with open_bus() as bus:
        retry = Retry(initial=0.0, jitter=0.0)
        await bus.subscribe("t", seen, group="g", timeout=30.0, retry=retry)
        await publish_text(bus, "t", "a")
        await seen.wait(1)
    assert times[1] - times[0] == pytest.approx(30.0, abs=0.001)


async def test_the_grace_period_is_for_handlers_that_still_run(autojump_clock):
    ended = []
    started = trio.Event()

    async def handle(message):
        started.set()
        await trio.sleep(4.0)
        ended.append(message.body)

    async with open_bus(grace=10.0) as bus:
        await bus.subscribe("t", handle, group="g")
        await publish_text(bus, "t", "ab")
        await started.wait()
        left = trio.current_time()
    assert trio.current_time() - left == 4.0
    assert ended == [b"a"]


async def test_a_handler_that_outlives_the_grace_period_is_cancelled_when_it_ends(autojump_clock):
    gate = Gate()
    async with open_bus(grace=10.0) as bus:
        await bus.subscribe("t", gate, group="g")
        await publish_text(bus, "t", "ab")
        await gate.wait(1)
        left = trio.current_time()
    assert trio.current_time() - left == 10.0
    assert not gate.inside


async def test_a_bus_with_nothing_to_finish_ends_at_once(autojump_clock):
    seen = Seen()
    async with open_bus(grace=10.0) as bus:
        await bus.subscribe("t", seen, group="g")
        await publish_text(bus, "t", "ab")
        await seen.wait(2)
        left = trio.current_time()
    assert trio.current_time() == left


async def test_a_handler_that_cannot_be_cancelled_does_not_hold_the_end_for_ever_unseen(
    autojump_clock, caplog
):
    started = trio.Event()

    async def stubborn(message):
        started.set()
        with trio.CancelScope(shield=True):
            await trio.sleep(100.0)

    async with open_bus(grace=1.0) as bus:
        await bus.subscribe("stubborn-topic", stubborn, group="g")
        await publish_text(bus, "stubborn-topic", "a")
        await started.wait()
    assert any("stubborn-topic" in record.getMessage() for record in caplog.records)


async def test_every_step_of_the_end_has_a_deadline_of_its_own(autojump_clock):
    """A handler that cannot be cancelled, a broker that says nothing: grace, 0.25 s for what was
    cancelled, 0.3 s to settle and close, 0.1 s for outcomes. The handler is the user's own."""
    stages: list[tuple[str, float]] = []
    started = trio.Event()

    async def stubborn(message):
        started.set()
        with trio.CancelScope(shield=True):
            await trio.sleep(100.0)

    async def publish(bus):
        with pytest.raises(OutcomeUnknown):
            await bus.publish("t", b"b", timeout=1000.0)
        stages.append(("outcome", trio.current_time()))

    async with trio.open_nursery() as nursery:
        async with open_bus(grace=5.0) as bus:
            await bus.subscribe("t", stubborn, group="g")
            await publish_text(bus, "t", "a")
            await started.wait()
            cast("MemoryTransport", bus.transport).faults.suspend()
            nursery.start_soon(publish, bus)  # noqa: ASYNC111 - it outlives the bus on purpose
            await trio.testing.wait_all_tasks_blocked()
            left = trio.current_time()
        stages.append(("block", trio.current_time()))
    assert [name for name, _ in stages] == ["outcome", "block"]
    assert 5.25 <= stages[0][1] - left <= 5.25 + 0.3 + 0.1 + 0.001
    assert stages[1][1] - left == 100.0


async def test_a_publish_has_its_outcome_at_its_deadline(autojump_clock):
    async with open_bus(grace=0) as bus:
        await bus.publish("t", b"")
        faults = cast("MemoryTransport", bus.transport).faults
        faults.suspend()
        before = trio.current_time()
        with pytest.raises(OutcomeUnknown):
            await bus.publish("t", b"", timeout=7.0)
        assert trio.current_time() - before == 7.0
        faults.restore()
        faults.disconnect()
        before = trio.current_time()
        with pytest.raises(TransportLost):
            await bus.publish("t", b"", timeout=7.0)
        assert trio.current_time() - before == 7.0
