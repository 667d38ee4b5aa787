"""The memory broker: named ones, topics and strategies, the way in and out."""

from __future__ import annotations

import anyio
import pytest
import trio

from tbus._errors import ConfigurationError
from tbus._topic import TopicOptions
from tbus._transport import Feed, FeedRequest, Transport
from tbus.transports.memory import MemoryTransport
from tests.memory.kit import Outbox, bodies, finish, open_one, receive_count


def _fits(transport: MemoryTransport) -> Transport:
    """For the type checker: it is what the bus asks for."""
    return transport


async def test_transports_of_one_name_share_a_broker_that_ends_with_the_last() -> None:
    async with open_one("one") as first:
        async with open_one("one") as second, open_one("two") as other, open_one() as own:
            Outbox(first).send("a")
            feed = await second.open_feed(FeedRequest("t"))
            assert bodies(await feed.receive()) == "a"
            assert await other.list_topics() == await own.list_topics() == []
        assert await first.list_topics() == ["t"]
    async with open_one("one") as again:
        assert await again.list_topics() == []


async def test_a_transport_that_ends_gives_back_what_its_feeds_hold() -> None:
    async with open_one("one") as stays:
        async with open_one("one") as leaves:
            Outbox(leaves).send("a")
            feed = await leaves.open_feed(FeedRequest("t", group="g"))
            await feed.receive()
        successor = await stays.open_feed(FeedRequest("t", group="g"))
        assert bodies(await successor.receive()) == "a"


async def test_a_name_cannot_be_shared_between_event_loops() -> None:
    async def elsewhere() -> None:
        async with open_one("one"):
            pass

    async with open_one("one"):
        with pytest.raises(ConfigurationError, match="another event loop"):
            await trio.to_thread.run_sync(trio.run, elsewhere)
    await trio.to_thread.run_sync(trio.run, elsewhere)


async def test_what_the_body_raises_leaves_as_itself() -> None:
    with pytest.raises(KeyError):
        async with open_one("one"):
            raise KeyError("mine")
    own = ExceptionGroup("mine", [KeyError("k")])
    with pytest.raises(ExceptionGroup) as caught:  # noqa: ASYNC401 - the same object, not one like it
        async with open_one("one"):
            raise own
    assert caught.value is own
    with trio.CancelScope() as scope:
        async with open_one("one"):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    async with open_one("one") as transport:
        assert await transport.list_topics() == []


async def test_a_topic_is_made_changed_or_refused_as_the_strategy_says() -> None:
    async with open_one() as transport:
        two = TopicOptions(partitions=2, max_messages=10)
        with pytest.raises(ConfigurationError, match="no topic 't'"):
            await transport.configure_topic("t", two, "validate_only")
        await transport.configure_topic("t", two, "skip")
        assert await transport.get_topic("t") is None
        assert await transport.configure_topic("t", two, "create_only") == two
        assert await transport.configure_topic("t", two, "validate_only") == two
        more = TopicOptions(partitions=2, max_messages=20)
        with pytest.raises(ConfigurationError, match="max_messages: wanted 20, found 10"):
            await transport.configure_topic("t", more, "validate_only")
        assert await transport.configure_topic("t", more, "create_only") == two
        assert await transport.configure_topic("t", more, "skip") == two
        assert await transport.configure_topic("t", more, "create_or_update") == more
        assert await transport.get_topic("t") == more
        with pytest.raises(ConfigurationError, match="partitions: wanted 3, found 2"):
            await transport.configure_topic("t", TopicOptions(partitions=3), "create_or_update")


def test_it_works_on_asyncio_with_cuts_and_takeover() -> None:
    async def run() -> None:
        async with open_one("one") as transport:
            outbox = Outbox(transport)
            owner = await transport.open_feed(FeedRequest("t", group="g", ack_wait=0.01))
            got: list[str] = []

            async def receive(feed: Feed) -> None:
                while len(got) < 3:
                    batch = await feed.receive()
                    got.extend(bodies(batch))
                    finish(feed, batch)

            async with anyio.create_task_group() as group:
                group.start_soon(receive, owner)
                await anyio.wait_all_tasks_blocked()
                outbox.send_all("ab")
                await anyio.wait_all_tasks_blocked()
                transport.faults.cut_feeds(0.01)
                outbox.send("c")
            assert got == ["a", "b", "c"]
            outbox.send("d")
            await receive_count(owner, 1)
            await owner.aclose()
            successor = await transport.open_feed(FeedRequest("t", group="g"))
            assert bodies(await successor.receive()) == "d"
            with anyio.move_on_after(0) as scope:
                await successor.receive()
            assert scope.cancelled_caught

    anyio.run(run, backend="asyncio")
