"""A handler cancelled at each of its checkpoints in turn, as the end of a bus cancels it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, get_args

import trio

from .._envelope import Envelope
from .._message import Message
from .._open import open_bus
from .._retry import Retry
from .._subscription import Handler, HandlerSource
from .checkpoints import LIMIT, When, cancelling_at
from .harness import unique_name


async def cancel_handler_at_every_checkpoint(
    handler: Handler,
    *bodies: Envelope | bytes,
    key: str | None = "key",
    decode: Any = None,
    after: Callable[[bool], Awaitable[object]] | None = None,
    at_most: int | None = None,
) -> int:
    """Have a handler handle the same messages again and again, each time cancelled at another
    checkpoint, as when its bus ends amid it; and each time have another bus of its group handle
    what is left.

    Everything runs on a memory broker of its own. Each round publishes the messages anew. Shielded
    blocks (`Message.shielded`) are honoured. Checkpoints are those of the handler's own task; what
    it has started is cancelled with it.

    Args:
        handler: what `Bus.subscribe` takes, for single messages. It must not fail.
        bodies: what to publish, one after another.
        key: of bodies that are plain bytes.
        decode: as for `Bus.subscribe`.
        after: called at the end of each round, when every message was handled, with whether the
            handler was cut short in it: the place for what must hold then, however often it ran.
        at_most: no more than so many checkpoints, for handlers that have thousands.

    Returns:
        How many rounds were cancelled.

    Raises:
        AssertionError: a message was lost, came again although it had been handled, or had an
            attempt used up: the bus's mistake, or a handler's that swallows its cancellation.
        RuntimeError: there are more than ten thousand checkpoints and no `at_most`.
    """
    cancelled = 0
    for when in get_args(When):
        number = 0
        while at_most is None or number < at_most:
            number += 1
            if number > LIMIT:
                raise RuntimeError(f"it does not end within {LIMIT} checkpoints: give at_most")
            round_ = _Round(handler, bodies, key, decode)
            try:
                reached, cut_short = await round_.run(number, when)
            except BaseException as error:
                error.add_note(f"cancelled at checkpoint {number}, {when}")
                raise
            if after is not None:
                await after(cut_short)
            if not reached:
                break
            cancelled += 1
    return cancelled


class _Round:
    """The messages, handled once, with one cancellation."""

    def __init__(
        self, handler: Handler, bodies: tuple[Envelope | bytes, ...], key: str | None, decode: Any
    ) -> None:
        self._handler = handler
        self._bodies = bodies
        self._key = key
        self._decode = decode
        self._name = unique_name("handler")
        self._handled: list[int] = []
        self._failure: Exception | None = None
        self._cut_short = False
        self._news = trio.Event()
        self._watch: Callable[[trio.lowlevel.Task | None], None] = lambda _: None
        self._source: HandlerSource

    async def run(self, number: int, when: When) -> tuple[bool, bool]:
        """Whether the checkpoint was reached, and whether the handler was cut short there."""
        async with open_bus(f"memory://{self._name}") as keeper:
            for body in self._bodies:
                key = self._key if isinstance(body, bytes) else None
                await keeper.publish("t", body, key=key)
            with cancelling_at(number, when, self._end) as cancel:
                self._watch = cancel.watch
                await self._read(cancelled=lambda: cancel.reached)
            self._watch = lambda _: None
            left = len(self._bodies) - len(self._handled)
            lag = (await keeper.lag("t", "g")).messages
            assert lag == left, f"{left} messages were not handled, and {lag} are not settled"
            if left:
                await self._read(cancelled=lambda: False)
            lag = (await keeper.lag("t", "g")).messages
            assert not lag, f"all messages were handled, and {lag} are not settled"
            assert "t.dead" not in await keeper.list_topics(), "a message was dead-lettered"
        return cancel.reached, self._cut_short

    async def _read(self, cancelled: Callable[[], bool]) -> None:
        async with open_bus(f"memory://{self._name}") as bus:
            subscription = await bus.subscribe(
                "t", self._handle, group="g", concurrency=1, decode=self._decode,
                retry=Retry(attempts=1), timeout=float(LIMIT),
            )  # fmt: skip
            self._source = subscription._source
            while len(self._handled) < len(self._bodies) and self._failure is None:
                if cancelled():
                    break
                await self._news.wait()
        if self._failure is not None:
            raise self._failure

    def _end(self) -> None:
        self._source.stop()
        self._source.evict()
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _handle(self, *args: Any) -> None:
        message: Message = args[-1]
        offset = message.position.offset
        attempt = message.attempt
        try:
            assert offset not in self._handled, f"message {offset} was handled, and comes again"
            assert attempt == 1, f"attempt {attempt} for a message that never failed"
            self._watch(trio.lowlevel.current_task())
            await self._handler(*args)
        except trio.Cancelled:
            self._cut_short = True
            raise
        except Exception as error:
            self._failure = error
            raise
        else:
            self._handled.append(offset)
        finally:
            self._watch(None)
            self._tell()
