"""The clients' event loop, which leaves nothing behind: no name lookup that holds its end, and no
connection that a client has forgotten."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._lookups import LookupThreads
from ._passes import PassSelector

_made: contextvars.ContextVar[list[asyncio.BaseTransport] | None]
_made = contextvars.ContextVar("tbus connections made", default=None)


@contextmanager
def aborted_unless_done() -> Iterator[None]:
    """In the loop's thread: connections that are made in the block are closed again if it
    is left by an exception, or a cancellation. For clients that forget them."""
    made: list[asyncio.BaseTransport] = []
    token = _made.set(made)
    try:
        yield
    except BaseException:
        for connection in made:
            if isinstance(connection, asyncio.Transport) and not connection.is_closing():
                connection.abort()
        raise
    finally:
        _made.reset(token)


class OwnedLoop(asyncio.SelectorEventLoop):
    """An event loop whose end waits for no executor: a name lookup that hangs there would
    hold it (seen: 6 s). And with which every connection is closed: a client that is cancelled
    while it connects may forget one (seen: aiokafka's first connection)."""

    def __init__(self, selector: PassSelector) -> None:
        super().__init__(selector)
        self.lookups = LookupThreads()
        self.set_default_executor(self.lookups)
        self._connections: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, and remember what must be closed."""
        connection = await super().create_connection(*args, **kwargs)
        self._connections.add(connection[0])
        made = _made.get()
        if made is not None:
            made.append(connection[0])
        return connection

    def close(self) -> None:
        """Close it, with every connection that is still open."""
        if not self.is_closed() and not self.is_running():
            for connection in tuple(self._connections):
                if isinstance(connection, asyncio.Transport) and not connection.is_closing():
                    connection.abort()
            # One pass more: a connection is closed in the pass after it was told to.
            self.call_soon(self.stop)
            self.run_forever()
        super().close()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109 - asyncio's signature
        self.lookups.shutdown(wait=False)
