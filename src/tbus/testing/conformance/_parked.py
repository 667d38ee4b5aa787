"""Keys that are parked: nothing of them is lost or overtaken."""

from __future__ import annotations

from ..._bus import Bus
from ..._events import DeadLettered, KeyParked
from ..._message import Message
from ..._quarantine import Quarantine
from ..._subscription import Subscription
from ..harness import Harness
from ._case import case
from ._kit import AT_ONCE, Seen, publish_pairs, publish_text, settle_down, watching


class _Poisoned:
    """Fails for "p" as long as that is poison; sees all others."""

    def __init__(self) -> None:
        self.poisonous = True
        self.seen = Seen(self._refuse)

    async def _refuse(self, message: Message) -> None:
        if self.poisonous and message.body == b"p":
            raise ValueError("poison")

    async def subscribe(
        self, bus: Bus, topic: str, quarantine: Quarantine, max_in_flight: int = 1000
    ) -> Subscription:
        """Have it called for every message."""
        return await bus.subscribe(
            topic,
            self.seen,
            group="g",
            retry=AT_ONCE,
            quarantine=quarantine,
            max_in_flight=max_in_flight,
        )


@case()
async def a_parked_key_waits_while_others_flow_and_comes_back_in_order(harness: Harness) -> None:
    topic = harness.topic()
    poisoned = _Poisoned()
    async with harness.open_bus() as bus, watching(bus) as watch:
        subscription = await poisoned.subscribe(bus, topic, Quarantine("park"))
        await publish_text(bus, topic, "apbc")
        await watch.wait(KeyParked)
        await publish_text(bus, topic, "xyz", key="other")
        await poisoned.seen.wait(4)
        await settle_down(bus)
        assert poisoned.seen.by_key() == {"k": "a", "other": "xyz"}
        assert (await bus.lag(topic, "g")).messages == 3
        poisoned.poisonous = False
        assert subscription.release("k")
        await poisoned.seen.wait(7)
        assert poisoned.seen.by_key() == {"k": "apbc", "other": "xyz"}
        assert [message.attempt for message in poisoned.seen.messages] == [1] * 7


@case()
async def what_was_parked_when_a_bus_ended_comes_to_the_next_one_in_order(
    harness: Harness,
) -> None:
    topic = harness.topic()
    poisoned = _Poisoned()
    async with harness.open_bus() as bus, watching(bus) as watch:
        await poisoned.subscribe(bus, topic, Quarantine("park"))
        await publish_text(bus, topic, "pab")
        await watch.wait(KeyParked)
    seen = Seen()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g")
        await seen.wait(3)
    assert seen.text == "pab"
    assert poisoned.seen.text == ""


@case()
async def what_waits_of_a_parked_key_can_be_discarded_and_does_not_come_again(
    harness: Harness,
) -> None:
    topic = harness.topic()
    poisoned = _Poisoned()
    async with harness.open_bus() as bus, watching(bus) as watch:
        subscription = await poisoned.subscribe(bus, topic, Quarantine("park"))
        await bus.publish(topic, b"p", key="k")
        await watch.wait(KeyParked)
        assert await subscription.discard("k") == 1
        subscription.release("k")
        await bus.publish(topic, b"a", key="k")
        await poisoned.seen.wait(1)
    seen = Seen()
    async with harness.open_bus() as bus:
        assert (await bus.lag(topic, "g")).messages == 0
        await bus.subscribe(topic, seen, group="g")
        await bus.publish(topic, b"b", key="k")
        await seen.wait(1)
    assert poisoned.seen.text == "a"
    assert seen.text == "b"


@case()
async def what_a_parked_key_may_not_hold_goes_to_the_dead_letters_in_order(
    harness: Harness,
) -> None:
    topic = harness.topic()
    poisoned = _Poisoned()
    async with harness.open_bus() as bus, watching(bus) as watch:
        await poisoned.subscribe(bus, topic, Quarantine("park", limit=2), max_in_flight=16)
        await publish_pairs(bus, topic, [("k", "p"), *(("k", str(one % 10)) for one in range(40))])
        await publish_pairs(bus, topic, [("other", "x")] * 20)
        await poisoned.seen.wait(20)
        await watch.wait(DeadLettered, 39)
        async with bus.open_dead_letters(topic, group="g") as letters:
            dead = "".join([letter.body.decode() async for letter in letters])
    assert dead == ("0123456789" * 4)[1:]  # the poison and "0" wait


@case()
async def a_key_in_quarantine_goes_to_the_dead_letters_in_order(harness: Harness) -> None:
    topic = harness.topic()
    poisoned = _Poisoned()
    async with harness.open_bus() as bus, watching(bus) as watch:
        await poisoned.subscribe(bus, topic, Quarantine("dead_letter"))
        await publish_text(bus, topic, "apbcd")
        await publish_text(bus, topic, "x", key="other")
        await watch.wait(DeadLettered, 4)
        await poisoned.seen.wait(2)
        async with bus.open_dead_letters(topic, group="g") as letters:
            found = [(one.body, one.attempts) async for one in letters]
    assert found == [(b"p", 3), (b"b", 0), (b"c", 0), (b"d", 0)]
    assert poisoned.seen.by_key() == {"k": "a", "other": "x"}
