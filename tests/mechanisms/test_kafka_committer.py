"""Commits of a group's member, over a coordinator by hand, in a loop with virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiokafka import errors as kafka
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from tbus import KafkaOptions, SubscriptionFailed
from tbus._transport import FeedRequest
from tbus.transports.kafka import _committer
from tbus.transports.kafka._committer import Committer
from tbus.transports.kafka._share import Share
from tbus.transports.kafka._topic_consumer import TopicConsumer

from .kafka_kit import run

PART = TopicPartition("t", 0)


class HandCoordinator:
    """Notes what is committed; what it answers, and when, is the test's."""

    def __init__(self) -> None:
        self.commits: list[dict[TopicPartition, OffsetAndMetadata]] = []
        self.times: list[float] = []
        self.answers: list[Exception] = []
        self.known = asyncio.Event()
        self.known.set()
        self._commit_lock = asyncio.Lock()

    async def ensure_coordinator_known(self) -> None:
        await self.known.wait()

    async def _do_commit_offsets(
        self, _: object, offsets: dict[TopicPartition, OffsetAndMetadata]
    ) -> None:
        self.commits.append(offsets)
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        if self.answers:
            raise self.answers.pop(0)


class Rig:
    """A committer for one topic with one share."""

    def __init__(self) -> None:
        self.coordinator = HandCoordinator()
        request = FeedRequest("t", "g")
        self.consumer = TopicConsumer(
            request, tell=_ignore, fail=_ignore, drain=_ignore, lose=_ignore
        )
        self.committer = Committer("g", KafkaOptions(), {"t": self.consumer})
        self.committer.coordinator = self.coordinator
        self.consumer.on_settled = self.committer.settled
        self.own(epoch=1)

    def own(self, epoch: int) -> None:
        self.share = Share(0, epoch, 0, committed=0)
        self.consumer.add(self.share)

    def settle(self, *offsets: int) -> None:
        """As if they had been handed over and handled."""
        assert self.share.open_all(offsets)
        self.share.settle(set(offsets))
        self.committer.settled(len(offsets))

    @property
    def offsets(self) -> list[int]:
        """Of the partition, one for each commit."""
        return [commit[PART].offset for commit in self.coordinator.commits]


def _ignore(*_: object) -> None:
    pass


def with_rig(test: Callable[[Rig], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def main() -> None:
        await test(Rig())

    def runner() -> None:
        run(main)

    runner.__name__ = runner.__qualname__ = test.__name__
    return runner


@with_rig
async def test_what_is_settled_is_committed_once(rig):
    rig.settle(0, 1, 2)
    await rig.committer.commit()
    await rig.committer.commit()
    assert rig.offsets == [3]


@with_rig
async def test_a_commit_that_waited_while_its_partition_was_lost_is_not_sent(rig):
    """It would go out in the name of the new generation, where another member may have it."""
    rig.settle(0, 1, 2)
    rig.coordinator.known.clear()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rig.committer.commit())
        await asyncio.sleep(1)
        rig.consumer.drop_shares()
        rig.own(epoch=2)
        rig.coordinator.known.set()
    assert rig.coordinator.commits == []


@with_rig
async def test_a_commit_that_nobody_answers_ends_and_the_next_one_says_more(rig):
    rig.settle(0)
    rig.coordinator.known.clear()
    began = asyncio.get_running_loop().time()
    await rig.committer.commit()
    assert asyncio.get_running_loop().time() - began == pytest.approx(_committer.COMMIT_WAIT)
    rig.coordinator.known.set()
    rig.settle(1)
    await rig.committer.commit()
    assert rig.offsets == [2]


@with_rig
async def test_a_commit_that_failed_is_told_again_without_anything_new(rig):
    rig.coordinator.answers = [kafka.NotCoordinatorForGroupError(), kafka.RequestTimedOutError()]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(rig.committer.run())
        rig.settle(0, 1)
        await asyncio.sleep(10)
        running.cancel()
    assert rig.offsets == [2, 2, 2]


@pytest.mark.parametrize(
    "error",
    [
        kafka.UnknownMemberIdError(),
        kafka.IllegalGenerationError(),
        kafka.RebalanceInProgressError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_group_refuses_because_it_is_joining_is_not_told_again(error):
    @with_rig
    async def test(rig):
        rig.coordinator.answers = [error]
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(rig.committer.run())
            rig.settle(0)
            await asyncio.sleep(10)
            running.cancel()
        assert rig.offsets == [1]

    test()


@with_rig
async def test_one_that_may_not_commit_is_an_error_that_says_so(rig):
    rig.coordinator.answers = [kafka.GroupAuthorizationFailedError("g")]
    rig.settle(0)
    with pytest.raises(SubscriptionFailed, match=r"commit for group 'g'.*grant"):
        await rig.committer.commit()


@with_rig
async def test_a_mark_that_is_too_long_is_cut_at_once(rig):
    rig.coordinator.answers = [kafka.OffsetMetadataTooLargeError()] * 7
    assert rig.share.open_all(range(2001))
    rig.share.settle(set(range(1, 2001, 2)))
    await rig.committer.commit()
    lengths = [len(commit[PART].metadata) for commit in rig.coordinator.commits]
    assert lengths == sorted(lengths, reverse=True)
    assert 0 < lengths[-1] <= 4096 // 2**7 < lengths[0]
    assert set(rig.offsets) == {0}


@with_rig
async def test_commits_go_out_at_the_interval_or_when_enough_is_settled(rig):
    options = KafkaOptions()
    loop, times = asyncio.get_running_loop(), rig.coordinator.times
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(rig.committer.run())
        begun = loop.time()
        rig.settle(0)
        await asyncio.sleep(1)
        assert times == [pytest.approx(begun + options.commit_interval)]
        begun = loop.time()
        rig.settle(*range(1, 1 + options.commit_count))
        await asyncio.sleep(1)
        assert times[1:] == [pytest.approx(begun)]
        running.cancel()
    assert rig.offsets == [1, 1 + options.commit_count]
