"""An envelope that is sent within the process is kept as it is, and nobody can tell by that."""

# The publisher is left before the reader's nursery ends: that is what is tested.
# flake8: noqa: ASYNC111

from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tbus import (
    Bus,
    Envelope,
    Message,
    PublishFailed,
    PublishOutcome,
    Receipt,
    Reject,
    TopicOptions,
    open_bus,
)
from tbus.testing.conformance._kit import Gate, Seen
from tbus.transports.memory import MemoryTransport

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def event(number: int = 0, **fields: Any) -> Envelope:
    fields.setdefault("timestamp", NOON)
    return Envelope.new("order-1", "Placed", {"n": number}, **fields)


def broker(bus: Bus) -> MemoryTransport:
    return cast(MemoryTransport, bus.transport)


async def send(bus: Bus, *events: Envelope) -> None:
    async with bus.open_publisher() as publisher:
        for one in events:
            await publisher.send("t", one)


async def received(seen: Seen, count: int) -> list[Message]:
    return (await seen.wait(count))[:count]


@pytest.fixture(params=["publish", "send"])
def way(request: pytest.FixtureRequest) -> Any:
    """Sends events one by one, or in a pipeline."""
    if request.param == "send":
        return send

    async def publish(bus: Bus, *events: Envelope) -> None:
        for one in events:
            await bus.publish("t", one)

    return publish


async def test_a_handler_sees_the_event_as_given_and_the_bytes_of_its_encoding(
    way: Any,
) -> None:
    seen, other = Seen(), Seen()
    sent = [event(number) for number in range(3)]
    async with open_bus("memory://") as bus:
        await bus.subscribe("t", seen, group="g")
        await bus.subscribe("t", other, group="h")
        await way(bus, *sent)
        for messages in (await received(seen, 3), await received(other, 3)):
            if messages[0].group == "g":
                # The first one of a topic may be stored before it is known to exist.
                for message, one in zip(messages[1:], sent[1:], strict=True):
                    assert message.envelope.payload is one.payload  # nobody has written and read it
                    # What is kept is nothing that the garbage collector looks through.
                    assert not gc.is_tracked(message.delivery.body)
                    assert not gc.is_tracked(message.delivery)
            for message, one in zip(messages, sent, strict=True):
                assert message.body == one.encode()
                assert message.body is message.body
                assert message.envelope == one
                assert message.envelope is message.envelope
                assert message.key == "order-1"
                assert message.headers == ()


@pytest.mark.parametrize(
    "zone", [timezone(timedelta(hours=1), "CET"), timezone(timedelta(0), "GMT")], ids=str
)
async def test_a_time_in_another_zone_is_told_as_its_encoding_tells_it(way: Any, zone: Any) -> None:
    seen = Seen()
    sent = [event(), event(timestamp=NOON.replace(tzinfo=zone))]
    async with open_bus("memory://") as bus:
        await bus.subscribe("t", seen, group="g")
        await way(bus, *sent)
        messages = await received(seen, 2)
    assert [repr(m.envelope) for m in messages] == [
        repr(Envelope.from_bytes(one.encode())) for one in sent
    ]


async def test_a_repeat_is_known_by_its_id_in_whatever_form_it_comes(
    autojump_clock: MockClock,
) -> None:
    first, second = event(1), event(2)
    async with open_bus("memory://") as bus:
        await bus.publish("t", b"x", id=first.event_id)
        assert (await bus.publish("t", first)).duplicate
        one = await bus.publish("t", second)
        again = await bus.publish("t", second)
        assert (one.duplicate, again.duplicate) == (False, True)
        assert again.position == one.position
        assert (await bus.publish("t", second.encode(), id=second.event_id)).duplicate
        await trio.sleep(130)
        assert not (await bus.publish("t", second)).duplicate


async def test_outcomes_and_statistics_count_it_like_any_other(autojump_clock: MockClock) -> None:
    sent = [event(number) for number in range(5)]
    outcomes: list[PublishOutcome] = []
    async with open_bus("memory://") as bus:
        await bus.configure_topic("t")
        async with trio.open_nursery() as nursery, bus.open_publisher() as publisher:
            read = publisher.outcomes

            async def note() -> None:
                async for outcome in read:
                    outcomes.append(outcome)  # noqa: PERF401 - as they come

            nursery.start_soon(note)
            await wait_all_tasks_blocked()
            for one in [*sent, sent[2]]:
                await trio.sleep(1)
                await publisher.send("t", one)
            statistics = publisher.statistics()
        assert (statistics.sent, statistics.stored, statistics.in_flight) == (6, 6, 0)
        assert bus.health().last_progress == 0
    assert [one.event_id for one in outcomes] == [one.event_id for one in [*sent, sent[2]]]
    receipts = [cast(Receipt, one.receipt) for one in outcomes]
    assert [one.position.offset for one in receipts] == [1, 2, 3, 4, 5, 3]
    assert [one.duplicate for one in receipts] == [False] * 5 + [True]


