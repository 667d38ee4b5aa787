"""A handler can be cancelled at each of its checkpoints in turn, and the bus keeps its word."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from tbus import Envelope, Message
from tbus.testing import cancel_handler_at_every_checkpoint


async def test_every_checkpoint_of_every_message_is_cancelled_once_in_each_way():
    begun: Counter[bytes] = Counter()
    ended: Counter[bytes] = Counter()

    async def handle(message: Message) -> None:
        begun[message.body] += 1
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        ended[message.body] += 1

    # Two checkpoints of either message, each in two ways, and the two rounds without.
    assert await cancel_handler_at_every_checkpoint(handle, b"a", b"b") == 8
    assert ended == {b"a": 10, b"b": 10}
    assert begun == {b"a": 14, b"b": 14}


async def test_a_handler_that_counts_before_it_is_done_is_found():
    count = 0

    async def careless(message: Message) -> None:
        nonlocal count
        count += 1
        await trio.lowlevel.checkpoint()

    async def look(cut_short: bool) -> None:
        nonlocal count
        await trio.lowlevel.checkpoint()
        counted, count = count, 0
        assert counted == 1, f"counted {counted} times"

    with pytest.raises(AssertionError, match="counted 2 times"):
        await cancel_handler_at_every_checkpoint(careless, b"a", after=look)


async def test_a_shielded_block_is_not_cut(autojump_clock: MockClock):
    steps: list[str] = []
    rounds: list[bool] = []

    async def handle(message: Message) -> None:
        await trio.sleep(1)
        async with message.shielded():
            steps.append("one")
            await trio.sleep(1)
            steps.append("other")

    async def look(cut_short: bool) -> None:
        await trio.lowlevel.checkpoint()
        assert steps == ["one", "other"]
        steps.clear()
        rounds.append(cut_short)

    await cancel_handler_at_every_checkpoint(handle, b"a", after=look)
    assert set(rounds) == {True, False}


async def test_envelopes_are_decoded_and_ordered_by_their_own_key():
    seen: list[dict[str, int]] = []

    async def handle(event: dict[str, int], message: Message) -> None:
        assert message.key == "order-1"
        await trio.lowlevel.checkpoint()
        seen.append(event)

    envelope = Envelope.new("order-1", "Counted", {"n": 1})
    await cancel_handler_at_every_checkpoint(handle, envelope, decode=dict[str, int])
    assert seen == [{"n": 1}] * 4


async def test_what_the_handler_raises_is_raised_with_the_checkpoint():
    async def clumsy(message: Message) -> None:
        try:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            raise ValueError("clumsy") from None  # noqa: ASYNC104 - that is the point

    with pytest.raises(ValueError, match="clumsy") as raised:
        await cancel_handler_at_every_checkpoint(clumsy, b"a")
    assert raised.value.__notes__ == ["cancelled at checkpoint 1, while it waits"]


async def test_a_handler_without_an_end_to_its_checkpoints_is_cancelled_as_often_as_was_asked():
    async def long(message: Message) -> None:
        for _ in range(100):
            await trio.lowlevel.checkpoint()

    assert await cancel_handler_at_every_checkpoint(long, b"a", at_most=3) == 6


@pytest.mark.parametrize("broken", ["an attempt is used up", "it is settled"])
async def test_a_bus_that_takes_a_cancellation_for_a_verdict_is_found(
    broken: str, monkeypatch: pytest.MonkeyPatch
):
    from tbus._dispatch import Lane
    from tbus._intake import Intake

    usual = Intake.interrupted

    def interrupted(intake: Intake, lane: Lane[Message]) -> None:
        if broken == "it is settled":
            intake.done(lane)
        else:
            intake.feed.note_attempts(lane.head.delivery, 1)
            usual(intake, lane)

    monkeypatch.setattr(Intake, "interrupted", interrupted)

    async def handle(message: Message) -> None:
        await trio.lowlevel.checkpoint()

    with trio.fail_after(5), pytest.raises(AssertionError):
        await cancel_handler_at_every_checkpoint(handle, b"a")
