"""Pulled messages: the user's own loop instead of a handler."""

from __future__ import annotations

from types import TracebackType

from ._dispatch import Lane
from ._intake import Intake
from ._message import Message
from ._runtime import OneShot, Runtime
from ._workers import Doomed


# Unlike a `Message`, it leads to what leads to itself: to the messages that are out.
class PulledMessage(Message, eq=False, gc=True):
    """A message that the user settles: `async with message:` around what handles it.

    Leaving the block normally settles it. An exception counts as a failed attempt: the
    retry policy decides, the exception goes on, and the message is yielded again later
    with its next attempt. After a cancellation it is yielded again with the same attempt, or
    given back if the reading ends.

    Raises:
        RuntimeError: on entering, what is being handled, was settled, or was given back as the
            block of `open_messages`, or the bus, ended.
    """

    _messages: Messages | None = None
    _lane: Lane[Message] | None = None
    _entered: bool = False

    async def __aenter__(self) -> PulledMessage:
        if self._lane is None:
            raise RuntimeError("this message has been settled: each is handled once")
        if self._entered:
            raise RuntimeError("this message is being handled already: enter it once")
        assert self._messages is not None
        if not self._messages.is_out(self._lane):
            raise RuntimeError(
                "this message was given back as the reading ended, and comes again for whoever"
                " reads next: handle it inside the block of open_messages"
            )
        self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._messages is not None
        assert self._lane is not None
        lane, self._lane = self._lane, None
        await self._messages._settle(lane, error)  # noqa: ASYNC102 - the user's own time


class Messages:
    """The messages of one topic for one group, as an async iterator; made by
    `Bus.open_messages`.

    At most `concurrency` messages are out at once, one per key: a message that was yielded
    and is not settled keeps its key, and the next of its key comes after it.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.intake: Intake
        self._runtime = runtime
        self._ready: OneShot | None = None
        self._out: set[Lane[Message]] = set()
        self._ended = False

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> PulledMessage:
        self._runtime.check_here()
        await self._runtime.checkpoint_if_cancelled()
        while True:
            if self._ended:
                raise StopAsyncIteration
            lane = self.intake.dispatcher.take()
            if lane is None:
                if self._ready is None:
                    self._ready = self._runtime.one_shot()
                await self._ready.wait()
            elif lane.head in self.intake.graves:
                await self._fail(lane, Doomed())
            else:
                break
        message = lane.head
        self._out.add(lane)
        return PulledMessage(
            message.topic, message.key, message.group, message.delivery, message.attempt,
            message._decoded, self, lane,
        )  # fmt: skip

    def on_ready(self) -> None:
        """The intake has something, or has ended."""
        if self._ready is not None:
            self._ready.set()
            self._ready = None

    def end(self) -> None:
        """Yield nothing more: the bus, or the block, ends."""
        self._ended = True
        self.on_ready()

    def is_out(self, lane: Lane[Message]) -> bool:
        """Whether its message was yielded, and neither settled nor given back."""
        return lane in self._out

    def give_back(self) -> None:
        """What was yielded and not settled is nobody's any more."""
        for lane in self._out:
            self.intake.interrupted(lane)
        self._out.clear()

    async def _settle(self, lane: Lane[Message], error: BaseException | None) -> None:
        if lane not in self._out:
            return  # the bus ended in between, and gave it back
        # From here on it is not the bus that gives it back: what follows ends by itself.
        self._out.discard(lane)
        if error is None:
            self.intake.progressed = self._runtime.clock()
            self.intake.done(lane)
        elif isinstance(error, Exception):
            await self._fail(lane, error)
        else:
            self._give_back(lane)
        if self.intake.dispatcher.ready:
            self.on_ready()

    async def _fail(self, lane: Lane[Message], error: Exception) -> None:
        try:
            await self.intake.failed(lane, error)
        except BaseException:
            self._give_back(lane)
            raise

    def _give_back(self, lane: Lane[Message]) -> None:
        """It was not handled. Whoever was cancelled may well go on reading: then it is
        yielded again, with the attempt it had."""
        self.intake.interrupted(lane)
        if not self._ended and self.intake.dispatcher.release(lane):
            self.on_ready()
