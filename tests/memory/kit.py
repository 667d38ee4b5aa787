"""What the tests of the memory transport send and read with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import attrs

from tbus._config import BusConfig, MemoryOptions
from tbus._errors import TbusError
from tbus._events import Event
from tbus._message import Delivery, Receipt
from tbus._transport import Feed, Outgoing, Transport, Verdict
from tbus.transports.memory import MemoryTransport, open_memory

E = TypeVar("E", bound=Event)


@attrs.define
class Outbox:
    """Sends events, and keeps every outcome in the order in which it was told."""

    transport: Transport
    told: list[tuple[str, Receipt | TbusError]] = attrs.Factory(list)

    def send(
        self,
        body: str,
        key: str | None = "k",
        *,
        topic: str = "t",
        event_id: str | None = None,
        timeout: float = 10.0,
    ) -> Outgoing:
        outgoing = Outgoing(topic, body.encode(), key, (), event_id or body, timeout, self._tell)
        self.transport.send_nowait(outgoing)
        return outgoing

    def send_all(self, bodies: str, key: str | None = "k") -> None:
        """One event for every character."""
        for body in bodies:
            self.send(body, key)

    def outcome(self, event_id: str) -> Receipt | TbusError:
        """The one outcome of an event."""
        (outcome,) = [outcome for told, outcome in self.told if told == event_id]
        return outcome

    def _tell(self, outgoing: Outgoing, outcome: Receipt | TbusError) -> None:
        self.told.append((outgoing.id, outcome))


@attrs.define
class Recorder:
    """The lifecycle events that a transport told."""

    seen: list[Event] = attrs.Factory(list)

    def __call__(self, event: Event) -> None:
        self.seen.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.seen if isinstance(event, kind)]


def open_one(
    name: str = "",
    recorder: Recorder | None = None,
    *,
    max_messages: int | None = None,
    max_bytes: int | None = None,
) -> AbstractAsyncContextManager[MemoryTransport]:
    """A memory transport."""
    memory = MemoryOptions(name=name or None, max_messages=max_messages, max_bytes=max_bytes)
    return open_memory(BusConfig(memory=memory), recorder or Recorder())


async def receive_count(feed: Feed, count: int) -> list[Delivery]:
    """Exactly so many deliveries."""
    got: list[Delivery] = []
    while len(got) < count:
        got.extend(await feed.receive())
    assert len(got) == count
    return got


def finish(feed: Feed, deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        feed.settle(delivery, Verdict.DONE)


def bodies(deliveries: Sequence[Delivery]) -> str:
    """One character for every delivery."""
    return "".join(delivery.encoded().decode() for delivery in deliveries)
