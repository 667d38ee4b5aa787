"""What becomes of a message that cannot be handled: never is it skipped."""

from __future__ import annotations

import anyio

from ..._bus import Bus
from ..._errors import Discard, Reject, RetryAfter
from ..._events import DeadLettered, Discarded, MessageRetried, Stalled
from ..._message import Message
from ..._retry import Retry
from ..._topic import TopicOptions
from ..harness import Ability, Harness
from ._case import case
from ._kit import AT_ONCE, Gate, Seen, publish_text, watching

ONCE = Retry(attempts=1, initial=0.01, maximum=0.02, jitter=0.0)
"""One attempt; what then still has to be repeated comes every 20 ms."""


async def _dead_letter(bus: Bus, topic: str) -> Message:
    """The one dead letter of a topic."""
    seen = Seen()
    subscription = await bus.subscribe(f"{topic}.dead", seen, group="undertaker")
    [letter] = await seen.wait(1)
    await subscription.close()
    return letter


@case()
async def a_message_whose_attempts_are_used_up_goes_to_the_dead_letter_topic_as_it_was(
    harness: Harness,
) -> None:
    topic = harness.topic()
    body, headers = b"\x00\xff{", [("A", "1"), ("A", "2")]
    attempts = []

    async def fail(message: Message) -> None:
        attempts.append(message.attempt)
        raise ValueError("never")

    async with harness.open_bus(source="tests") as bus, watching(bus) as watch:
        await bus.subscribe(topic, fail, group="g", retry=AT_ONCE)
        receipt = await bus.publish(topic, body, key="k", headers=headers)
        event = await watch.wait(DeadLettered)
        letter = await _dead_letter(bus, topic)
        lag = await bus.lag(topic, "g")
    assert attempts == [1, 2, 3]
    assert (event.topic, event.dead_letter, event.attempts) == (topic, f"{topic}.dead", 3)
    assert (letter.body, letter.key) == (body, "k")
    assert [pair for pair in letter.headers if pair[0] == "A"] == headers
    told = dict(letter.headers)
    assert told["Tbus-Dead-Topic"] == topic
    assert told["Tbus-Dead-Position"] == str(receipt.position)
    assert told["Tbus-Dead-Group"] == "g"
    assert told["Tbus-Dead-Attempts"] == "3"
    assert told["Tbus-Dead-Error-Type"] == "ValueError"
    assert told["Tbus-Dead-Error"] == "never"
    assert told["Tbus-Dead-Source"] == "tests"
    assert lag.messages == 0


@case()
async def reject_dead_letters_at_once_and_the_key_goes_on(harness: Harness) -> None:
    topic = harness.topic()

    async def reject(message: Message) -> None:
        if message.body == b"a":
            raise Reject("no such customer")

    seen = Seen(reject)
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g")
        await publish_text(bus, topic, "ab")
        await seen.wait(1)
        letter = await _dead_letter(bus, topic)
    assert seen.text == "b"
    assert letter.body == b"a"
    assert dict(letter.headers)["Tbus-Dead-Reason"] == "no such customer"
    assert dict(letter.headers)["Tbus-Dead-Attempts"] == "1"


@case()
async def an_exception_that_is_not_worth_a_retry_dead_letters_at_once(harness: Harness) -> None:
    topic = harness.topic()
    attempts = []

    async def fail(message: Message) -> None:
        attempts.append(message.attempt)
        raise ValueError("never")

    async with harness.open_bus() as bus:
        await bus.subscribe(topic, fail, group="g", retry=Retry(on=OSError))
        await bus.publish(topic, b"a")
        await _dead_letter(bus, topic)
    assert attempts == [1]


