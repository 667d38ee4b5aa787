"""Takes records out of a client's consumer, for as many feeds as share it.

Lives in the clients' loop. The client fetches ahead by itself: for each partition it holds one
answer of the broker. Here it is asked for what of it there is room for, partition by partition
and without waiting, so that it never throws away what a partition without room has in store,
and no call of it ever has to be cancelled (which would leave its count of readers wrong).
When nothing is there, this waits for the client's own sign that something has come, or for
room; the client has no public name for that sign (`_fetcher._create_fetch_waiter`), nor for its
two tasks, of which one may die without a word. What else of it is private and used, see
`_unpacking`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka
from aiokafka.structs import TopicPartition

from ..._errors import ConsumerGone, MessagesLost
from ..._message import Delivery
from ._errors import translated
from ._offsets import Offsets
from ._topic_consumer import TopicConsumer
from ._unpacking import SLICE, check_client, slice_fetched

LOOK_AGAIN = 1.0
"""Seconds after which a reader that nobody has woken looks by itself."""


class Fetching:
    """Feeds, the consumer that they share, and the loop between them.

    Args:
        consumer: started, or about to be.
        offsets: asked where a partition begins, when it does not begin where it should.
        topics: what is read, for whom; changes as it does.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, offsets: Offsets, topics: dict[str, TopicConsumer]
    ) -> None:
        self._topics = topics
        self._stopped = False
        self._consumer = consumer
        self._offsets = offsets
        self._loop = asyncio.get_running_loop()
        self._kick: asyncio.Future[None] = self._loop.create_future()
        self._turn = 0

    def wake(self) -> None:
        """There is room, or another partition."""
        if not self._kick.done():
            self._kick.set_result(None)

    def stop(self) -> None:
        """Take nothing more."""
        self._stopped = True
        self.wake()

    async def run(self) -> None:
        """Take and hand over until stopped.

        Raises:
            KafkaError: the client cannot go on.
            TbusError: nobody can.
        """
        fetcher: Any = self._consumer._fetcher
        check_client(fetcher)
        coordinator: Any = self._consumer._coordinator
        own = {fetcher.error_future, *_coordinating(coordinator)}
        while not self._stopped:
            if self._kick.done():
                self._kick = self._loop.create_future()
            if await self._take_all():
                await asyncio.sleep(0)
                continue
            waiter = fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait(
                (waiter, self._kick, *own),
                timeout=LOOK_AGAIN,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if waiter not in done:
                waiter.cancel()
            else:
                waiter.result()
            if not done.isdisjoint(own):
                # It tells only who asks it for records, which nobody may have room for.
                raise kafka.KafkaError("one of the client's own tasks has ended")

    async def _take_all(self) -> bool:
        """One round over all partitions of which more is wanted; whether anything came."""
        wanted = [part for topic in self._topics.values() for part in topic.wanted()]
        if not wanted:
            return False
        moved = False
        self._turn = (self._turn + 1) % len(wanted)
        for partition in (*wanted[self._turn :], *wanted[: self._turn]):
            records = await self._take(partition)
            topic = self._topics.get(partition.topic)
            if records and topic is not None:
                moved = True
                topic.take(partition.partition, records)
                topic.hand_over()
        return moved

    async def _take(self, partition: TopicPartition) -> list[Delivery]:
        """What the client has of a partition; never waits for the broker."""
        fetcher: Any = self._consumer._fetcher
        topic = self._topics.get(partition.topic)
        share = None if topic is None else topic.shares.get(partition.partition)
        slice_fetched(fetcher._records.get(partition), 0 if share is None else share.epoch)
        try:
            found = await self._consumer.getmany(partition, max_records=SLICE)
        except kafka.OffsetOutOfRangeError:
            await self._report_loss(partition)
            return []
        except kafka.NoOffsetForPartitionError:
            return []  # it is being looked for
        except (kafka.TopicAuthorizationFailedError, kafka.GroupAuthorizationFailedError) as error:
            raise translated(f"read topic {partition.topic!r}", error) from error
        deliveries: list[Delivery] = found.get(partition, [])
        return deliveries

    async def _report_loss(self, partition: TopicPartition) -> None:
        """The offset that comes next is not there (any more, or yet)."""
        topic = self._topics.get(partition.topic)
        share = None if topic is None else topic.shares.get(partition.partition)
        if topic is None or share is None:
            return
        wanted = share.next_offset
        first = (await self._offsets.begins([partition]))[partition]
        if first > wanted:
            topic.fail(MessagesLost(partition.topic, wanted, first - 1))
        else:
            topic.fail(
                ConsumerGone(
                    f"partition {partition.partition} of topic {partition.topic!r} ends before"
                    f" offset {wanted}, up to which it was read: it was made anew, or its leader"
                    " has lost its end. Open the subscription again"
                )
            )


def _coordinating(coordinator: Any) -> Iterator[asyncio.Future[None]]:
    """The task that keeps the client in its group; none for a client without one."""
    task = getattr(coordinator, "_coordination_task", None)
    if task is not None:
        yield task
