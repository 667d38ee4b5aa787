"""How clients of aiokafka's are thrown away."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest

from tbus.transports.kafka._clients import close_client


class Client:
    """What is used of one, by hand."""

    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


def cancel_me() -> None:
    """Raise what nobody has asked for."""
    raise asyncio.CancelledError


async def stop_with_a_cancellation_of_its_own() -> None:
    """As a consumer's does when its broker is dead."""
    cancel_me()


async def stop_for_ever() -> None:
    """As a producer's may."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:  # noqa: ASYNC103 - as such a one does
        cancel_me()  # nobody can tell by it who has asked


@pytest.mark.parametrize("stop", [stop_with_a_cancellation_of_its_own, stop_for_ever])
@pytest.mark.parametrize("given_up", [False, True], ids=["", "cancelled before"])
def test_a_stop_that_cancels_itself_cancels_nobody_else(stop, given_up) -> None:
    client, after = Client(), []

    async def close() -> None:
        with anyio.CancelScope() as scope:
            if given_up:
                scope.cancel()
            try:
                await anyio.lowlevel.checkpoint()
            finally:
                await close_client("it", stop, client, 0.01)  # noqa: ASYNC102 - shielded

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close)
            await anyio.sleep(0.05)
            after.append("alive")

    asyncio.run(asyncio.wait_for(main(), 5))
    assert client.closed
    assert after == ["alive"]


def test_who_is_cancelled_while_it_closes_closes_all_the_same_and_ends() -> None:
    client = Client()

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(close_client("it", stop_for_ever, client, 5))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()

    asyncio.run(asyncio.wait_for(main(), 4))
    assert client.closed
