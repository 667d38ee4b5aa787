"""Handlers that take lists: order, failures, the end."""

from __future__ import annotations

from collections import defaultdict

import anyio
import anyio.lowlevel

from ..._errors import BatchFailed
from ..._events import DeadLettered
from ..._gathering import Batch
from ..._message import Message
from ..._retry import Retry
from ..harness import Harness
from ._case import case
from ._kit import AT_ONCE, Gate, Seen, publish_pairs, publish_text, settle_down, watching

SOON = 0.02
"""Seconds to wait for others, where the cases wait for real ones."""


class SeenLists:
    """A handler that notes each list; others can wait for the messages."""

    def __init__(self) -> None:
        self.lists: list[list[Message]] = []
        self.seen = Seen()

    async def __call__(self, messages: list[Message]) -> None:
        await anyio.lowlevel.checkpoint()
        self.add(messages)

    def add(self, messages: list[Message]) -> None:
        """A list was handled."""
        self.lists.append(messages)
        for message in messages:
            self.seen.add(message)


@case()
async def a_handler_of_lists_sees_every_message_once_and_each_key_in_order(
    harness: Harness,
) -> None:
    topic = harness.topic()
    handler = SeenLists()
    pairs = [(f"key-{number % 7}", f"{number} ") for number in range(200)]
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, handler, group="g", batch=Batch(20, SOON))
        await publish_pairs(bus, topic, pairs)
        await handler.seen.wait(200)
        while bus.health().in_flight:
            await bus.ping()
        assert (await bus.lag(topic, "g")).messages == 0
    wanted: dict[str | None, str] = defaultdict(str)
    for key, body in pairs:
        wanted[key] += body
    assert handler.seen.by_key() == wanted
    assert 1 < max(map(len, handler.lists)) <= 20


@case()
async def a_list_that_is_full_does_not_wait_and_one_that_is_not_waits_no_longer_than_it_should(
    harness: Harness,
) -> None:
    topic = harness.topic()
    handler = SeenLists()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, handler, group="g", batch=Batch(3, 3600.0))
        await publish_text(bus, topic, "abcd")
        await handler.seen.wait(3)
        await settle_down(bus)
        assert handler.seen.text == "abc"
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, handler, group="g", batch=Batch(3, SOON))
        await handler.seen.wait(4)
    assert handler.seen.text == "abcd"
    assert list(map(len, handler.lists)) == [3, 1]


@case()
async def a_list_that_fails_is_repeated_and_its_last_attempt_finds_the_one_that_is_to_blame(
    harness: Harness,
) -> None:
    topic = harness.topic()
    handler = SeenLists()
    runs: list[str] = []

    async def handle(messages: list[Message]) -> None:
        bodies = b"".join(message.body for message in messages)
        runs.append(bodies.decode())
        if b"c" in bodies:
            raise ValueError("no c")
        await handler(messages)

    async with harness.open_bus() as bus, watching(bus) as watch:
        await bus.subscribe(topic, handle, group="g", batch=Batch(4, 3600.0), retry=AT_ONCE)
        await publish_text(bus, topic, "abcd")
        await handler.seen.wait(3)
        event = await watch.wait(DeadLettered)
        while bus.health().in_flight:
            await bus.ping()
        assert (await bus.lag(topic, "g")).messages == 0
    assert runs == ["abcd", "abcd", "a", "b", "c", "d"]
    assert (event.attempts, event.reason) == (3, "ValueError: no c (attempt 3 of 3)")
    assert [message.attempt for message in handler.seen.messages] == [3, 3, 3]


@case()
async def of_a_list_of_which_some_failed_the_rest_is_settled_but_nothing_behind_a_failure(
    harness: Harness,
) -> None:
    topic = harness.topic()
    again = SeenLists()
    failed = anyio.Event()

    async def fail(messages: list[Message]) -> None:
        failed.set()
        raise BatchFailed({m: ValueError("no") for m in messages if m.body == b"b"})

    never = Retry(attempts=3, initial=3600.0, maximum=3600.0)
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, fail, group="g", batch=Batch(4, 3600.0), retry=never)
        await publish_pairs(bus, topic, [("k", "a"), ("k", "b"), ("k", "c"), ("other", "x")])
        await failed.wait()
        while bus.health().in_flight > 2:
            await bus.ping()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, again, group="g", batch=Batch(2, 3600.0))
        await again.seen.wait(2)
        await settle_down(bus)
    assert again.seen.text == "bc"


@case()
async def a_list_that_is_cancelled_at_the_end_comes_again_without_an_attempt(
    harness: Harness,
) -> None:
    topic = harness.topic()
    gate, handler = Gate(), SeenLists()

    async def wait(messages: list[Message]) -> None:
        await gate(messages[0])

    async with harness.open_bus(grace=0.05) as bus:
        await bus.subscribe(topic, wait, group="g", batch=Batch(2, 3600.0))
        await publish_text(bus, topic, "abc")
        await gate.wait(1)
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, handler, group="g", batch=Batch(3, 3600.0))
        await handler.seen.wait(3)
    assert handler.seen.text == "abc"
    assert [message.attempt for message in handler.seen.messages] == [1, 1, 1]
