"""When a bus last got on with anything, for probes."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tbus import ConfigurationError, Discard, Reject, open_bus


async def handled(message) -> None:
    """Nothing to do."""


async def discarded(message) -> None:
    raise Discard("nobody wants it")


async def rejected(message) -> None:
    raise Reject("for the dead letters")


async def stuck(message) -> None:
    await trio.sleep_forever()


async def test_a_bus_that_has_done_nothing_has_made_no_progress(autojump_clock: MockClock) -> None:
    async with open_bus("memory://") as bus:
        await bus.subscribe("t", handled)
        await trio.sleep(5)
        assert bus.health().last_progress is None


async def test_a_stored_event_is_progress(autojump_clock: MockClock) -> None:
    async with open_bus("memory://") as bus:
        await bus.publish("t", b"")
        assert bus.health().last_progress == 0
        await trio.sleep(5)
        assert bus.health().last_progress == 5
        async with bus.open_publisher() as publisher:
            await publisher.send("t", b"")
        await trio.sleep(2)
        assert bus.health().last_progress == 2


@pytest.mark.parametrize("handle", [handled, discarded, rejected])
async def test_a_message_that_was_settled_is_progress(autojump_clock: MockClock, handle) -> None:
    async with open_bus("memory://it") as other, open_bus("memory://it") as bus:
        await bus.subscribe("t", handle)
        await other.publish("t", b"")
        await trio.sleep(3)
        assert bus.health().last_progress == 3


async def test_so_is_one_that_was_read_and_settled(autojump_clock: MockClock) -> None:
    async with open_bus("memory://it") as other, open_bus("memory://it") as bus:
        await other.publish("t", b"")
        async with bus.open_messages("t", start="earliest") as messages:
            async for message in messages:
                async with message:
                    await trio.sleep(1)
                    assert bus.health().last_progress is None
                break
            await trio.sleep(4)
            assert bus.health().last_progress == 4


async def test_a_handler_that_is_stuck_makes_none(autojump_clock: MockClock) -> None:
    async with open_bus("memory://it", grace=0.1) as bus:
        await bus.subscribe("t", stuck, timeout=1000)
        await bus.publish("t", b"")
        await trio.sleep(100)
        health = bus.health()
        assert (health.running, health.in_flight, health.last_progress) == (1, 1, 100)


@pytest.mark.parametrize("timeout", ["1", None, float("nan"), 0, -1, True])
async def test_a_ping_waits_a_number_of_seconds(timeout: Any) -> None:
    async with open_bus("memory://") as bus:
        with pytest.raises(ConfigurationError, match="a number of seconds, more than 0") as caught:
            await bus.ping(timeout)
        assert caught.value.field == "timeout"