@case()
async def discard_settles_without_a_dead_letter(harness: Harness) -> None:
    topic = harness.topic()

    async def discard(message: Message) -> None:
        if message.body == b"a":
            raise Discard("old")

    seen = Seen(discard)
    async with harness.open_bus() as bus, watching(bus) as watch:
        await bus.subscribe(topic, seen, group="g")
        await publish_text(bus, topic, "ab")
        await seen.wait(1)
        event = await watch.wait(Discarded)
        assert f"{topic}.dead" not in await bus.list_topics()
    assert seen.text == "b"
    assert (event.topic, event.key, event.reason) == (topic, "k", "old")


@case()
async def retry_after_says_when(harness: Harness) -> None:
    topic = harness.topic()
    times = []

    async def later(message: Message) -> None:
        times.append(anyio.current_time())
        if message.attempt == 1:
            raise RetryAfter(0.05)

    seen = Seen(later)
    async with harness.open_bus() as bus, watching(bus) as watch:
        # The policy alone would take longer than the case may.
        await bus.subscribe(topic, seen, group="g", retry=Retry(initial=3600, maximum=3600))
        await bus.publish(topic, b"a")
        [message] = await seen.wait(1)
        event = await watch.wait(MessageRetried)
    assert message.attempt == 2
    assert times[1] - times[0] >= 0.05
    assert (event.attempt, event.delay) == (1, 0.05)


@case()
async def a_handler_that_runs_too_long_has_failed(harness: Harness) -> None:
    topic = harness.topic()
    attempts = []

    async def hang(message: Message) -> None:
        attempts.append(message.attempt)
        if message.attempt == 1:
            await anyio.sleep_forever()

    seen = Seen(hang)
    async with harness.open_bus() as bus, watching(bus) as watch:
        await bus.subscribe(topic, seen, group="g", timeout=0.05, retry=AT_ONCE)
        await bus.publish(topic, b"a")
        await seen.wait(1)
        event = await watch.wait(MessageRetried)
    assert attempts == [1, 2]
    assert "TimeoutError" in event.error
    assert "0.05" in event.error


@case()
async def running_too_long_uses_up_attempts_like_any_failure(harness: Harness) -> None:
    topic = harness.topic()

    async def hang(_: Message) -> None:
        await anyio.sleep_forever()

    async with harness.open_bus() as bus, watching(bus) as watch:
        await bus.subscribe(topic, hang, group="g", timeout=0.05, retry=ONCE)
        await bus.publish(topic, b"a", key="k")
        event = await watch.wait(DeadLettered)
    assert event.attempts == 1
    assert "TimeoutError" in event.reason


@case()
async def a_handler_that_answers_its_cancellation_with_an_error_uses_up_no_attempt(
    harness: Harness,
) -> None:
    topic = harness.topic()
    gate = Gate()
    seen = Seen()

    async def complain(message: Message) -> None:
        try:
            await gate(message)
        except BaseException as error:
            raise ValueError("disturbed") from error  # noqa: ASYNC104 - what is asked for

    async with harness.open_bus(grace=0.05) as bus:
        # Were it counted, it would be the last one.
        await bus.subscribe(topic, complain, group="g", retry=ONCE)
        await publish_text(bus, topic, "ab")
        await gate.wait(1)
    async with harness.open_bus() as bus:
        assert (await bus.lag(topic, "g")).messages == 2
        await bus.subscribe(topic, seen, group="g")
        await seen.wait(2)
        assert f"{topic}.dead" not in await bus.list_topics()
    assert seen.text == "ab"
    assert [message.attempt for message in seen.messages] == [1, 1]


@case()
async def what_a_handler_raises_when_all_around_the_bus_is_cancelled_is_no_failure(
    harness: Harness,
) -> None:
    errors = {"a": ValueError("disturbed"), "b": Reject("disturbed"), "c": Discard("disturbed")}
    topic = harness.topic()
    gate = Gate()
    seen = Seen()

    async def complain(message: Message) -> None:
        try:
            await gate(message)
        finally:
            raise errors[message.body.decode()]

    with anyio.CancelScope() as around:
        async with harness.open_bus() as bus:
            await bus.subscribe(topic, complain, group="g", retry=ONCE)
            for text in errors:
                await bus.publish(topic, text.encode(), key=text)
            await gate.wait(3)
            around.cancel()
            await anyio.sleep_forever()
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g")
        await seen.wait(3)
        assert f"{topic}.dead" not in await bus.list_topics()
    assert sorted(seen.text) == ["a", "b", "c"]
    assert [message.attempt for message in seen.messages] == [1, 1, 1]


