"""The end of a bus and of a subscription: whatever the way, nothing is left."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from ..._bus import Bus
from ..._errors import BusClosed, BusError, ConsumerGone
from ..._message import Message
from ..._subscription import Subscription
from ..harness import Ability, Harness
from ._case import case
from ._kit import Gate, Seen, publish_text, raising, settle_down


async def _busy(bus: Bus, topic: str) -> Gate:
    """A subscription with a handler that runs, and messages behind it."""
    gate = Gate()
    await bus.subscribe(topic, gate, group="g")
    await publish_text(bus, topic, "abc")
    await gate.wait(1)
    return gate


async def _read(bus: Bus, topic: str) -> None:
    """A subscription that has read something, and waits for more."""
    seen = Seen()
    await bus.subscribe(topic, seen, group="g")
    await bus.publish(topic, b"a")
    await seen.wait(1)


@case()
async def running_handlers_finish_within_the_grace_period(harness: Harness) -> None:
    topic = harness.topic()
    ended = []

    async with harness.open_bus() as bus:
        entered = anyio.Event()

        async def handle(message: Message) -> None:
            entered.set()
            await bus.draining.wait()
            await anyio.sleep(0.01)
            ended.append(message.body)

        await bus.subscribe(topic, handle, group="g")
        await publish_text(bus, topic, "ab")
        await entered.wait()
    assert ended == [b"a"]
    async with harness.open_bus() as bus:
        assert (await bus.lag(topic, "g")).messages == 1


@case()
async def handlers_may_publish_while_the_bus_drains_and_nobody_else(harness: Harness) -> None:
    topic, other = harness.topic(), harness.topic()
    found: list[object] = []

    async with anyio.create_task_group() as tasks, harness.open_bus() as bus:
        entered = anyio.Event()
        outside = anyio.Event()

        async def handle(_: Message) -> None:
            entered.set()
            await outside.wait()
            found.append((await bus.publish(other, b"still")).topic)
            async with bus.open_publisher() as publisher:
                await publisher.send(other, b"there")
            with raising(BusClosed):
                await bus.subscribe(other, Seen())

        async def watch() -> None:
            await bus.draining.wait()
            with raising(BusClosed, "ending"):
                await bus.publish(other, b"late")
            with raising(BusClosed):
                await bus.subscribe(other, Seen())
            with raising(BusClosed):
                async with bus.open_publisher():
                    pass
            found.append("refused")
            assert bus.health().state == "draining"
            outside.set()

        await bus.subscribe(topic, handle, group="g")
        await bus.publish(topic, b"a")
        await entered.wait()
        tasks.start_soon(watch)
    assert found == ["refused", other]
    seen = Seen()
    async with harness.open_bus() as bus:
        await bus.subscribe(other, seen, group="g", order="partition")
        await seen.wait(2)
        assert (await bus.lag(topic, "g")).messages == 0
    assert seen.text == "stillthere"


@case()
async def a_bus_that_has_ended_refuses_everything(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus, bus.open_publisher() as publisher:
        pass
    with raising(BusClosed):
        await bus.publish(topic, b"")
    with raising(BusClosed):
        await publisher.send(topic, b"")
    with raising(BusClosed):
        await bus.subscribe(topic, Seen())
    with raising(BusClosed):
        async with bus.open_messages(topic):
            pass
    with raising(BusClosed):
        await bus.configure_topic(topic)
    with raising(BusClosed):
        await bus.lag(topic, "g")
    with raising(BusClosed):
        await bus.ping()
    with raising(BusClosed):
        async with bus.open_events():
            pass


@case()
async def a_bus_that_has_ended_tells_that_nothing_of_it_is_left(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus(grace=0.01) as bus:
        await bus.subscribe(topic, Gate(), group="g")
        await publish_text(bus, topic, "ab")
        assert bus.census().count()
        assert bus.health().state == "connected"
    assert str(bus.census()) == "nothing"
    health = bus.health()
    assert (health.state, health.in_flight, health.running) == ("closed", 0, 0)
    assert health.last_progress is not None


@case()
async def a_subscription_may_be_closed_twice_and_concurrently_and_the_bus_goes_on(
    harness: Harness,
) -> None:
    topic = harness.topic()
    seen, others = Seen(), Seen()
    async with harness.open_bus() as bus:
        subscription = await bus.subscribe(topic, seen, group="g")
        await bus.subscribe(topic, others, group="others")
        await publish_text(bus, topic, "ab")
        await seen.wait(2)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(subscription.close)
        await subscription.close()
        await publish_text(bus, topic, "c")
        await others.wait(3)
        assert seen.text == "ab"
    await subscription.close()


@case()
async def a_handler_may_close_its_own_subscription(harness: Harness) -> None:
    topic = harness.topic()
    subscription: Subscription
    handled = []

    async def close(message: Message) -> None:
        handled.append(message.body)
        await subscription.close()
        await anyio.lowlevel.checkpoint()
        closed.set()

    async with harness.open_bus() as bus:
        closed = anyio.Event()
        subscription = await bus.subscribe(topic, close, group="g")
        await publish_text(bus, topic, "ab")
        await closed.wait()
        await subscription.close()
        assert handled == [b"a"]
        seen = Seen()
        await bus.subscribe(topic, seen, group="g")
        await seen.wait(1)
        assert seen.text == "b"


@case()
async def closing_a_subscription_waits_for_its_own_handlers_and_for_no_others(
    harness: Harness,
) -> None:
    topic = harness.topic()
    own, others = Gate(), Gate()
    async with harness.open_bus() as bus:
        subscription = await bus.subscribe(topic, own, group="g")
        await bus.subscribe(topic, others, group="others")
        await publish_text(bus, topic, "ab")
        await own.wait(1)
        await others.wait(1)
        closed = anyio.Event()

        async def close() -> None:
            await subscription.close()
            closed.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close)
            await anyio.wait_all_tasks_blocked()
            await settle_down(bus)
            assert not closed.is_set()
            assert len(own.inside) == 1  # it was not cancelled
            own.open()
            await closed.wait()
        assert not own.inside
        assert len(others.inside) == 1
        assert (await bus.lag(topic, "g")).messages == 1
        others.open()


@case()
async def a_handler_may_close_other_subscriptions_of_its_own_bus_and_of_another(
    harness: Harness,
) -> None:
    topic, first, second = (harness.topic() for _ in range(3))
    subscriptions: list[Subscription] = []
    ended = anyio.Event()

    async def close(_: Message) -> None:
        for subscription in subscriptions:
            await subscription.close()
        ended.set()

    async with harness.open_bus() as bus, harness.open_bus() as another:
        seen = Seen()
        subscriptions.append(await bus.subscribe(first, seen, group="g"))
        subscriptions.append(await another.subscribe(second, seen, group="g"))
        await bus.subscribe(topic, close, group="closing")
        await bus.publish(topic, b"close")
        await ended.wait()
        for subscription in subscriptions:
            await subscription.close()
        await bus.publish(first, b"a")
        await bus.publish(second, b"b")
        await settle_down(bus)
        assert not seen.messages
        for subscriber, name in ((bus, first), (another, second)):
            await subscriber.subscribe(name, seen, group="g")
        await seen.wait(2)


@case()
async def a_subscription_that_closes_while_its_bus_ends_ends_once_and_in_time(
    harness: Harness,
) -> None:
    topic = harness.topic()
    gate = Gate()
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(10):
            async with harness.open_bus(grace=0.3) as bus:
                subscription = await bus.subscribe(topic, gate, group="g")
                await publish_text(bus, topic, "ab")
                await gate.wait(1)
                tasks.start_soon(subscription.close)
                tasks.start_soon(subscription.close)
                await anyio.lowlevel.checkpoint()
            await subscription.close()
    async with harness.open_bus() as bus:
        assert (await bus.lag(topic, "g")).messages == 2


@case()
async def a_closing_that_is_cancelled_goes_on_all_the_same(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        gate = Gate()
        subscription = await bus.subscribe(topic, gate, group="g")
        await publish_text(bus, topic, "ab")
        await gate.wait(1)
        with anyio.move_on_after(0.01) as scope:
            await subscription.close()
        assert scope.cancelled_caught
        gate.open()
        await subscription.close()
        assert (await bus.lag(topic, "g")).messages == 1


@case()
async def an_exception_from_the_block_leaves_as_itself_and_waits_for_no_handler(
    harness: Harness,
) -> None:
    topic = harness.topic()
    before = harness.census()
    mine = KeyError("mine")
    with anyio.fail_after(5), raising(KeyError) as raised:
        async with harness.open_bus(grace=60) as bus:
            await _busy(bus, topic)
            raise mine
    left = harness.census().beyond(before)
    assert raised.error is mine
    assert not left


@case()
async def an_exception_group_of_the_program_s_own_is_left_as_it_is(harness: Harness) -> None:
    mine = ExceptionGroup("mine", [KeyError("a"), ExceptionGroup("b", [ValueError("c")])])
    with raising(ExceptionGroup) as raised:
        async with harness.open_bus():
            raise mine
    assert raised.error is mine


@case()
async def a_cancellation_from_outside_passes_and_waits_for_no_handler(harness: Harness) -> None:
    topic = harness.topic()
    before = harness.census()
    with anyio.fail_after(5), anyio.CancelScope() as scope:
        async with harness.open_bus(grace=60) as bus:
            await _busy(bus, topic)
            scope.cancel()
            await anyio.sleep_forever()
    left = harness.census().beyond(before)
    assert scope.cancelled_caught
    assert not left


@case()
async def a_keyboard_interrupt_passes_as_itself(harness: Harness) -> None:
    topic = harness.topic()
    before = harness.census()
    with raising(KeyboardInterrupt):
        async with harness.open_bus(grace=60) as bus:
            await _busy(bus, topic)
            raise KeyboardInterrupt
    left = harness.census().beyond(before)
    assert not left


@case(trio_only=True)
async def a_keyboard_interrupt_in_a_handler_passes_as_itself(harness: Harness) -> None:
    topic = harness.topic()
    before = harness.census()

    async def interrupt(_: Message) -> None:
        raise KeyboardInterrupt

    with raising(KeyboardInterrupt):
        async with harness.open_bus(grace=0.1) as bus:
            await bus.subscribe(topic, interrupt, group="g")
            await bus.publish(topic, b"a")
            await anyio.sleep_forever()
    left = harness.census().beyond(before)
    assert not left


@case(needs=Ability.REMOVE_CONSUMER)
async def a_group_removed_beneath_its_reader_ends_the_bus_with_the_cause(harness: Harness) -> None:
    topic = harness.topic()
    before = harness.census()
    with raising(BusError, "removed") as raised:
        async with harness.open_bus() as bus:
            await _read(bus, topic)
            await harness.remove_consumer(topic, "g")
            await anyio.sleep_forever()
    left = harness.census().beyond(before)
    assert [type(cause) for cause in raised.error.causes] == [ConsumerGone]
    assert isinstance(raised.error.__cause__, ConsumerGone)
    assert not left


@case()
async def a_topic_removed_beneath_its_reader_ends_the_bus_with_the_cause(harness: Harness) -> None:
    topic = harness.topic()
    with raising(BusError, topic) as raised:
        async with harness.open_bus() as bus:
            await _read(bus, topic)
            await bus.remove_topic(topic)
            await anyio.sleep_forever()
    assert isinstance(raised.error.__cause__, ConsumerGone)


@case()
async def an_exception_from_the_block_of_a_bus_that_failed_carries_the_failure_as_a_note(
    harness: Harness,
) -> None:
    topic = harness.topic()
    with raising(KeyError) as raised:
        async with harness.open_bus() as bus:
            await _read(bus, topic)
            try:
                await bus.remove_topic(topic)  # the failure may come before the answer
                await anyio.sleep_forever()
            finally:
                raise KeyError("mine")
    assert "ConsumerGone" in raised.error.__notes__[0]


@case()
async def a_second_bus_is_not_disturbed_by_the_end_of_the_first(harness: Harness) -> None:
    topic = harness.topic()
    seen = Seen()
    async with harness.open_bus() as outer:
        async with harness.open_bus() as inner:
            await inner.subscribe(topic, seen, group="g")
            await outer.publish(topic, b"a", key="k")
            await seen.wait(1)
        await outer.subscribe(topic, seen, group="g")
        await outer.publish(topic, b"b", key="k")
        await seen.wait(2)
    assert seen.text == "ab"


@case()
async def an_idle_bus_runs_one_pull_loop_for_each_subscription_and_no_worker(
    harness: Harness,
) -> None:
    seen = Seen()
    async with harness.open_bus() as bus:
        first, *topics = [harness.topic() for _ in range(6)]
        await bus.subscribe(first, seen, group="g")
        await bus.publish(first, b"a")
        await seen.wait(1)
        await wait_no_worker(bus)
        constant = set()  # a client has tasks of a moment
        for _ in range(10):
            await bus.ping()
            constant.add(bus.census().count("task"))
        for topic in topics:
            await bus.subscribe(topic, seen, group="g")
            await bus.publish(topic, b"a")
        await seen.wait(6)
        await wait_no_worker(bus)
        assert bus.census().roles()["pull loop"] == 6
        while bus.census().count("task") - 5 not in constant:
            await bus.ping()


async def wait_no_worker(bus: Bus) -> None:
    """Wait until every worker has found that there is nothing left to do."""
    while bus.census().roles()["worker"]:
        await bus.ping()
