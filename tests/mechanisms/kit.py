"""What the tests of the mechanisms are made of: messages, a feed by hand, a recording source."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import Any

import trio

from tbus._dispatch import KeyedDispatcher, Lane
from tbus._message import Delivery, Message, Position
from tbus._transport import EndOfFeed, Reader, Verdict
from tbus._workers import Graves, WorkerPool

_offsets = count(1)


def make_delivery(body: str = "", key: str | None = None, **fields: Any) -> Delivery:
    """A delivery in partition 0, behind all that were made before."""
    fields.setdefault("position", Position(0, next(_offsets)))
    fields.setdefault("headers", ())
    return Delivery(body=body.encode(), timestamp=0.0, key=key, keyed=True, **fields)


def make_message(body: str = "", key: str | None = None, topic: str = "t") -> Message:
    return Message(topic, key, "g", make_delivery(body, key))


def text(message: Message) -> str:
    return message.body.decode()


class HandFeed:
    """A `Feed` that hands over what a test gives it, and keeps what it is told."""

    def __init__(self) -> None:
        self.settled: list[tuple[str, Verdict]] = []
        self.attempts: dict[str, int] = {}
        self.begun: list[tuple[str, Callable[[], None]]] = []
        """What was begun, and whom to call when that is stored."""
        self.stopped = False
        self.reader: Reader | None = None
        self._given: deque[Sequence[Delivery]] = deque()
        self._news = trio.Event()

    def give(self, *deliveries: Delivery) -> None:
        self._given.append(deliveries)
        self._news.set()

    async def receive(self) -> Sequence[Delivery]:
        await trio.lowlevel.checkpoint()
        while not self._given:
            if self.stopped:
                raise EndOfFeed
            self._news = trio.Event()
            await self._news.wait()
        return self._given.popleft()

    def read_by(self, reader: Reader) -> None:
        self.reader = reader

    def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        self.settled.append((delivery.encoded().decode(), verdict))

    def note_attempts(self, delivery: Delivery, attempts: int) -> None:
        self.attempts[delivery.encoded().decode()] = attempts

    def begin(self, delivery: Delivery, begun: Callable[[], None]) -> None:
        self.begun.append((delivery.encoded().decode(), begun))

    def stop(self) -> None:
        self.stopped = True
        self._news.set()

    async def aclose(self) -> None:
        self.stop()
        await trio.lowlevel.checkpoint()


class RecordingSource:
    """A `Source` of the workers: finishes what was handled or failed, holds what was
    interrupted, and keeps a line of each."""

    def __init__(
        self,
        pool: WorkerPool,
        handle: Callable[[Message], Awaitable[object]],
        *,
        limit: int = 1000,
        timeout: float = 1000.0,
    ) -> None:
        self.dispatcher: KeyedDispatcher[Message] = KeyedDispatcher(limit)
        self.timeout = timeout
        self.queued = False
        self.handle = handle
        self.doomed: Graves = ()
        self.log: list[str] = []
        self.errors: list[Exception] = []
        self._pool = pool

    def push(self, bodies: Iterable[str], key: str | None = None, *, topic: str = "t") -> None:
        """Push a message for each and offer them together."""
        for body in bodies:
            self.dispatcher.push(key, make_message(body, key, topic))
        self._pool.offer(self)

    def done(self, lane: Lane[Message]) -> None:
        self.log.append(f"done {text(self.dispatcher.finish(lane))}")
        if self.dispatcher.ready:
            self._pool.enqueue(self)

    async def failed(self, lane: Lane[Message], error: Exception) -> None:
        self.errors.append(error)
        self.log.append(f"failed {text(self.dispatcher.finish(lane))}: {type(error).__name__}")
        if self.dispatcher.ready:
            self._pool.enqueue(self)

    def interrupted(self, lane: Lane[Message]) -> None:
        self.log.append(f"interrupted {text(lane.head)}")
        self.dispatcher.hold(lane)
