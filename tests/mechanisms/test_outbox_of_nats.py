"""What is published on NATS has an outcome, whenever the clients' loop ends."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tbus._bridge import open_bridge
from tbus._config import BusConfig
from tbus._errors import TbusError, TransportLost
from tbus._message import Receipt
from tbus._transport import Outgoing
from tbus.transports.nats._engine import Engine
from tbus.transports.nats._outbox import Outbox, Outcome
from tbus.transports.nats._transport import NatsTransport
from tests.mechanisms.kafka_kit import run


class Idle:
    """An outbox whose loop never comes to it."""

    def take(self, _: deque[Outgoing]) -> None:
        raise AssertionError("nothing is taken")

    def abandon(self) -> None:
        pass


async def test_what_the_loop_did_not_take_in_its_last_pass_was_not_sent() -> None:
    told: list[tuple[str, Any]] = []

    def tell(outgoing: Outgoing, result: Receipt | TbusError) -> None:
        told.append((outgoing.id, result))

    async with open_bridge() as bridge:
        engine = cast("Engine", SimpleNamespace(outbox=Idle()))
        transport = NatsTransport(bridge, engine, BusConfig())
        bridge._inbox = deque()  # as if the loop had made its last pass
        for id in "ab":
            transport.send_nowait(Outgoing("topic", b"", None, (), id, 5.0, tell))
        bridge._inbox.clear()
    transport.abandon()
    assert [id for id, _ in told] == ["a", "b"]
    assert all(isinstance(result, TransportLost) for _, result in told)


async def test_what_is_given_up_in_the_last_moment_of_the_loop_is_told() -> None:
    """The loop has died, the program does not know it yet, and what it submits runs nowhere."""
    told: list[str] = []
    outbox = Idle()
    outbox.abandon = lambda: told.append("abandoned")  # type: ignore[method-assign]
    async with open_bridge() as bridge:
        engine = cast("Engine", SimpleNamespace(outbox=outbox))
        transport = NatsTransport(bridge, engine, BusConfig())
        inbox, bridge._inbox = bridge._inbox, deque()
        transport.send_nowait(
            Outgoing("topic", b"", None, (), "a", 5.0, lambda one, _: told.append(one.id))
        )
        transport.abandon()
        bridge._inbox = inbox
        assert told == []
    assert told == ["abandoned", "a"]


class Connection:
    """A session on which nothing is ever written."""

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe(self, *_: object) -> None:
        pass


def test_an_event_that_could_not_be_taken_to_its_end_has_its_outcome_in_time() -> None:
    told: list[tuple[float, str, Receipt | TbusError]] = []

    def is_known(_: str) -> bool:
        raise ValueError("a bug")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        defaults = SimpleNamespace(duplicate_window=120.0)
        streams = SimpleNamespace(defaults=lambda: defaults, is_known=is_known)

        def tell(outcome: Outcome) -> None:
            told.append((loop.time(), outcome[0].id, outcome[1]))

        outbox = Outbox(cast("Any", streams), lambda *_: None, tell)
        await outbox.attach(cast("Any", Connection()))
        with pytest.raises(ValueError, match="a bug"):
            outbox.take(deque([Outgoing("t", b"", None, (), "a", 2.0, lambda *_: None)]))
        await outbox.wait_empty()

    run(main)
    ((time, id, result),) = told
    assert id == "a"
    assert isinstance(result, TransportLost)
    assert time == pytest.approx(2.0, abs=0.1)
