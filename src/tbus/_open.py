"""Opening a bus: the only root nursery, and what leaves by its door.

Leaving the block ends the bus in the steps that `_bus` lists; after an exception, or a
cancellation, in the body, handlers are not waited for. The body's exception leaves as itself, a
failure inside the bus as one `BusError` with its causes, a cancellation from outside and
`KeyboardInterrupt` untouched. What has failed beside a cancellation goes into the log.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from ._backends import open_backend
from ._bus import Bus
from ._config import BusConfig
from ._errors import BusError, text_of
from ._event_stream import EventHub
from ._runtime import Runtime, current_runtime

logger = logging.getLogger("tbus")


@asynccontextmanager
async def open_bus(
    where: str | Path | BusConfig = "memory://", /, **overrides: Any
) -> AsyncIterator[Bus]:
    """Open a bus; leaving the block ends it, and leaves nothing.

    Args:
        where: a URL (`memory://[name]`, `nats://host:port`, `nats+embedded://`), a
            `BusConfig`, or the path of a TOML or YAML file with one.
        overrides: fields of `BusConfig`, over what `where` says.

    Raises:
        ConfigurationError: a value that tbus cannot work with; nothing was started.
        TransportLost: the broker could not be reached within its connect timeout.
        BusError: the bus itself failed while it was open; its causes are attached. An
            exception of the body, and a cancellation from outside, leave as themselves.
    """
    config = BusConfig.load(where, **overrides)
    runtime = current_runtime()
    hub = EventHub()
    body_error: BaseException | None = None
    causes: list[BaseException] = []
    late: list[BaseException] = []
    bus: Bus | None = None
    opened = False
    try:
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(open_backend(config, hub.emit))
            async with runtime.open_nursery() as nursery:
                bus = Bus(config, runtime, backend.transport, nursery, hub, backend.holdings)
                causes = bus._causes
                bus._start("timers", None, bus._timers.run)
                if backend.server is not None:
                    bus._start("server watch", None, backend.wait_server_died)
                bus._start("transport watch", None, backend.transport.wait_failed)
                try:
                    with runtime.open_scope() as scope:
                        bus._on_failure = scope.cancel
                        if causes:
                            scope.cancel()
                        opened = True
                        yield bus
                except BaseException as error:  # noqa: ASYNC103, BLE001 - raised at the door
                    body_error = error
                with anyio.CancelScope(shield=True):
                    await bus._end(graceful=body_error is None and not causes)
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        cancelled, others = group.split(runtime.cancelled)
        body_error = body_error or cancelled
        causes.extend(others.exceptions if others is not None else ())
    except Exception as error:
        if not opened:
            raise
        late.append(error)  # the bus has ended: no cancellation of the body comes from it
    finally:
        hub.end()
        if bus is not None:
            bus._left = True
    if body_error is not None and causes and _is_cancellation(body_error, runtime):
        # A crash in the bus cancels the body, too: that cancellation ends here. One from
        # outside is still to be delivered.
        try:
            await runtime.checkpoint_if_cancelled()
        except runtime.cancelled as cancelled:  # noqa: ASYNC103 - raised at the door
            body_error = cancelled
        else:
            body_error = None
    causes.extend(late)
    if body_error is not None and _is_cancellation(body_error, runtime):
        for cause in causes:  # whoever ends a cancellation looks at no notes
            logger.error("the bus has failed, too", exc_info=cause)
    _raise_at_the_door(body_error, causes)


def _is_cancellation(error: BaseException, runtime: Runtime) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(runtime.cancelled)[1] is None
    return isinstance(error, runtime.cancelled)


def _raise_at_the_door(body_error: BaseException | None, causes: list[BaseException]) -> None:
    """What leaves the block: the body's exception, else what stopped the bus, else nothing."""
    for cause in causes:
        if not isinstance(cause, Exception):
            raise cause  # KeyboardInterrupt, SystemExit
    if body_error is not None:
        if causes:
            texts = "; ".join(f"{type(cause).__name__}: {_reason(cause)}" for cause in causes)
            body_error.add_note(f"tbus: the bus had failed, too: {texts}")
        raise body_error
    if causes:
        first = causes[0]
        raise BusError(f"the bus has failed: {_reason(first)}", causes) from first


def _reason(cause: BaseException) -> str:
    return text_of(cause) or repr(cause)  # an assertion, for one, says nothing
