"""Lifecycle events on their way from the bus to whoever reads them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from ._events import Event, EventsMissed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

logger = logging.getLogger("tbus.events")

WARN_EVERY = 1.0
"""Seconds from one warning to the next about events of one kind."""


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
    """Hands every event to every reader, and to the log `tbus.events`: what tells of trouble while
    nobody reads as a warning, each kind now and then and by a log of its own below that one; all
    else at level debug.

    Args:
        clock: seconds; for the pauses between warnings.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._readers: list[EventReader] = []
        self._ended = False
        self._clock = clock
        self._warned: dict[type[Event], float] = {}
        """When there was a warning last."""
        self._left_out: dict[type[Event], int] = {}
        """Events since then."""

    def emit(self, event: Event) -> None:
        """Tell all readers. Never blocks."""
        if self._readers or not event.is_trouble or not self._warn(event):
            logger.debug("%s", event)
        for reader in self._readers:
            reader.put(event)

    def _warn(self, event: Event) -> bool:
        """Warn of an event, unless there was a warning of its kind just now."""
        kind, now = type(event), self._clock()
        if now < self._warned.get(kind, -math.inf) + WARN_EVERY:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        self._warned[kind] = now
        count = self._left_out.pop(kind, 0)
        if count:
            _log_of(kind).warning("%s, and %d more before", event, count)
        else:
            _log_of(kind).warning("%s", event)
        return True

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
        for kind, count in self._left_out.items():
            _log_of(kind).warning("%s: %d more in the end", kind.__name__, count)
        self._left_out.clear()
        for reader in self._readers:
            reader.end()


def _log_of(kind: type[Event]) -> logging.Logger:
    return logger.getChild(kind.__name__)
