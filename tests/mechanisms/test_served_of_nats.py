"""What is read on a NATS server and goes beneath the reader, at whatever moment: nobody makes it
again, and the error names what went."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import trio

from tbus import BusError, Message, TopicOptions, open_bus
from tbus._config import NatsOptions
from tbus._errors import ConsumerGone
from tbus._events import Event
from tbus._transport import FeedRequest
from tbus.transports.nats._errors import ApiError
from tbus.transports.nats._served import ServedConsumer
from tbus.transports.nats._session import Session
from tbus.transports.nats._streams import Streams
from tests.brokers.nats import NatsServer

MINE = TopicOptions(storage="memory", description="mine")


async def ignore(_: Message) -> None:
    """Handle nothing."""


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Awaitable[None]]], None]:
    """Has something done after each answer of JetStream's API: `do(session, call)`."""
    api = Session.api

    def install(do: Callable[[Session, str], Awaitable[None]]) -> None:
        async def ask(self: Session, call: str, *arguments: Any, **options: Any) -> Any:
            answer: Any = None
            problem: ApiError | None = None
            try:
                answer = await api(self, call, *arguments, **options)
            except ApiError as error:
                problem = error
            monkeypatch.setattr(Session, "api", api)
            await do(self, call)
            monkeypatch.setattr(Session, "api", ask)
            if problem is not None:
                raise problem
            return answer

        monkeypatch.setattr(Session, "api", ask)

    return install


@pytest.mark.parametrize("answer", ["CONSUMER.CREATE", "STREAM.INFO", "CONSUMER.INFO"])
async def test_a_topic_removed_just_after_subscribe_ends_the_bus_and_says_what_is_gone(
    shared_nats_server: NatsServer, topic: str, between: Any, answer: str
) -> None:
    made = removed = 0

    async def remove(session: Session, call: str) -> None:
        nonlocal made, removed
        # The first is the one that `subscribe` waits for.
        made += call.startswith(f"CONSUMER.CREATE.{topic}")
        if made and not removed and call.startswith(f"{answer}.{topic}"):
            removed += 1
            await session.api(f"STREAM.DELETE.{topic}")

    async def read() -> None:
        async with open_bus(shared_nats_server.url) as bus:
            await bus.configure_topic(topic, MINE)
            await bus.subscribe(topic, ignore, group="g")
            await trio.sleep_forever()

    between(remove)
    with trio.fail_after(20):
        with pytest.raises(BusError) as caught:
            await read()
        async with open_bus(shared_nats_server.url) as bus:
            assert await bus.get_topic(topic) is None
    [cause] = caught.value.causes
    assert isinstance(cause, ConsumerGone)
    assert f"the stream of topic {topic!r} was removed" in str(cause)
    assert "Open the subscription again" in str(cause)


@pytest.mark.parametrize("group", ["g", None])
@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_topic_that_the_own_bus_removes_while_it_is_looked_at_is_not_made_again(
    shared_nats_server: NatsServer, topic: str, between: Any, group: str | None, is_made_again: bool
) -> None:
    events: list[Event] = []
    streams = Streams(NatsOptions(), events.append)
    removed = 0

    async def remove(session: Session, call: str) -> None:
        nonlocal removed
        if call == f"STREAM.INFO.{topic}" and not removed:
            removed += 1
            await streams.remove(session, topic)
            if is_made_again:
                await streams.ensure(session, topic)

    async def look_twice(served: ServedConsumer, session: Session) -> None:
        with suppress(ApiError):
            await served.find_or_make(session, None)
        await served.find_or_make(session, None)

    async def look() -> None:
        session = await Session.connect(
            NatsOptions(), f"127.0.0.1:{shared_nats_server.port}", "test"
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(session.close)
            await streams.configure(session, topic, MINE, "create_or_update")
            request = FeedRequest(topic, group, order="none")
            served = ServedConsumer(request, "g", streams, events.append)
            await served.find_or_make(session, None)
            between(remove)
            streams.forget(topic)  # as the removal does at first
            # What was found then is gone at the next question, or at the next look.
            with pytest.raises(ConsumerGone, match=f"the stream of topic '{topic}' was removed"):
                await look_twice(served, session)
            assert removed
            assert (await streams.info(session, topic) is not None) == is_made_again

    asyncio.run(look())