@case()
async def a_body_that_is_no_envelope_is_dead_lettered_raw_where_one_is_wanted(
    harness: Harness,
) -> None:
    topic = harness.topic()
    body = b"\xff\xfe no envelope \x00"
    seen = Seen()

    async def handle(_: dict[str, int], message: Message) -> None:
        await seen(message)

    async with harness.open_bus() as bus:
        await bus.subscribe(topic, handle, group="g", decode=dict[str, int])
        await bus.publish(topic, body, key="k")
        letter = await _dead_letter(bus, topic)
    assert letter.body == body
    assert dict(letter.headers)["Tbus-Dead-Attempts"] == "1"
    assert dict(letter.headers)["Tbus-Dead-Error-Type"] == "InvalidEnvelope"
    assert not seen.messages


@case()
async def without_a_dead_letter_topic_a_message_holds_its_key_and_is_reported(
    harness: Harness,
) -> None:
    topic = harness.topic()
    healed = False

    async def fail(message: Message) -> None:
        if message.body == b"a" and not healed:
            raise ValueError("not yet")

    seen = Seen(fail)
    async with harness.open_bus() as bus, watching(bus) as watch:
        await bus.subscribe(topic, seen, group="g", retry=ONCE, dead_letter=None)
        await publish_text(bus, topic, "ab")
        stalled = await watch.wait(Stalled, 2)
        await publish_text(bus, topic, "12", key="other")
        await seen.wait(2)
        assert seen.text == "12"
        assert (stalled.topic, stalled.key) == (topic, "k")
        assert "not yet" in stalled.reason
        healed = True
        await seen.wait(4)
    assert seen.text == "12ab"


@case(needs=Ability.FILL)
async def a_message_whose_dead_letter_is_refused_is_not_settled(harness: Harness) -> None:
    topic, dead = harness.topic(), harness.topic()

    async def reject(message: Message) -> None:
        if message.body == b"a":
            raise Reject("no")

    seen = Seen(reject)
    async with harness.open_bus() as bus, watching(bus) as watch:
        await bus.configure_topic(dead, TopicOptions(max_messages=1))
        await bus.publish(dead, b"in the way")
        await bus.subscribe(topic, seen, group="g", retry=ONCE, dead_letter=dead)
        await publish_text(bus, topic, "ab")
        stalled = await watch.wait(Stalled, 2)
        await publish_text(bus, topic, "12", key="other")
        await seen.wait(2)
        assert seen.text == "12"
        assert "could not be stored" in stalled.reason
        assert (await bus.lag(topic, "g")).messages >= 2
        assert not watch.of(DeadLettered)
        await bus.configure_topic(dead, TopicOptions(max_messages=2))
        await watch.wait(DeadLettered)
        await seen.wait(3)
    assert seen.text == "12b"


@case()
async def a_cancelled_handler_uses_up_no_attempt_and_the_next_bus_gets_its_message(
    harness: Harness,
) -> None:
    topic = harness.topic()
    gate = Gate()
    seen = Seen()
    async with harness.open_bus(grace=0.05) as bus:
        await bus.subscribe(topic, gate, group="g")
        await publish_text(bus, topic, "abc")
        await gate.wait(1)
    assert not gate.inside
    async with harness.open_bus() as bus:
        await bus.subscribe(topic, seen, group="g")
        await seen.wait(3)
        assert f"{topic}.dead" not in await bus.list_topics()
    assert seen.text == "abc"
    assert [message.attempt for message in seen.messages] == [1, 1, 1]
