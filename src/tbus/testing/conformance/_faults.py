"""A broker that breaks: nothing acknowledged is lost, no order changes, every end is in time."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from ..._bus import Bus
from ..._errors import OutcomeUnknown, PublishRefused, TransportLost
from ..._message import Message, Position
from ..harness import Ability, Harness
from ._case import case
from ._kit import Gate, Seen, publish_text, raising

KEYS = 7


class _Traffic:
    """Keys to which events are published one after another, and a handler that notes the
    first completion of each."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, list[int]] = defaultdict(list)
        self.completed: dict[str, list[int]] = defaultdict(list)
        self.repeats = 0
        self.count = 0
        self._places: set[Position] = set()
        self._chance = random.Random(3)  # noqa: S311 - no secret
        self._more = anyio.Event()
        self._stop = False

    async def handle(self, message: Message) -> None:
        if self._chance.random() < 0.5:
            await anyio.sleep(self._chance.random() / 500)
        assert message.key is not None
        if message.position in self._places:
            self.repeats += 1
            return
        self._places.add(message.position)
        self.completed[message.key].append(int(message.body))
        self.count += 1
        self._more.set()
        self._more = anyio.Event()

    async def publish(self, bus: Bus, topic: str) -> None:
        """Publish for every key, until `stop`; what is unknown is repeated with its id."""
        async with anyio.create_task_group() as tasks:
            for number in range(KEYS):
                tasks.start_soon(self._publish_for, bus, topic, f"key-{number}")

    async def _publish_for(self, bus: Bus, topic: str, key: str) -> None:
        number = 0
        while not self._stop:
            event_id = f"{topic}-{key}-{number}"
            while True:
                try:
                    await bus.publish(topic, str(number).encode(), key=key, id=event_id, timeout=5)
                except (OutcomeUnknown, TransportLost, PublishRefused):
                    await anyio.sleep(0.01)
                else:
                    break
            self.acknowledged[key].append(number)
            number += 1
            await anyio.sleep(0.001)

    def stop(self) -> None:
        """Publish nothing more."""
        self._stop = True

    async def wait(self, more: int) -> None:
        """Wait until so many more are completed."""
        wanted = self.count + more
        while self.count < wanted:
            await self._more.wait()

    async def wait_all(self) -> None:
        """Wait until everything acknowledged is completed."""
        while self.count < sum(map(len, self.acknowledged.values())):
            await self._more.wait()

    def check(self, repeats: int) -> None:
        """Nothing is lost, the order is kept, and few came twice."""
        for key, numbers in self.acknowledged.items():
            assert self.completed[key] == numbers, key
        assert self.repeats <= repeats, f"{self.repeats} messages came again"


async def _through(
    harness: Harness,
    fault: Callable[[], Awaitable[object]],
    *,
    times: int,
    repeats: int = 0,
    more: int = 50,
) -> None:
    topic = harness.topic()
    traffic = _Traffic()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, traffic.handle, group="g", max_in_flight=200)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(traffic.publish, bus, topic)
            for _ in range(times):
                await traffic.wait(more)
                await fault()
            await traffic.wait(more)
            traffic.stop()
        await traffic.wait_all()
    traffic.check(repeats)


@case(needs=Ability.CUT | Ability.DEDUPLICATE, limit=50)
async def nothing_acknowledged_is_lost_or_changes_its_order_when_connections_are_cut(
    harness: Harness,
) -> None:
    await _through(harness, harness.cut, times=5)


@case(needs=Ability.RESTART | Ability.DEDUPLICATE, limit=50)
async def nothing_acknowledged_is_lost_or_changes_its_order_when_the_broker_is_killed(
    harness: Harness,
) -> None:
    async def restart() -> None:
        await harness.kill()
        await harness.start()

    # What was settled, and not yet written by the broker, comes again.
    await _through(harness, restart, times=2, repeats=400)


@case(needs=Ability.SUSPEND | Ability.DEDUPLICATE, limit=50)
async def nothing_acknowledged_is_lost_or_changes_its_order_when_the_broker_stands_still(
    harness: Harness,
) -> None:
    async def pause() -> None:
        await harness.suspend()
        await anyio.sleep(0.3)
        await harness.resume()

    await _through(harness, pause, times=3)


@case(needs=Ability.SUSPEND)
async def a_publish_to_a_silent_broker_is_unknown_within_its_time(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus(grace=0.1) as bus:
        await bus.publish(topic, b"a")
        await harness.suspend()
        before = anyio.current_time()
        with raising(OutcomeUnknown, topic, "the-id") as raised:
            await bus.publish(topic, b"b", id="the-id", timeout=0.3)
        assert 0.2 < anyio.current_time() - before < 1.0
        assert raised.error.event_id == "the-id"
        await harness.resume()


async def _leave_in_time(
    harness: Harness,
    breaking: Callable[[Bus, str], Awaitable[None]],
    mend: Callable[[], Awaitable[None]],
) -> None:
    topic = harness.topic()
    before = harness.census()
    async with harness.open_bus(grace=0.5) as bus:
        gate = Gate()
        await bus.subscribe(topic, gate, group="g")
        await publish_text(bus, topic, "abc")
        await gate.wait(1)
        await breaking(bus, topic)
        left_at = anyio.current_time()
    left = harness.census().beyond(before)
    took = anyio.current_time() - left_at
    await mend()
    assert took < 1.5, f"it took {took} s"
    assert not left


@case(needs=Ability.SUSPEND, limit=30)
async def leaving_with_a_silent_broker_ends_in_time_and_leaves_nothing(harness: Harness) -> None:
    async def suspend(*_: object) -> None:
        await harness.suspend()

    await _leave_in_time(harness, suspend, harness.resume)


@case(needs=Ability.RESTART, limit=30)
async def leaving_with_a_dead_broker_ends_in_time_and_leaves_nothing(harness: Harness) -> None:
    async def kill(bus: Bus, topic: str) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(_publish_and_fail, bus, topic)
            await harness.kill()
            tasks.cancel_scope.cancel()

    await _leave_in_time(harness, kill, harness.start)


async def _publish_and_fail(bus: Bus, topic: str) -> None:
    try:
        await bus.publish(topic, b"x")
    except (OutcomeUnknown, TransportLost, PublishRefused):
        pass


@case(needs=Ability.RESTART, limit=30)
async def a_bus_cannot_be_opened_over_a_dead_broker_and_says_where_and_why(
    harness: Harness,
) -> None:
    await harness.kill()
    before = harness.census()
    with anyio.fail_after(6), raising(TransportLost, "127.0.0.1:"):
        async with harness.open_bus():
            raise AssertionError("it opened")
    left = harness.census().beyond(before)
    await harness.start()
    assert not left


@case(needs=Ability.CUT)
async def messages_in_hand_stay_in_hand_through_a_cut(harness: Harness) -> None:
    topic = harness.topic()
    gate = Gate()
    seen = Seen()

    async def handle(message: Message) -> None:
        await gate(message)
        await seen(message)

    async with harness.open_bus() as bus:
        await bus.subscribe(topic, handle, group="g")
        await publish_text(bus, topic, "abc", key="one")
        await publish_text(bus, topic, "123", key="two")
        await gate.wait(2)
        await harness.cut()
        await bus.publish(topic, b"d", key="one")
        gate.open()
        await seen.wait(7)
    assert seen.by_key() == {"one": "abcd", "two": "123"}
    assert all(message.attempt == 1 for message in seen.messages)
