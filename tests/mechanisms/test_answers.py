"""A result that comes once, and the task that waits for it."""

import outcome
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tbus._runtime import current_runtime


async def test_who_waits_for_an_answer_gets_it():
    answer = current_runtime().answer()
    got = []

    async def wait():
        got.append(await answer.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        answer.resolve("anything", "stored")
        assert got == []
    assert got == ["stored"]


async def test_an_answer_that_was_there_before_is_returned_by_way_of_a_checkpoint():
    answer = current_runtime().answer()
    answer.resolve("anything", "stored")
    with trio.testing.assert_checkpoints():
        assert await answer.wait() == "stored"


async def test_an_error_is_an_answer_like_any_other_and_is_not_raised():
    answer = current_runtime().answer()
    error = ValueError("refused")
    async with trio.open_nursery() as nursery:

        async def wait():
            assert await answer.wait() is error

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        answer.resolve("anything", error)


async def test_who_is_cancelled_while_it_waits_leaves_at_once_and_the_answer_wakes_nobody():
    answer = current_runtime().answer()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer.wait)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    answer.resolve("anything", "stored")
    await trio.testing.wait_all_tasks_blocked()


async def test_an_answer_that_comes_with_a_cancellation_is_not_lost():
    answer = current_runtime().answer()
    got = []

    async def wait():
        got.append(await answer.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        answer.resolve("anything", "stored")
        nursery.cancel_scope.cancel()
    assert got == ["stored"]


async def test_an_answer_is_an_outcome_as_trio_knows_it():
    answer = current_runtime().answer()
    assert isinstance(answer, outcome.Outcome)
    answer.resolve("anything", "stored")

    def generator():
        yield (yield)

    async def agenerator():
        yield (yield)

    one, other = generator(), agenerator()
    next(one)
    await anext(other)
    assert answer.unwrap() == answer.send(one) == await answer.asend(other) == "stored"
    await other.aclose()


@pytest.mark.parametrize("kind", ["answer", "parking"])
async def test_many_that_wait_are_woken_in_one_pass(kind):
    runtime = current_runtime()
    waiting = [getattr(runtime, kind)() for _ in range(10)]
    passes = []

    async def wait(one):
        await one.wait()
        passes.append(clock.passes)

    class Clock(trio.abc.Instrument):
        passes = 0

        def before_io_wait(self, timeout):
            self.passes += 1

    clock = Clock()
    trio.lowlevel.add_instrument(clock)
    async with trio.open_nursery() as nursery:
        for one in waiting:
            nursery.start_soon(wait, one)
        await wait_all_tasks_blocked()
        for one in waiting:
            one.resolve("anything", "stored") if kind == "answer" else one.set()
    trio.lowlevel.remove_instrument(clock)
    assert len(passes) == 10
    assert len(set(passes)) == 1
