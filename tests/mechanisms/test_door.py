"""What leaves by the door of a bus when something fails as its block is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from tbus import BusError, _open, open_bus
from tbus._backends import Backend
from tbus._bridge import open_bridge
from tbus._config import BusConfig
from tbus._transport import Emit
from tbus.transports.memory import open_memory


class Broken(Exception):
    pass


def fail() -> None:
    raise Broken("at the very end")


@pytest.fixture(autouse=True)
def fails_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bus has a clients' loop, whose end has a failure in it that nobody has seen before."""

    @asynccontextmanager
    async def open_backend(config: BusConfig, emit: Emit) -> AsyncIterator[Backend]:
        async with open_bridge() as bridge, open_memory(config, emit) as memory:
            bridge.at_end.append(fail)
            yield Backend(memory)

    monkeypatch.setattr(_open, "open_backend", open_backend)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [repr(record.exc_info[1]) for record in caplog.records if record.exc_info is not None]


@pytest.mark.asyncio_too
async def test_it_is_a_failure_of_the_bus() -> None:
    with pytest.raises(BusError, match="at the very end") as raised:
        async with open_bus():
            pass
    assert [type(cause) for cause in raised.value.causes] == [Broken]


@pytest.mark.asyncio_too
async def test_an_exception_of_the_body_leaves_as_itself_and_carries_it() -> None:
    with pytest.raises(KeyError) as raised:
        async with open_bus():
            raise KeyError
    assert raised.value.__notes__ == ["tbus: the bus had failed, too: Broken: at the very end"]


@pytest.mark.asyncio_too
async def test_a_cancellation_from_outside_goes_first(caplog: pytest.LogCaptureFixture) -> None:
    with anyio.CancelScope() as scope:
        async with open_bus():
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert logged(caplog) == ["Broken('at the very end')"]


def test_so_does_one_of_asyncios_own(caplog: pytest.LogCaptureFixture) -> None:
    async def use(is_open: asyncio.Event) -> None:
        async with open_bus():
            is_open.set()
            await asyncio.Event().wait()

    async def main() -> bool:
        is_open = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(use(is_open))
            await is_open.wait()
            task.cancel()
        return task.cancelled()

    assert asyncio.run(main())
    assert logged(caplog) == ["Broken('at the very end')"]


@pytest.mark.asyncio_too
async def test_what_had_failed_before_a_cancellation_from_outside_is_told_as_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with anyio.CancelScope() as scope:
        async with open_bus() as bus:
            bus._fail(Broken("while it was open"))
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert set(logged(caplog)) == {"Broken('while it was open')", "Broken('at the very end')"}


@pytest.mark.asyncio_too
async def test_an_exception_of_the_body_goes_before_a_cancellation_that_came_with_it() -> None:
    with pytest.raises(KeyError), anyio.CancelScope() as scope:  # noqa: PT012 - the block is it
        async with open_bus():
            scope.cancel()
            raise KeyError


@pytest.mark.asyncio_too
async def test_a_failure_that_says_nothing_is_named_all_the_same() -> None:
    with pytest.raises(BusError, match=r"the bus has failed: AssertionError\(\)"):
        async with open_bus() as bus:
            bus._fail(AssertionError())


@pytest.mark.asyncio_too
async def test_a_bus_that_failed_as_it_was_left_has_ended_all_the_same() -> None:
    with pytest.raises(BusError, match="at the very end"):
        async with open_bus() as bus:
            pass
    assert bus.health().state == "closed"
    assert bus.census().count() == 0
