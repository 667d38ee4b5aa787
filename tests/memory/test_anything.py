"""Whatever is published, settled, given back, cut, closed and opened, in whatever order."""

from __future__ import annotations

from contextlib import suppress

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tbus._message import Delivery, Position
from tbus._topic import TopicOptions
from tbus._transport import EndOfFeed, Feed, FeedRequest, Order, Verdict
from tbus.transports.memory import MemoryTransport
from tests.memory.kit import Outbox, open_one

MEMBERS = 3
CREDIT = 4
ACK_WAIT = 5.0

Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "send",
                "send",
                "receive",
                "receive",
                "done",
                "done",
                "give-back",
                "open",
                "close",
                "stop",
                "cut",
                "restore",
                "sleep",
            ]
        ),
        st.integers(0, MEMBERS - 1),
        st.integers(0, 9),
    ),
    max_size=60,
)


class Model:
    """Members of one group, each over a transport of its own, and what they must keep to."""

    def __init__(self, transports: list[MemoryTransport], order: Order) -> None:
        self.transports = transports
        self.order = order
        self.outbox = Outbox(transports[0])
        self.feeds: dict[int, Feed] = {}
        self.held: dict[int, list[Delivery]] = {number: [] for number in range(MEMBERS)}
        self.seen: dict[Feed, set[Position]] = {}  # in flight or done there
        self.done: list[Delivery] = []
        self.sent = 0
        self.epochs: dict[int, int] = {}

    async def open(self, number: int) -> None:
        if number not in self.feeds and self.transports[number].is_connected():
            feed = await self.transports[number].open_feed(
                FeedRequest(
                    "t", group="g", order=self.order, max_in_flight=CREDIT, ack_wait=ACK_WAIT
                )
            )
            self.feeds[number] = feed
            self.seen[feed] = set()

    async def close(self, number: int) -> None:
        feed = self.feeds.pop(number, None)
        if feed is not None:
            await feed.aclose()
            self.held[number].clear()

    async def receive(self, number: int) -> bool:
        feed = self.feeds.get(number)
        if feed is None:
            return False
        got: list[Delivery] = []
        with trio.move_on_after(0.001):
            got.extend(await feed.receive())
        for delivery in got:
            # In flight or done here: never again.
            assert delivery.position not in self.seen[feed]
            self.seen[feed].add(delivery.position)
            if self.order != "none":
                # A later owner has a higher epoch; an earlier one gets nothing any more.
                partition = delivery.position.partition
                assert delivery.epoch >= self.epochs.get(partition, 0)
                self.epochs[partition] = delivery.epoch
        self.held[number].extend(got)
        return bool(got)

    def settle(self, number: int, which: int, verdict: Verdict) -> None:
        held = self.held[number]
        if not held:
            return
        if self.order == "none":
            delivery = held.pop(which % len(held))
        else:
            # As a dispatcher would: of each key the first one.
            keys = list(dict.fromkeys(delivery.key for delivery in held))
            key = keys[which % len(keys)]
            delivery = next(delivery for delivery in held if delivery.key == key)
            held.remove(delivery)
        feed = self.feeds[number]
        feed.settle(delivery, verdict)
        feed.settle(delivery, Verdict.DONE)  # a repeat is ignored
        if verdict is Verdict.DONE:
            self.done.append(delivery)
        else:
            self.seen[feed].discard(delivery.position)

    def give_back(self, number: int) -> None:
        # What stands behind it goes back as well, or it would be overtaken.
        for _ in range(len(self.held[number])):
            self.settle(number, 0, Verdict.GIVE_BACK)


@settings(max_examples=150, deadline=None)
@given(steps=steps, partitions=st.integers(1, 3), order=st.sampled_from(["key", "none"]))
def test_nothing_is_lost_no_key_is_overtaken_and_no_credit_exceeded(
    steps: list[Step], partitions: int, order: Order
) -> None:
    async def run() -> None:
        async with open_one("any") as one, open_one("any") as two, open_one("any") as three:
            options = TopicOptions(partitions=partitions)
            await one.configure_topic("t", options, "create_or_update")
            model = Model([one, two, three], order)
            await model.open(0)
            for action, number, which in steps:
                feed = model.feeds.get(number)
                if action == "send":
                    model.sent += 1
                    model.outbox.send(f"{model.sent}", f"key{which % 3}", timeout=1e6)
                elif action == "receive":
                    with suppress(EndOfFeed):
                        await model.receive(number)
                elif action == "done":
                    if feed is not None:
                        model.settle(number, which, Verdict.DONE)
                elif action == "give-back":
                    model.give_back(number)
                elif action == "open":
                    await model.open(number)
                elif action == "close":
                    await model.close(number)
                elif action == "stop":
                    if feed is not None:
                        feed.stop()
                elif action == "cut":
                    model.transports[number].faults.disconnect()
                elif action == "restore":
                    model.transports[number].faults.restore()
                else:
                    await trio.sleep(float(which))
                # The credit, as the broker sees it.
                for other in model.feeds.values():
                    assert len(other.member.held) <= CREDIT  # type: ignore[attr-defined]
            # Everybody goes, and one that comes afterwards finishes what is left.
            for transport in model.transports:
                transport.faults.restore()
            for number in range(MEMBERS):
                await model.close(number)
            await model.open(0)
            while await model.receive(0):
                while model.held[0]:
                    model.settle(0, 0, Verdict.DONE)
            assert {delivery.body for delivery in model.done} == {
                f"{number}".encode() for number in range(1, model.sent + 1)
            }
            assert (await one.lag("t", "g")).messages == 0
            if order == "key":
                _check_first_completions(model.done)

    trio.run(run, clock=MockClock(autojump_threshold=0))


def _check_first_completions(done: list[Delivery]) -> None:
    last: dict[str | None, int] = {}
    first = {delivery.position: delivery for delivery in reversed(done)}
    for delivery in done:
        if first[delivery.position] is delivery:
            assert delivery.position.offset > last.get(delivery.key, 0)
            last[delivery.key] = delivery.position.offset
