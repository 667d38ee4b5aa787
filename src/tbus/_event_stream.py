"""Lifecycle events on their way from the bus to whoever reads them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from ._events import Event, EventsMissed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

logger = logging.getLogger("tbus.events")


class EventReader:
    """An async iterator over events; ends with the bus.

    One that is too slow gets an `EventsMissed` where events were left out.
    """

    def __init__(self, buffer: int) -> None:
        self._send: MemoryObjectSendStream[Event]
        self._receive: MemoryObjectReceiveStream[Event]
        self._send, self._receive = anyio.create_memory_object_stream(buffer)
        self._missed = 0

    def put(self, event: Event) -> None:
        """Give an event to the reader, or count it as missed."""
        try:
            if self._missed:
                self._send.send_nowait(EventsMissed(self._missed))
                self._missed = 0
            self._send.send_nowait(event)
        except anyio.WouldBlock:
            self._missed += 1
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # it has been left, or was told of the end

    def end(self) -> None:
        """There will be no more."""
        self._send.close()

    def close(self) -> None:
        """The reader has left."""
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self._receive.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            pass
        if self._missed:
            missed, self._missed = self._missed, 0
            return EventsMissed(missed)
        raise StopAsyncIteration


class EventHub:
    """Hands every event to every reader, and to the log `tbus.events` (level debug)."""

    def __init__(self) -> None:
        self._readers: list[EventReader] = []
        self._ended = False

    def emit(self, event: Event) -> None:
        """Tell all readers. Never blocks."""
        logger.debug("%s", event)
        for reader in self._readers:
            reader.put(event)

    @contextmanager
    def open(self, buffer: int) -> Iterator[EventReader]:
        """A reader of what happens from now on."""
        reader = EventReader(buffer)
        if self._ended:
            reader.end()
        self._readers.append(reader)
        try:
            yield reader
        finally:
            self._readers.remove(reader)
            reader.close()

    def end(self) -> None:
        """There will be no more events."""
        self._ended = True
        for reader in self._readers:
            reader.end()
