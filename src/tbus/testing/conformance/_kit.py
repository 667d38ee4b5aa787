"""What the cases watch with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

from ..._bus import Bus
from ..._events import Event
from ..._message import Message
from ..._retry import Retry

E = TypeVar("E", bound=Event)

X = TypeVar("X", bound=BaseException)

AT_ONCE = Retry(attempts=3, initial=0.0, jitter=0.0)
"""Three attempts, without a pause."""


class Seen:
    """A handler that notes what it has seen; others can wait for that.

    Args:
        meanwhile: what to do with a message before it counts as seen.
    """

    def __init__(self, meanwhile: Callable[[Message], Awaitable[object]] | None = None) -> None:
        self.messages: list[Message] = []
        self._meanwhile = meanwhile
        self._more = anyio.Event()

    async def __call__(self, message: Message) -> None:
        if self._meanwhile is not None:
            await self._meanwhile(message)
        self.add(message)

    def add(self, message: Message) -> None:
        """A message was seen."""
        self.messages.append(message)
        self._more.set()
        self._more = anyio.Event()

    @property
    def bodies(self) -> list[bytes]:
        """Of all, in the order in which they were seen."""
        return [message.body for message in self.messages]

    @property
    def text(self) -> str:
        """The bodies in a row."""
        return b"".join(self.bodies).decode()

    def by_key(self) -> dict[str | None, str]:
        """The bodies of each key in a row."""
        found: dict[str | None, str] = defaultdict(str)
        for message in self.messages:
            found[message.key] += message.body.decode()
        return dict(found)

    async def wait(self, count: int) -> list[Message]:
        """Wait until so many were seen; returns all."""
        while len(self.messages) < count:
            await self._more.wait()
        return self.messages


class Gate:
    """A handler that notes who is inside, and lets nobody out before it is opened."""

    def __init__(self) -> None:
        self.inside: list[Message] = []
        self.peak = 0
        self.peak_bytes = 0
        self._open = anyio.Event()
        self._more = anyio.Event()

    async def __call__(self, message: Message) -> None:
        self.inside.append(message)
        self.peak = max(self.peak, len(self.inside))
        self.peak_bytes = max(self.peak_bytes, sum(len(m.body) for m in self.inside))
        self._more.set()
        self._more = anyio.Event()
        try:
            await self._open.wait()
        finally:
            self.inside.remove(message)

    async def wait(self, count: int) -> None:
        """Wait until so many are inside."""
        while len(self.inside) < count:
            await self._more.wait()

    def open(self) -> None:
        """Let everybody out, and whoever comes later through."""
        self._open.set()


class Watch:
    """The lifecycle events of a bus."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = anyio.Event()

    def of(self, kind: type[E]) -> list[E]:
        """Those of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def next(self) -> None:
        """Wait for the next event, of any kind."""
        await self._more.wait()

    async def wait(self, kind: type[E], count: int = 1) -> E:
        """Wait for the `count`-th event of a kind."""
        while len(self.of(kind)) < count:
            await self.next()
        return self.of(kind)[count - 1]

    def add(self, event: Event) -> None:
        """An event happened."""
        self.events.append(event)
        self._more.set()
        self._more = anyio.Event()


@asynccontextmanager
async def watching(bus: Bus) -> AsyncIterator[Watch]:
    """Watch the events of a bus."""
    watch = Watch()

    async with bus.open_events(10_000) as events, anyio.create_task_group() as tasks:

        async def read() -> None:
            async for event in events:
                watch.add(event)

        tasks.start_soon(read)
        yield watch
        tasks.cancel_scope.cancel()


async def publish_text(bus: Bus, topic: str, text: str, key: str | None = "k") -> None:
    """One event for every character, in order."""
    for character in text:
        await bus.publish(topic, character.encode(), key=key)


async def publish_pairs(bus: Bus, topic: str, pairs: Iterable[tuple[str | None, str]]) -> None:
    """Events with key and body, in order, pipelined."""
    async with bus.open_publisher() as publisher:
        for key, body in pairs:
            await publisher.send(topic, body.encode(), key=key)


async def settle_down(bus: Bus, rounds: int = 3) -> None:
    """Give the broker the chance to hand over what it should not: a few round trips."""
    for _ in range(rounds):
        await bus.ping()
        await anyio.lowlevel.checkpoint()


class Raised(Generic[X]):
    """What a block raised.

    Attributes:
        error: the exception, once the block is left.
    """

    error: X


@contextmanager
def raising(kind: type[X], *texts: str) -> Iterator[Raised[X]]:
    """The block must raise this, and the error's text contain these."""
    raised: Raised[X] = Raised()
    try:
        yield raised
    except kind as error:
        raised.error = error
    else:
        raise AssertionError(f"nothing raised {kind.__name__}")
    for text in texts:
        assert text in str(raised.error), f"{text!r} is not in {raised.error}"
