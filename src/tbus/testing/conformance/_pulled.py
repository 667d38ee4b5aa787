"""Messages that the program pulls itself."""

from __future__ import annotations

from contextlib import nullcontext

import anyio

from ..harness import Harness
from ._case import case
from ._failures import ONCE
from ._kit import AT_ONCE, Seen, publish_text, raising


@case()
async def pulled_messages_come_in_order_and_are_settled_by_leaving_their_block(
    harness: Harness,
) -> None:
    topic = harness.topic()
    got = ""
    async with harness.open_bus() as bus:
        await publish_text(bus, topic, "abc")
        async with bus.open_messages(topic, group="g") as messages:
            async for message in messages:
                async with message:
                    got += message.body.decode()
                if len(got) == 3:
                    break
        assert (await bus.lag(topic, "g")).messages == 0
    assert got == "abc"


@case()
async def an_exception_in_a_message_s_block_goes_on_and_its_next_attempt_comes(
    harness: Harness,
) -> None:
    topic = harness.topic()
    got = []
    async with harness.open_bus() as bus:
        await publish_text(bus, topic, "ab")
        async with bus.open_messages(topic, group="g", retry=AT_ONCE) as messages:
            async for message in messages:
                first = message.attempt == 1
                with raising(ValueError, "mine") if first else nullcontext():
                    async with message:
                        got.append((message.body, message.attempt))
                        if first:
                            raise ValueError("mine")
                if len(got) == 4:
                    break
    assert got == [(b"a", 1), (b"a", 2), (b"b", 1), (b"b", 2)]


@case()
async def a_pulled_message_whose_attempts_are_used_up_is_dead_lettered(harness: Harness) -> None:
    topic = harness.topic()
    letters = Seen()
    async with harness.open_bus() as bus:
        await publish_text(bus, topic, "a")
        async with bus.open_messages(topic, group="g", retry=ONCE) as messages:
            async for message in messages:
                with raising(ValueError):
                    async with message:
                        raise ValueError("never")
                break
        await bus.subscribe(f"{topic}.dead", letters, group="g")
        await letters.wait(1)
        assert (await bus.lag(topic, "g")).messages == 0
    assert letters.text == "a"


@case()
async def leaving_gives_back_what_was_not_settled_without_an_attempt(harness: Harness) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus() as bus:
        await publish_text(bus, topic, "abc", key="k")
        async with bus.open_messages(topic, group="g") as messages:
            async for message in messages:
                assert message.body == b"a"
                break
        with raising(KeyError):
            async with bus.open_messages(topic, group="g") as messages:
                async for message in messages:
                    assert (message.body, message.attempt) == (b"a", 1)
                    raise KeyError
        await bus.subscribe(topic, seen, group="g")
        await seen.wait(3)
    assert seen.text == "abc"
    assert [message.attempt for message in seen.messages] == [1, 1, 1]


@case()
async def messages_of_several_keys_are_out_at_once_and_those_of_one_are_not(
    harness: Harness,
) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        await publish_text(bus, topic, "ab", key="one")
        await publish_text(bus, topic, "cd", key="two")
        async with bus.open_messages(topic, group="g") as messages:
            first = await anext(messages)
            second = await anext(messages)
            assert {first.body, second.body} == {b"a", b"c"}
            with anyio.move_on_after(0.05) as scope:
                await anext(messages)
            assert scope.cancelled_caught
            async with second:
                pass
            third = await anext(messages)
            assert third.body == b"d"
            async with first, third:
                pass
            fourth = await anext(messages)
            assert fourth.body == b"b"
            async with fourth:
                pass


@case()
async def no_more_messages_are_out_at_once_than_concurrency_allows(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        await publish_text(bus, topic, "abc", key=None)
        async with bus.open_messages(topic, group="g", concurrency=2) as messages:
            first = await anext(messages)
            await anext(messages)
            with anyio.move_on_after(0.05) as scope:
                await anext(messages)
            assert scope.cancelled_caught
            async with first:
                pass
            assert (await anext(messages)).body == b"c"


@case()
async def a_message_is_settled_once(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        await publish_text(bus, topic, "a")
        async with bus.open_messages(topic, group="g") as messages:
            message = await anext(messages)
            async with message:
                pass
            with raising(RuntimeError, "settled"):
                async with message:
                    pass


@case()
async def a_cancellation_in_a_message_s_block_gives_it_back_without_an_attempt(
    harness: Harness,
) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        await publish_text(bus, topic, "ab")
        with anyio.CancelScope() as scope:
            async with bus.open_messages(topic, group="g") as messages, await anext(messages):
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        async with bus.open_messages(topic, group="g") as messages:
            message = await anext(messages)
            assert (message.body, message.attempt) == (b"a", 1)
            async with message:
                pass


@case()
async def the_iteration_ends_with_the_bus(harness: Harness) -> None:
    topic = harness.topic()
    waiting = anyio.Event()
    ended = anyio.Event()

    async with anyio.create_task_group() as tasks:
        async with harness.open_bus() as bus:

            async def read() -> None:
                async with bus.open_messages(topic, group="g") as messages:
                    waiting.set()
                    async for _ in messages:
                        raise AssertionError("there is nothing to read")
                ended.set()

            tasks.start_soon(read)
            await waiting.wait()
        await ended.wait()
