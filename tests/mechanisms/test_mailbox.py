"""What is handed over to one task: in order, none lost, none taken by who was cancelled."""

from __future__ import annotations

import anyio
import pytest

from tbus import TransportLost
from tbus._mailbox import Mailbox
from tbus._runtime import current_runtime
from tbus._transport import EndOfFeed

pytestmark = pytest.mark.asyncio_too


async def test_what_was_put_is_taken_in_order_by_who_waited_for_it_or_comes_later() -> None:
    mailbox = Mailbox[int](current_runtime())
    taken: list[int] = []

    async def take_three() -> None:
        while len(taken) < 3:
            taken.append(await mailbox.take())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(take_three)
            await anyio.wait_all_tasks_blocked()
            mailbox.put_nowait(1)
            mailbox.put_nowait(2)
            await anyio.wait_all_tasks_blocked()
            assert taken == [1, 2]
            mailbox.put_nowait(3)
        mailbox.put_nowait(4)
        assert (taken, await mailbox.take()) == ([1, 2, 3], 4)


async def test_who_is_cancelled_has_taken_nothing() -> None:
    mailbox = Mailbox[str](current_runtime())
    with anyio.CancelScope() as waiting:
        async with anyio.create_task_group() as group:
            group.start_soon(mailbox.take)
            await anyio.wait_all_tasks_blocked()
            waiting.cancel()
    assert waiting.cancelled_caught
    mailbox.put_nowait("a")
    with anyio.CancelScope() as late:
        late.cancel()
        await mailbox.take()
    assert late.cancelled_caught
    assert await mailbox.take() == "a"


async def test_it_ends_behind_what_was_put_before_and_takes_nothing_more() -> None:
    mailbox = Mailbox[str](current_runtime())
    mailbox.put_nowait("a")
    mailbox.close()
    mailbox.put_nowait("b")
    assert await mailbox.take() == "a"
    for _ in range(2):
        with pytest.raises(EndOfFeed):
            await mailbox.take()


async def test_the_first_failure_is_what_is_told_to_who_waits_and_to_who_asks_again() -> None:
    mailbox = Mailbox[str](current_runtime())
    told: list[str] = []

    async def take() -> None:
        try:
            await mailbox.take()
        except TransportLost as error:
            told.append(str(error))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            mailbox.close(TransportLost("first"))
            mailbox.close(TransportLost("second"))
        await take()
    assert told == ["first", "first"]


async def test_what_is_left_is_forgotten_when_nobody_takes_any_more() -> None:
    mailbox = Mailbox[str](current_runtime())
    mailbox.put_nowait("a")
    mailbox.clear()
    with pytest.raises(EndOfFeed):
        await mailbox.take()


async def test_what_else_is_there_is_taken_without_waiting() -> None:
    mailbox = Mailbox[str](current_runtime())
    assert mailbox.take_rest() == []
    for letter in "abc":
        mailbox.put_nowait(letter)
    assert await mailbox.take() == "a"
    assert mailbox.take_rest() == ["b", "c"]
    assert mailbox.take_rest() == []