async def test_what_waits_for_the_broker_is_stored_before_what_is_sent_afterwards(
    autojump_clock: MockClock,
) -> None:
    seen = Seen()
    async with open_bus("memory://") as bus:
        await bus.subscribe("t", seen, group="g")
        async with bus.open_publisher() as publisher:
            await publisher.send("t", event(0))
            broker(bus).faults.disconnect(1)
            await publisher.send("t", event(1))
            assert publisher.statistics().in_flight == 1
            broker(bus).faults.restore()
            await publisher.send("t", event(2))
            broker(bus).faults.delay(0.5)
            await publisher.send("t", event(3))
            broker(bus).faults.restore()
            await publisher.send("t", event(4))
        messages = await received(seen, 5)
    assert [message.envelope.decode(dict)["n"] for message in messages] == [0, 1, 2, 3, 4]


async def test_a_fault_refuses_it(autojump_clock: MockClock) -> None:
    async with open_bus("memory://") as bus:
        await send(bus, event())
        broker(bus).faults.refuse_publishes(1)
        with pytest.raises(PublishFailed):
            await send(bus, event())
        await trio.sleep(2)
        await send(bus, event())


async def test_a_topic_with_a_limit_counts_its_bytes_to_the_last_one() -> None:
    one = event()
    size = len(one.encode()) + len(one.aggregate_id)
    async with open_bus("memory://") as bus:
        await bus.configure_topic("t", TopicOptions(max_bytes=2 * size))
        await send(bus, event(1), event(2))
        with pytest.raises(PublishFailed, match=f"{2 * size} bytes are stored, and {size} more"):
            await send(bus, event(3))
        with pytest.raises(PublishFailed):
            await send(bus, event(3))


async def test_a_limit_that_comes_later_counts_what_is_there() -> None:
    one = event()
    async with open_bus("memory://") as bus:
        await send(bus, event(1), event(2), event(3))
        await bus.configure_topic("t", TopicOptions(max_bytes=4 * len(one.encode())))
        with pytest.raises(PublishFailed, match="would exceed max_bytes"):
            await send(bus, event(4), event(5))
        await bus.configure_topic("t", TopicOptions(max_messages=5))
        with pytest.raises(PublishFailed, match="max_messages=5 is reached"):
            await send(bus, event(4), event(5), event(6))


async def test_handlers_have_no_more_bytes_at_once_than_their_bus_allows(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    texts = ("T" * 1000, 1, NOON, b'"%s"' % (b"p" * 1000), "t" * 1000, "c" * 1000)
    sent = [Envelope(f"{number}" * 1000, "k" * 250, *texts) for number in range(1, 10)]
    async with open_bus(
        "memory://", concurrency=100, max_in_flight_bytes=4 * len(sent[0].encode())
    ) as bus:
        await bus.subscribe("t", gate, group="g", order="none")
        await send(bus, *sent)
        await wait_all_tasks_blocked()
        assert len(gate.inside) == 3
        gate.open()


async def test_a_dead_letter_holds_the_bytes_and_goes_back_as_the_event_that_it_was() -> None:
    seen = Seen()
    sent = event(1)
    refusing = True

    async def handle(message: Message) -> None:
        await seen(message)
        if refusing:
            raise Reject(str(message.envelope.event_id))

    async with open_bus("memory://") as bus:
        await bus.subscribe("t", handle, group="g")
        await send(bus, event(0), sent)
        await received(seen, 2)
        async with bus.open_dead_letters("t") as letters:
            found = [letter async for letter in letters]
        refusing = False
        await bus.redrive(found[1])
        again = (await received(seen, 3))[2]
    assert found[1].body == sent.encode()
    assert again.envelope == sent
    assert again.body == sent.encode()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            Envelope,
            texts.filter(lambda text: bool(text.strip())),
            st.from_regex(r"[A-Za-z0-9:_\-./]{1,40}", fullmatch=True),
            texts.filter(lambda text: bool(text.strip())),
            st.integers(1, 2**63 - 1),
            st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=-3)))),
            st.sampled_from([b"1", b" [1, 2.50]\n", b'{"a": "\xc3\xa9"}']),
            texts,
            texts,
            st.integers(-(2**63), 2**63 - 1),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda envelope: envelope.event_id,
    )
)
def test_whatever_an_envelope_holds_its_readers_see_what_a_broker_would_show_them(
    sent: list[Envelope],
) -> None:
    async def carry() -> list[Message]:
        seen = Seen()
        async with open_bus("memory://") as bus:
            await bus.subscribe("t", seen, group="g", order="partition")
            await send(bus, *sent)
            return await received(seen, len(sent))

    for message, one in zip(trio.run(carry), sent, strict=True):
        assert repr(message.envelope) == repr(Envelope.from_bytes(one.encode()))
        assert message.body == one.encode()
        assert message.key == one.aggregate_id
