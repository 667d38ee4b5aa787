"""Keys that are parked: what waits, what goes to the dead-letter topic, and how it comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus import (
    Bus,
    ConfigurationError,
    DeadLettered,
    Discarded,
    KeyBacklog,
    KeyParked,
    KeyReleased,
    Message,
    ParkedKey,
    Quarantine,
    Reject,
    Retry,
    Subscription,
    open_bus,
)
from tbus._transport import Verdict
from tbus.testing.conformance._kit import Watch, watching

from .kit import make_delivery
from .test_intake import open_rig

TWICE = Retry(attempts=2, initial=1.0, jitter=0.0)


class Shop:
    """A handler that fails for what is poison, and notes what it handled, and with which
    attempt it failed."""

    def __init__(self, poison: Iterable[str] = ("p",)) -> None:
        self.poison = set(poison)
        self.handled: list[str] = []
        self.failed: list[tuple[str, int]] = []
        self.bus: Bus
        self.subscription: Subscription
        self.watch: Watch

    async def __call__(self, message: Message) -> None:
        body = message.body.decode()
        await trio.lowlevel.checkpoint()
        if body in self.poison:
            self.failed.append((body, message.attempt))
            raise ValueError("bad milk")
        self.handled.append(body)

    async def sell(self, bodies: Iterable[str], key: str | None = "k") -> None:
        for body in bodies:
            await self.bus.publish("t", body.encode(), key=key)
        await trio.sleep(100)

    async def dead(self) -> list[tuple[str, int, str]]:
        """Body, attempts, reason of every letter, in order."""
        async with self.bus.open_dead_letters("t") as letters:
            return [(one.body.decode(), one.attempts, one.reason) async for one in letters]

    async def lag(self) -> int:
        return (await self.bus.lag("t", "g")).messages


@asynccontextmanager
async def open_shop(shop: Shop | None = None, **options: Any) -> AsyncIterator[Shop]:
    shop = Shop() if shop is None else shop
    async with open_bus() as bus, watching(bus) as watch:
        shop.bus, shop.watch = bus, watch
        options.setdefault("quarantine", "park")
        shop.subscription = await bus.subscribe("t", shop, group="g", retry=TWICE, **options)
        yield shop


# --- parked ---


async def test_a_key_whose_message_used_up_its_attempts_waits_and_all_others_flow(
    autojump_clock: MockClock,
) -> None:
    async with open_shop() as shop:
        await shop.sell("apb")
        await shop.sell("xy", "other")
        assert shop.handled == ["a", "x", "y"]
        assert shop.failed == [("p", 1), ("p", 2)]
        assert await shop.lag() == 2
        assert await shop.dead() == []


async def test_what_is_parked_is_listed_and_told(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        assert shop.subscription.parked() == ()
        await shop.sell("apbc")
        [parked] = shop.subscription.parked()
        reason = "ValueError: bad milk (attempt 2 of 2)"
        assert parked == ParkedKey("k", parked.since, 3, reason)
        assert timedelta(0) <= datetime.now(UTC) - parked.since < timedelta(minutes=1)
        told = shop.watch.of(KeyParked)
        assert [(one.topic, one.group, one.key, one.reason) for one in told] == [
            ("t", "g", "k", reason)
        ]


async def test_a_released_key_is_handled_in_order_and_its_attempts_begin_anew(
    autojump_clock: MockClock,
) -> None:
    async with open_shop() as shop:
        await shop.sell("apb")
        await shop.sell("c")
        assert shop.subscription.release("k")
        await trio.sleep(100)
        assert shop.failed == [("p", 1), ("p", 2), ("p", 1), ("p", 2)]
        assert len(shop.watch.of(KeyParked)) == 2
        shop.poison.clear()
        assert shop.subscription.release("k")
        await trio.sleep(100)
        assert shop.handled == ["a", "p", "b", "c"]
        assert shop.watch.of(KeyReleased)[-1] == KeyReleased("t", "g", "k", 3)
        assert shop.subscription.parked() == ()
        await shop.sell("d")
        assert shop.handled[-1] == "d"
        assert await shop.lag() == 0


async def test_a_key_that_is_not_parked_is_not_released(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        assert not shop.subscription.release("k")
        assert shop.watch.of(KeyReleased) == []


async def test_what_is_discarded_is_settled_and_told_and_the_key_stays_parked(
    autojump_clock: MockClock,
) -> None:
    async with open_shop() as shop:
        await shop.sell("apb")
        assert await shop.subscription.discard("k") == 2
        await wait_all_tasks_blocked()
        assert await shop.lag() == 0
        told = shop.watch.of(Discarded)
        assert [one.position for one in told] == ["0:2", "0:3"]
        assert "while its key was parked: ValueError: bad milk" in told[0].reason
        await shop.sell("c")
        assert [one.waiting for one in shop.subscription.parked()] == [1]
        shop.subscription.release("k")
        await trio.sleep(1)
        assert shop.handled == ["a", "c"]
        assert await shop.subscription.discard("k") == 0


async def test_without_a_quarantine_one_message_is_dead_lettered_and_its_key_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with open_shop(quarantine=None) as shop:
        await shop.sell("apb")
        assert shop.handled == ["a", "b"]
        assert shop.subscription.parked() == ()


async def test_a_message_that_the_handler_rejects_is_dead_lettered_alone(
    autojump_clock: MockClock,
) -> None:
    async def handle(message: Message) -> None:
        if message.body == b"p":
            raise Reject("not for us")

    async with open_bus() as bus:
        subscription = await bus.subscribe("t", handle, group="g", quarantine="park")
        for body in (b"p", b"a"):
            await bus.publish("t", body, key="k")
        await trio.sleep(1)
        assert subscription.parked() == ()
        assert (await bus.lag("t", "g")).messages == 0


async def test_messages_without_a_key_are_dead_lettered_alone(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        await shop.sell("pab", None)
        assert sorted(shop.handled) == ["a", "b"]
        assert [body for body, _, _ in await shop.dead()] == ["p"]


async def test_a_failure_while_the_bus_drains_keeps_the_message_unsettled(
    autojump_clock: MockClock,
) -> None:
    inside = trio.Event()

    async def fail_late(message: Message) -> None:
        inside.set()
        await trio.sleep(5)
        raise ValueError("late")

    async with open_bus("memory://drained") as keeper:
        async with open_bus("memory://drained") as bus:
            once = Retry(attempts=1)
            await bus.subscribe("t", fail_late, group="g", retry=once, quarantine="park")
            await bus.publish("t", b"p", key="k")
            await inside.wait()
            left = trio.current_time()
        assert trio.current_time() - left == 5
        assert (await keeper.lag("t", "g")).messages == 1


# --- the bound ---


async def test_beyond_the_limit_later_messages_are_dead_lettered_in_order(
    autojump_clock: MockClock,
) -> None:
    async with open_shop(quarantine=Quarantine("park", limit=3)) as shop:
        await shop.sell("pabcde")
        await shop.sell("fg")
        assert [(body, attempts) for body, attempts, _ in await shop.dead()] == [
            ("c", 0), ("d", 0), ("e", 0), ("f", 0), ("g", 0)
        ]  # fmt: skip
        assert "its key is parked: ValueError: bad milk" in (await shop.dead())[0][2]
        assert [one.waiting for one in shop.subscription.parked()] == [3]
        shop.poison.clear()
        shop.subscription.release("k")
        await shop.sell("h")
        assert shop.handled == ["p", "a", "b", "h"]


async def test_a_quarter_of_what_may_be_in_flight_is_the_limit_of_all_keys_together(
    autojump_clock: MockClock,
) -> None:
    async with open_shop(Shop("pq"), max_in_flight=16) as shop:
        await shop.sell("pa", "one")
        await shop.sell("qbc", "two")
        assert [(one.key, one.waiting) for one in shop.subscription.parked()] == [
            ("one", 2), ("two", 2)
        ]  # fmt: skip
        assert [body for body, _, _ in await shop.dead()] == ["c"]
        await shop.sell(map(str, range(100)), "one")
        await shop.sell(map(str, range(50)), "free")
        assert len(shop.handled) == 50
        assert len(await shop.dead()) == 101


async def test_a_key_for_which_there_is_no_room_goes_to_the_dead_letters_from_its_poison_on(
    autojump_clock: MockClock,
) -> None:
    async with open_shop(Shop("pq"), quarantine=Quarantine(limit=1)) as shop:
        await shop.sell("p", "one")
        await shop.sell("qa", "two")
        assert [body for body, _, _ in await shop.dead()] == ["q", "a"]
        assert [(one.key, one.waiting) for one in shop.subscription.parked()] == [
            ("one", 1), ("two", 0)
        ]  # fmt: skip


async def test_a_key_that_has_begun_to_overflow_goes_on_to_though_there_is_room_again(
    autojump_clock: MockClock,
) -> None:
    async with open_shop(Shop("pq"), quarantine=Quarantine(limit=2)) as shop:
        await shop.sell("p", "one")
        await shop.sell("qa", "two")
        shop.poison.clear()
        shop.subscription.release("one")
        await shop.sell("b", "two")
        assert [body for body, _, _ in await shop.dead()] == ["a", "b"]


async def test_what_overflowed_and_is_not_yet_stored_comes_back_with_its_key(
    autojump_clock: MockClock,
) -> None:
    async with open_rig(
        retry=Retry(attempts=1, initial=5.0, jitter=0.0), quarantine=Quarantine(limit=1)
    ) as rig:
        rig.raises["p"] = [ValueError("bad")]
        rig.bury_errors = [ConfigurationError("down") for _ in range(3)]  # nothing is stored
        rig.give("p", "a", "b")
        await wait_all_tasks_blocked()
        assert rig.feed.settled == []
        rig.intake.keys.release("k")
        await wait_all_tasks_blocked()
        assert [(body, attempt) for body, attempt, _ in rig.runs] == [
            ("p", 1), ("p", 1), ("a", 1), ("b", 1)
        ]  # fmt: skip
        assert rig.buried == []
        await trio.sleep(100)
        assert rig.buried == []


async def test_without_a_dead_letter_topic_everything_waits(autojump_clock: MockClock) -> None:
    async with open_shop(quarantine=Quarantine(limit=1), dead_letter=None) as shop:
        await shop.sell("pabc")
        assert [one.waiting for one in shop.subscription.parked()] == [4]
        shop.poison.clear()
        shop.subscription.release("k")
        await trio.sleep(1)
        assert shop.handled == ["p", "a", "b", "c"]


# --- to the dead letters ---


async def test_a_quarantined_key_goes_to_the_dead_letters_in_order_until_it_is_released(
    autojump_clock: MockClock,
) -> None:
    async with open_shop(quarantine="dead_letter") as shop:
        await shop.sell("xpab")
        await shop.sell("c")
        await shop.sell("o", "other")
        assert shop.handled == ["x", "o"]
        assert [(body, attempts) for body, attempts, _ in await shop.dead()] == [
            ("p", 2), ("a", 0), ("b", 0), ("c", 0)
        ]  # fmt: skip
        assert await shop.lag() == 0
        assert [(one.key, one.waiting) for one in shop.subscription.parked()] == [("k", 0)]
        assert len(shop.watch.of(DeadLettered)) == 4
        shop.subscription.release("k")
        await shop.sell("d")
        assert shop.handled == ["x", "o", "d"]


async def test_what_comes_while_a_letter_cannot_be_stored_stands_behind_it(
    autojump_clock: MockClock,
) -> None:
    retry = Retry(attempts=1, initial=5.0, jitter=0.0)
    async with open_rig(retry=retry, quarantine=Quarantine("dead_letter")) as rig:
        rig.raises["p"] = [ValueError("bad")]
        rig.bury_errors = [ConfigurationError("down")]  # nothing is stored
        rig.give("p", "a")
        await wait_all_tasks_blocked()
        rig.give("b")
        await trio.sleep(100)
        assert [body for body, _, _ in rig.buried] == ["p", "a", "b"]


# --- by call ---


async def test_a_key_may_be_parked_before_anything_of_it_has_come(
    autojump_clock: MockClock,
) -> None:
    async with open_shop(quarantine=None) as shop:
        assert shop.subscription.park("k", "the shop is closed")
        assert not shop.subscription.park("k")
        await shop.sell("ab")
        assert shop.handled == []
        [parked] = shop.subscription.parked()
        assert (parked.key, parked.waiting, parked.reason) == ("k", 2, "the shop is closed")
        shop.subscription.release("k")
        await trio.sleep(1)
        assert shop.handled == ["a", "b"]


async def test_a_handler_that_runs_while_its_key_is_parked_goes_on_and_is_the_last(
    autojump_clock: MockClock,
) -> None:
    handled = []
    inside = trio.Event()

    async def handle(message: Message) -> None:
        inside.set()
        await trio.sleep(5)
        handled.append(message.body)

    async with open_bus() as bus:
        subscription = await bus.subscribe("t", handle, group="g")
        for body in (b"a", b"b"):
            await bus.publish("t", body, key="k")
        await inside.wait()
        subscription.park("k")
        await trio.sleep(100)
        assert handled == [b"a"]
        assert (await bus.lag("t", "g")).messages == 1


async def test_a_message_between_two_attempts_waits_too(autojump_clock: MockClock) -> None:
    async with open_shop() as shop:
        await shop.bus.publish("t", b"p", key="k")
        await wait_all_tasks_blocked()
        assert shop.failed == [("p", 1)]
        shop.subscription.park("k")
        await trio.sleep(100)
        assert shop.failed == [("p", 1)]
        shop.poison.clear()
        shop.subscription.release("k")
        await trio.sleep(1)
        assert shop.handled == ["p"]


async def test_a_handler_that_fails_after_its_key_was_parked_is_not_tried_again(
    autojump_clock: MockClock,
) -> None:
    async with open_rig() as rig:
        fail = trio.Event()

        async def wait(message: Message) -> None:
            await fail.wait()
            raise ValueError("bad")

        rig.before_return = wait
        rig.give("p", "a")
        await wait_all_tasks_blocked()
        rig.intake.keys.park("k", "why not")
        fail.set()
        await trio.sleep(100)
        assert [body for body, _, _ in rig.runs] == ["p"]
        assert rig.feed.settled == []


async def test_parking_is_the_remedy_for_a_key_that_holds_too_much(
    autojump_clock: MockClock,
) -> None:
    handled = []

    async def handle(message: Message) -> None:
        if message.key == "slow":
            await trio.sleep(10)
        handled.append(message.body.decode())

    async with open_bus() as bus, watching(bus) as watch:
        subscription = await bus.subscribe("t", handle, group="g", max_in_flight=8)
        for number in range(20):
            await bus.publish("t", str(number).encode(), key="slow")
        await bus.publish("t", b"quick", key="quick")
        backlog = await watch.wait(KeyBacklog)
        assert backlog.key is not None
        subscription.park(backlog.key, "it holds up the others")
        await trio.sleep(1)
        assert handled == ["quick"]
        await trio.sleep(100)
        assert handled == ["quick", "0"]
        [parked] = subscription.parked()
        assert parked.waiting == 1  # a quarter of 8, less the one that was running
        assert (await bus.lag("t", "g")).messages == 1


# --- partitions that go ---


async def test_a_key_whose_partition_goes_is_parked_no_longer(autojump_clock: MockClock) -> None:
    async with open_rig(retry=Retry(attempts=1), quarantine=Quarantine()) as rig:
        rig.raises["p"] = [ValueError("bad")]
        rig.give("p", "a")
        await wait_all_tasks_blocked()
        assert [one.key for one in rig.intake.keys.parked()] == ["k"]
        rig.intake.lose({0: 0})
        assert rig.intake.keys.parked() == ()
        assert len(rig.intake.dispatcher) == 0
        assert [type(event) for event in rig.events] == [KeyParked, KeyReleased]
        rig.feed.give(make_delivery("again", "k", epoch=1))
        await wait_all_tasks_blocked()
        assert rig.feed.settled == [("again", Verdict.DONE)]


# --- what cannot be ---


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"quarantine": "prison"}, "'park', 'dead_letter', a Quarantine"),
        ({"quarantine": "park", "order": "partition"}, "order='key' only"),
        ({"quarantine": "dead_letter", "dead_letter": None}, "needs a dead-letter topic"),
    ],
)
async def test_a_quarantine_that_cannot_be_is_refused(options: dict[str, Any], text: str) -> None:
    async with open_bus() as bus:
        with pytest.raises(ConfigurationError, match="quarantine") as refused:
            await bus.subscribe("t", Shop(), group="g", **options)
        assert text in str(refused.value)


@pytest.mark.parametrize("fields", [{"action": "x"}, {"limit": 0}, {"limit": 2.5}, {"limit": True}])
def test_values_of_a_quarantine_are_checked_when_it_is_made(fields: dict[str, Any]) -> None:
    [name] = fields
    with pytest.raises(ConfigurationError, match=f"quarantine.{name}"):
        Quarantine(**fields)


async def test_what_is_no_key_or_has_no_order_by_key_is_not_parked() -> None:
    async with open_bus() as bus:
        subscription = await bus.subscribe("t", Shop(), group="g", order="partition")
        with pytest.raises(ConfigurationError, match="order='key' only"):
            subscription.park("k")
        with pytest.raises(ConfigurationError, match="a string"):
            subscription.park(None)  # type: ignore[arg-type]
