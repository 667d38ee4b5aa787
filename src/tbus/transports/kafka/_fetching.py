"""Takes records out of a client's consumer, for as many feeds as share it.

Lives in the clients' loop. The client fetches ahead by itself: for each partition it holds one
answer of the broker, and asks for the next ones when it has given away all that came of a broker.
So each is taken from it whole and read here, slice by slice as there is room: while one is being
handled, the next is on its way, and waits with the client. More than these two there are of no
partition. The client is asked partition by partition and without waiting, so that it never throws
away what a partition without room has in store, and no call of it ever has to be cancelled (which
would leave its count of readers wrong). When nothing is there, this waits for the client's own sign
that something has come, or for room; the client has no public name for that sign
(`_fetcher._create_fetch_waiter`), nor for its two tasks, of which one may die without a word. What
else of it is private and used, see `_unpacking`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.structs import TopicPartition

from ..._errors import ConsumerGone, MessagesLost
from ._errors import translated
from ._offsets import Offsets
from ._share import Share
from ._topic_consumer import TopicConsumer
from ._unpacking import SLICE, Fetched, check_client, take_whole

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
        self._failure: Exception | None = None
        self._fetched: dict[TopicPartition, tuple[Share, Fetched]] = {}
        """What is being read of each partition, and for which ownership of it."""

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
            await self._fetch()
            if self._read() or self._has_more():
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

    def read_on(self) -> None:
        """There is room again: read what is here at once, with no pass of the loop in between."""
        if self._stopped:
            return
        try:
            more = self._read() or self._wanted()
        except Exception:  # noqa: BLE001 - it is kept, and raised in `run`, which is woken for it
            more = True
        if more:
            self.wake()

    def _read(self) -> bool:
        """One round over all partitions of which more is wanted and something is here; whether
        anything came to its end. After a failure nothing is read any more: what had been read of
        that slice is gone, and what stands behind it must not be settled."""
        if self._failure is None:
            try:
                return self._read_slices()
            except Exception as error:  # noqa: BLE001 - raised here, now and whenever this is called
                self._failure = error
        raise self._failure

    def _read_slices(self) -> bool:
        wanted = self._fetched and [part for part in self._wanted() if part in self._fetched]
        if not wanted:
            return False
        ended = False
        self._turn = (self._turn + 1) % len(wanted)
        for part in (*wanted[self._turn :], *wanted[: self._turn]):
            share, fetched = self._fetched[part]
            topic = self._topics[part.topic]
            if topic.is_blocked or topic.shares.get(part.partition) is not share:
                continue  # or it is somebody else's by now, or was in between: see `_fetch`
            deliveries = fetched.read(share.epoch)
            if len(deliveries) < SLICE:
                del self._fetched[part]
                ended = True
            topic.take(part.partition, deliveries)
            topic.hand_over()
        return ended

    def _wanted(self) -> list[TopicPartition]:
        return [part for topic in self._topics.values() for part in topic.wanted()]

    def _has_more(self) -> bool:
        """Whether something is here that is wanted."""
        return bool(self._fetched) and any(part in self._fetched for part in self._wanted())

    def _share(self, part: TopicPartition) -> Share | None:
        topic = self._topics.get(part.topic)
        return None if topic is None else topic.shares.get(part.partition)

    async def _fetch(self) -> None:
        """Take from the client what has come, one answer for each partition at most."""
        fetcher: Any = self._consumer._fetcher
        for part, (owned, _) in tuple(self._fetched.items()):
            if self._share(part) is not owned:
                del self._fetched[part]
        wanted = [part for part in self._wanted() if part not in self._fetched]
        here = [part for part in wanted if part in fetcher._records]
        # One is asked for though nothing has come: the client tells then what fails.
        for part in dict.fromkeys((*(here or wanted[:1]), *self._come(fetcher))):
            share = self._share(part)
            if share is None or part in self._fetched:
                continue
            take_whole(fetcher._records.get(part))
            fetched = await self._take(part)
            if fetched is None:
                continue
            if self._share(part) is share:
                self._fetched[part] = share, fetched
            await asyncio.sleep(0)  # thousands of small batches take milliseconds to go through

    def _come(self, fetcher: Any) -> list[TopicPartition]:
        """Of which partitions the client has something to read, whether there is room or not."""
        return [
            part
            for part, found in fetcher._records.items()
            if (share := self._share(part)) is not None
            and not (share.draining or share.held)
            and type(found) is FetchResult
        ]

    async def _take(self, partition: TopicPartition) -> Fetched | None:
        """What the client has of a partition; never waits for the broker."""
        try:
            found = await self._consumer.getmany(partition, max_records=SLICE)
        except kafka.OffsetOutOfRangeError:
            await self._report_loss(partition)
            return None
        except kafka.NoOffsetForPartitionError:
            return None  # it is being looked for
        except (kafka.TopicAuthorizationFailedError, kafka.GroupAuthorizationFailedError) as error:
            raise translated(f"read topic {partition.topic!r}", error) from error
        for fetched in found.get(partition, ()):
            return fetched  # type: ignore[no-any-return]  # see `take_whole`
        return None

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
