"""Order per key, and nothing that waits for more than its key."""

from __future__ import annotations

import random
from collections import defaultdict

import anyio
import anyio.lowlevel

from ..._message import Message
from ..._retry import Retry
from ..._topic import TopicOptions
from ..harness import Harness
from ._case import case
from ._kit import AT_ONCE, Gate, Seen, publish_pairs, publish_text, settle_down

DIGITS = "0123456789"


@case()
async def messages_of_a_key_are_handled_in_order_however_long_each_takes(harness: Harness) -> None:
    topic = harness.topic()
    chance = random.Random(7)  # noqa: S311 - no secret
    running: set[str | None] = set()

    async def dawdle(message: Message) -> None:
        assert message.key not in running
        running.add(message.key)
        for _ in range(chance.randrange(4)):
            await anyio.lowlevel.checkpoint()
        if chance.random() < 0.3:
            await anyio.sleep(chance.random() / 200)
        running.remove(message.key)

    seen = Seen(dawdle)
    keys = [f"key-{number}" for number in range(20)]
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g")
        await publish_pairs(bus, topic, [(key, digit) for digit in DIGITS for key in keys])
        await seen.wait(200)
    assert seen.by_key() == dict.fromkeys(keys, DIGITS)


@case()
async def different_keys_run_concurrently_up_to_the_bus_s_limit_and_never_more(
    harness: Harness,
) -> None:
    first, second = harness.topic(), harness.topic()
    gate = Gate()
    async with harness.open_bus(concurrency=8) as bus:
        await bus.subscribe(first, gate, group="g")
        await bus.subscribe(second, gate, group="g")
        for topic in (first, second):
            await publish_pairs(bus, topic, [(f"key-{number}", "x") for number in range(20)])
        await gate.wait(8)
        await settle_down(bus)
        assert bus.health().running == 8
        gate.open()
        while bus.health().in_flight:
            await bus.ping()
    assert gate.peak == 8


@case()
async def a_subscription_keeps_its_own_limit(harness: Harness) -> None:
    topic = harness.topic()
    gate = Gate()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, gate, group="g", concurrency=3)
        await publish_pairs(bus, topic, [(f"key-{number}", "x") for number in range(20)])
        await gate.wait(3)
        await settle_down(bus)
        gate.open()
        while bus.health().in_flight:
            await bus.ping()
    assert gate.peak == 3


@case()
async def a_slow_key_holds_up_nobody_else(harness: Harness) -> None:
    topic = harness.topic()
    gate = Gate()
    seen = Seen()

    async def handle(message: Message) -> None:
        if message.key == "slow":
            await gate(message)
        await seen(message)

    async with harness.open_bus() as bus:
        await bus.subscribe(topic, handle, group="g")
        await publish_text(bus, topic, "ab", key="slow")
        await publish_text(bus, topic, DIGITS, key="fast")
        await seen.wait(10)
        assert seen.by_key() == {"fast": DIGITS}
        gate.open()
        await seen.wait(12)
    assert seen.by_key()["slow"] == "ab"


@case()
async def a_message_that_fails_is_tried_again_in_its_place(harness: Harness) -> None:
    topic = harness.topic()
    attempts: dict[str, list[int]] = defaultdict(list)

    async def fail_twice(message: Message) -> None:
        attempts[message.body.decode()].append(message.attempt)
        if message.body == b"b" and message.attempt < 3:
            raise ValueError("not yet")

    seen = Seen(fail_twice)
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g", retry=AT_ONCE)
        await publish_text(bus, topic, "abcd")
        await seen.wait(4)
    assert seen.text == "abcd"
    assert attempts == {"a": [1], "b": [1, 2, 3], "c": [1], "d": [1]}


@case()
async def other_keys_go_on_while_one_waits_for_its_next_attempt(harness: Harness) -> None:
    topic = harness.topic()
    failed = anyio.Event()

    async def fail_first(message: Message) -> None:
        if message.body == b"!" and "2" not in seen.text:
            failed.set()
            raise ValueError("not before the others")

    seen = Seen(fail_first)
    async with harness.open_bus(grace=0.1) as bus:
        retry = Retry(attempts=None, initial=0.02, maximum=0.1)
        await bus.subscribe(topic, seen, group="g", retry=retry)
        await publish_text(bus, topic, "!?", key="failing")
        await failed.wait()
        await publish_text(bus, topic, "12", key="other")
        await seen.wait(4)
    assert seen.text == "12!?"


@case()
async def messages_without_a_key_wait_for_nobody(harness: Harness) -> None:
    topic = harness.topic()
    gate = Gate()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, gate, group="g")
        await publish_text(bus, topic, DIGITS, key=None)
        await gate.wait(10)
        gate.open()


@case()
async def order_none_runs_one_key_concurrently(harness: Harness) -> None:
    topic = harness.topic()
    gate = Gate()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, gate, group="g", order="none")
        await publish_text(bus, topic, DIGITS)
        await gate.wait(10)
        gate.open()


@case()
async def order_partition_runs_one_message_after_another_whatever_their_keys(
    harness: Harness,
) -> None:
    topic = harness.topic()
    gate = Gate()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, gate, group="g", order="partition")
        await publish_pairs(bus, topic, [(digit, digit) for digit in DIGITS])
        await gate.wait(1)
        await settle_down(bus)
        gate.open()
        while bus.health().in_flight:
            await bus.ping()
    assert gate.peak == 1


@case()
async def order_none_lets_nothing_wait_for_a_message_that_fails(harness: Harness) -> None:
    topic = harness.topic()
    healed = False

    async def fail(message: Message) -> None:
        if message.body == b"0" and not healed:
            raise ValueError("not yet")

    seen = Seen(fail)
    retry = Retry(attempts=None, initial=0.01, maximum=0.01)
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g", order="none", retry=retry)
        await publish_text(bus, topic, DIGITS)
        await seen.wait(9)
        assert sorted(seen.text) == list(DIGITS[1:])
        healed = True
        await seen.wait(10)
    assert seen.text[-1] == "0"


@case()
async def order_partition_holds_all_keys_of_the_partition_behind_one_that_fails(
    harness: Harness,
) -> None:
    topic = harness.topic()

    async def fail_twice(message: Message) -> None:
        if message.key == "1" and message.attempt < 3:
            raise ValueError("not yet")

    seen = Seen(fail_twice)
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g", order="partition", retry=AT_ONCE)
        await publish_pairs(bus, topic, [(digit, digit) for digit in DIGITS])
        await seen.wait(10)
    assert seen.text == DIGITS


@case()
async def order_partition_runs_partitions_beside_each_other(harness: Harness) -> None:
    topic = harness.topic()
    gate = Gate()
    async with harness.open_bus() as bus:
        await bus.configure_topic(topic, TopicOptions(partitions=3))
        await bus.subscribe(topic, gate, group="g", order="partition")
        await publish_pairs(bus, topic, [(f"key-{number}", "x") for number in range(60)])
        await gate.wait(3)
        await settle_down(bus)
        assert sorted(message.position.partition for message in gate.inside) == [0, 1, 2]
        gate.open()
        while bus.health().in_flight:
            await bus.ping()
    assert gate.peak == 3
