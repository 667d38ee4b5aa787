"""What the conformance suite needs of a broker that is to be tested."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Flag, auto
from typing import Any, Protocol, cast
from uuid import uuid4

from .._bus import Bus
from .._open import open_bus
from ..transports.memory import MemoryTransport
from .census import ProcessCensus, take_census


class Ability(Flag):
    """What a broker can do, or what can be done to it. Cases that need more are left out."""

    NOTHING = 0
    DEDUPLICATE = auto()
    """It stores an event with an id that it has seen lately once."""
    CUT = auto()
    """`cut` breaks connections."""
    SUSPEND = auto()
    """`suspend` and `resume` make it silent."""
    RESTART = auto()
    """`kill` and `start` end it and bring it back with what it had stored."""
    FILL = auto()
    """A topic with `max_messages` refuses more than that."""
    REMOVE_CONSUMER = auto()
    """`remove_consumer` takes away what it knows of a group."""
    KEEP_ATTEMPTS = auto()
    """How often handling a message has failed outlives the reader."""
    COUNT_DELIVERIES = auto()
    """It counts how often it has delivered a message."""


class Harness(Protocol):
    """One broker under test. It is entered once for each case.

    Attributes:
        abilities: what it can do.
    """

    abilities: Ability

    def running(self) -> AbstractAsyncContextManager[object]:
        """The broker, from its beginning to its end; or only what a case needs of one that
        runs anyway. What is stored inside stays until this is left."""

    def open_bus(self, **overrides: Any) -> AbstractAsyncContextManager[Bus]:
        """A bus over it; `overrides` as for `tbus.open_bus`."""

    def topic(self) -> str:
        """The name of a topic that nobody has used."""

    def census(self) -> ProcessCensus:
        """What the process holds now, less what the harness itself holds: a server that it
        started, a proxy."""

    async def cut(self) -> None:
        """Break every connection; new ones may be made."""

    async def suspend(self) -> None:
        """From now on the broker is silent: nothing is refused, nothing is answered."""

    async def resume(self) -> None:
        """It goes on as if nothing had been."""

    async def kill(self) -> None:
        """End the broker at once."""

    async def start(self) -> None:
        """Start it again, with what it had stored."""

    async def remove_consumer(self, topic: str, group: str) -> None:
        """Remove the group from the broker, beneath whoever reads for it."""


def unique_name(kind: str) -> str:
    """A name that nobody else has."""
    return f"{kind}-{uuid4().hex[:16]}"


class MemoryHarness:
    """The memory broker, as a `Harness`; its faults are those of `MemoryTransport.faults`."""

    abilities = (
        Ability.DEDUPLICATE
        | Ability.FILL
        | Ability.CUT
        | Ability.SUSPEND
        | Ability.REMOVE_CONSUMER
        | Ability.KEEP_ATTEMPTS
        | Ability.COUNT_DELIVERIES
    )

    def __init__(self) -> None:
        self._name = unique_name("memory")
        self._buses: list[Bus] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A named broker that lives until this is left, by a bus that does nothing."""
        async with self.open_bus():
            yield

    @asynccontextmanager
    async def open_bus(self, **overrides: Any) -> AsyncIterator[Bus]:
        """A bus over it."""
        async with open_bus(f"memory://{self._name}", **overrides) as bus:
            self._buses.append(bus)
            try:
                yield bus
            finally:
                self._buses.remove(bus)

    def topic(self) -> str:
        """The name of a topic that nobody has used."""
        return unique_name("topic")

    def census(self) -> ProcessCensus:
        """What the process holds now."""
        return take_census()

    async def cut(self) -> None:
        """Break every connection for a moment."""
        for transport in self._transports():
            transport.faults.disconnect(0.0)

    async def suspend(self) -> None:
        """Be silent."""
        for transport in self._transports():
            transport.faults.suspend()

    async def resume(self) -> None:
        """Answer again."""
        for transport in self._transports():
            transport.faults.restore()

    async def kill(self) -> None:
        """Not possible: what it holds would be gone."""
        raise NotImplementedError

    async def start(self) -> None:
        """Not possible."""
        raise NotImplementedError

    async def remove_consumer(self, topic: str, group: str) -> None:
        """Remove the group beneath its feeds."""
        self._transports()[0].faults.remove_group(topic, group)

    def _transports(self) -> list[MemoryTransport]:
        return [cast("MemoryTransport", bus.transport) for bus in self._buses]
