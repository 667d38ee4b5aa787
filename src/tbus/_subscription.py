"""A subscription with a handler: the bus's workers run it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import msgspec

from ._at_most_once import OnceIntake
from ._dispatch import Lane
from ._errors import ConfigurationError, InvalidEnvelope
from ._intake import Intake
from ._message import Message
from ._quarantine import ParkedKey
from ._workers import Graves, Work, WorkerPool

Handler = Callable[..., Awaitable[object]]


@attrs.frozen
class SubscriptionStatistics:
    """What a subscription holds now.

    Attributes:
        in_flight: messages here that are not settled.
        running: handlers running.
        ready: keys whose next message could be handled at once.
    """

    in_flight: int
    running: int
    ready: int


class Subscription:
    """A running subscription; made by `Bus.subscribe`.

    Attributes:
        topic: what it reads.
        group: for whom, or None: for itself.
    """

    def __init__(
        self,
        source: HandlerSource,
        close: Callable[[], Awaitable[None]],
        check_here: Callable[[], None],
    ) -> None:
        self.topic = source.topic
        self.group = source.group
        self._source = source
        self._close = close
        self._check_here = check_here

    def __repr__(self) -> str:
        return f"<Subscription of {self.topic!r}, group {self.group!r}>"

    async def close(self) -> None:
        """End this subscription alone: begin nothing more, let running handlers finish
        within the bus's grace, cancel the rest, settle. What was not handled is given back,
        without an attempt. May be called again, concurrently, and from inside a handler
        (the closing then goes on behind it, for the handler itself must end first).

        Cancelled, the closing goes on all the same.
        """
        self._check_here()
        await self._close()

    # Parked keys

    def parked(self) -> tuple[ParkedKey, ...]:
        """The keys that the handler does not get, the one parked first before the others."""
        return self._source.intake.keys.parked()

    def park(self, key: str, reason: str = "parked by call") -> bool:
        """Park a key: the handler gets no more of it until `release`. What comes of it waits, or
        goes to the dead-letter topic, as the subscription's `quarantine` says (by default
        it waits). A handler that runs for it now goes on.

        It is the remedy for a `KeyBacklog`, too: what is over the quarantine's `limit` goes to
        the dead-letter topic, and the other keys have room again.

        Args:
            key: which; it need not have messages here.
            reason: told by `parked`, events and dead letters.

        Returns:
            False if it is parked already, too many keys are, or the bus or the subscription
            ends.

        Raises:
            ConfigurationError: it is no key, or the subscription's order is not by key.
        """
        if not isinstance(key, str):
            raise ConfigurationError("a message's key, a string", field="key", value=key)
        self._check_here()
        intake = self._source.intake
        if intake.options.order != "key":
            raise ConfigurationError(
                f"a key can be parked with order='key' only, and this is {intake.options.order!r}",
                field="key",
                value=key,
            )
        return intake.keys.park(key, reason)

    def release(self, key: str) -> bool:
        """Hand a parked key back to the handler: what waits of it is handled in order, and
        attempts begin anew. What went to the dead-letter topic stays there.

        Returns:
            False if it was not parked.
        """
        self._check_here()
        return self._source.intake.keys.release(key)

    async def discard(self, key: str) -> int:
        """Settle what waits of a parked key without handling it; each is told as a `Discarded`
        event. The key stays parked: `release` it to go on with what comes next. What is being
        handled or stored in the dead-letter topic right now is left alone.

        Cancelled, it has discarded nothing.

        Returns:
            How many messages were settled.
        """
        self._check_here()
        await anyio.lowlevel.checkpoint()
        return self._source.intake.keys.discard(key)

    def statistics(self) -> SubscriptionStatistics:
        """What it holds now."""
        intake = self._source.intake
        dispatcher = intake.dispatcher
        return SubscriptionStatistics(len(dispatcher), intake.running, dispatcher.ready)


class HandlerSource:
    """Connects an intake with a handler and the workers: the pool's `Source`."""

    def __init__(
        self,
        topic: str,
        group: str | None,
        handler: Handler,
        decode: Any,
        timeout: float,
        pool: WorkerPool,
    ) -> None:
        self.topic = topic
        self.group = group
        self.timeout = timeout
        self.queued = False
        self.handle: Handler = handler if decode is None else self._handle_decoded
        self.intake: Intake
        self.dispatcher: Work
        self.done: Callable[[Lane[Any]], None]
        self.doomed: Graves = ()
        self.closed: anyio.Event | None = None
        """Set when its closing, which somebody asked for, is done."""
        self._handler = handler
        self._decode = decode
        self._pool = pool

    def attach(self, intake: Intake) -> None:
        """Take the intake whose messages the handler gets."""
        self.intake = intake
        self.dispatcher = intake.dispatcher
        self.done = intake.done
        self.doomed = intake.graves
        intake.evict = partial(self._pool.evict, self)
        if isinstance(intake, OnceIntake):
            self.handle = _settled_first(intake, self.handle)
        if intake.may_begin is not None:
            self.handle = _only_if_owned(intake.may_begin, self.handle)

    def on_ready(self) -> None:
        """The intake has something to handle."""
        self._pool.offer(self)

    async def _handle_decoded(self, message: Message) -> None:
        await self._handler(self._decoded(message), message)

    def _decoded(self, message: Message) -> Any:
        envelope = message.envelope
        try:
            return envelope.decode(self._decode)
        except msgspec.MsgspecError as error:
            raise InvalidEnvelope(
                f"the payload is no {self._decode}: {error}", field="payload"
            ) from error

    async def failed(self, lane: Lane[Any], error: Exception) -> None:
        """The handler raised, or ran out of time."""
        await self.intake.failed(lane, error)
        if self.dispatcher.ready and not self.queued:
            self._pool.enqueue(self)

    def interrupted(self, lane: Lane[Any]) -> None:
        """The handler was cancelled from outside."""
        self.intake.interrupted(lane)

    def stop(self) -> None:
        """Begin nothing more."""
        self.intake.stop()
        self._pool.withdraw(self)

    def evict(self, until: float | None = None) -> bool:
        """Cancel the handlers that still run; shielded blocks hold until then, by default for
        the grace period. Returns whether any does."""
        self._pool.evict(self, until=until)
        return self._pool.has_shielded(self)


def _settled_first(intake: OnceIntake, handle: Handler) -> Handler:
    """A handler whose message is settled when it begins."""

    def begin(message: Message) -> Awaitable[object]:
        intake.begin(message)
        return handle(message)

    return begin


def _only_if_owned(may_begin: Callable[[], bool], handle: Handler) -> Handler:
    """A handler that is not begun for a message that has gone to another process."""

    # No coroutine of its own around the handler's: this is done for every message.
    def begin(message: Message) -> Awaitable[object]:
        return handle(message) if may_begin() else _wait_cancelled(handle, message)

    return begin


async def _wait_cancelled(handle: Handler, message: Message) -> None:
    await anyio.lowlevel.checkpoint()  # the feed has had it cancelled: it ends here
    await handle(message)
