"""Rates on both loops."""

from __future__ import annotations

import anyio
import pytest

from tbus import Rate, open_bus
from tbus.testing.conformance._kit import Seen


@pytest.mark.asyncio_too
async def test_both_rates_hold_and_whoever_gives_up_delays_nobody() -> None:
    seen = Seen()
    with anyio.fail_after(20):
        async with open_bus(publish_rate=Rate(200, burst=1)) as bus:
            start = anyio.current_time()
            async with anyio.create_task_group() as tasks:
                for _ in range(11):
                    tasks.start_soon(bus.publish, "t", b"")
                await anyio.wait_all_tasks_blocked()
                with anyio.move_on_after(0.01):
                    await bus.publish("t", b"")
            took = anyio.current_time() - start
            assert took >= 0.05 - 0.001
            assert await bus.transport.last_positions("t") == {0: 11}
            start = anyio.current_time()
            await bus.subscribe("t", seen, group="g", rate=Rate(200, burst=1))
            await seen.wait(11)
            assert anyio.current_time() - start >= 0.05 - 0.001
