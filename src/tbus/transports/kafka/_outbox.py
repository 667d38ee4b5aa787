"""Publishes in flight: what was taken, what was sent, and what became of it.

Lives in the clients' loop. The laws:

1. Each partition has a lane. Events of a lane are sent in the order in which they were taken,
   in one batch at a time: all that is waiting goes when the one before it is answered.
2. So the client holds one batch a partition, however long the broker is away; everything else
   waits here, where its deadline can take it back as never sent (`TransportLost`).
3. An event that was given to the client is sent by it until the broker answers; it recognises
   its own repeats. Past its deadline the event's outcome is `OutcomeUnknown`.
4. A batch that is refused for one of its records is sent again in halves, in order, so that
   one bad event costs nobody else's.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import msgspec
from aiokafka import errors as kafka
from aiokafka.structs import TopicPartition

from ..._errors import PublishRefused, TbusError, TransportLost
from ..._message import Position, Receipt
from ..._transport import Outgoing
from ._errors import LOST, outcome_of, translated, unknown
from ._partitioners import Partitioner
from ._producers import BATCH_BYTES, Producer, Producers
from ._records import encode_headers, encode_key
from ._sending import Batch
from ._topics import Topics

DEADLINES_EVERY = 0.05
"""Seconds between looks at the deadlines: an outcome may be that late."""

OVERHEAD = 128
"""Bytes that a batch and a record need beside key, value and headers, at most."""

LARGEST = 1024 * 1024 - OVERHEAD
"""Bytes of the largest event: a broker takes no larger batch by default."""

RECORD_ERRORS = (
    kafka.MessageSizeTooLargeError,
    kafka.RecordListTooLargeError,
    kafka.InvalidTimestampError,
    kafka.InvalidMessageError,
)
"""Refusals of a batch that one record may be the cause of."""


class _Entry(msgspec.Struct, eq=False, gc=False):
    """One event in flight."""

    number: int
    outgoing: Outgoing
    deadline: float
    sent: bool = False
    told: bool = False


class _Lane:
    """What waits for one partition.

    Attributes:
        busy: a batch of it is not answered yet.
        most: records of one batch, at most; fewer after a refusal that one of them caused.
    """

    __slots__ = ("busy", "most", "partition", "waiting")

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.waiting: deque[_Entry] = deque()
        self.busy = False
        self.most = UNLIMITED


class _Lanes:
    """The lanes of a topic, and in which of them a key goes.

    Attributes:
        found: lanes of keys that came lately, to be looked at before `of` is asked.
    """

    __slots__ = ("_lanes", "_numbers", "_pick", "_topic", "found")

    def __init__(self, topic: str, count: int, pick: Partitioner) -> None:
        self._topic = topic
        self._pick = pick
        self._lanes: list[_Lane] = []
        self.resize(count)

    def __iter__(self) -> Iterator[_Lane]:
        return iter(self._lanes)

    def __len__(self) -> int:
        return len(self._lanes)

    def resize(self, count: int) -> None:
        """Have so many; those that there are go on, from the first."""
        known = self._lanes[:count]
        more = (TopicPartition(self._topic, number) for number in range(len(known), count))
        self._lanes = [*known, *map(_Lane, more)]
        self._numbers = range(count)
        self.found: dict[str | None, _Lane] = {}

    def of(self, key: str | None) -> _Lane:
        """The lane of a key; any one for an event without."""
        lanes = self._lanes
        if len(lanes) == 1:
            return lanes[0]
        if key is None:
            return lanes[self._pick(None, self._numbers, self._numbers)]
        if len(self.found) >= KEYS_REMEMBERED:
            self.found.clear()
        lane = lanes[self._pick(encode_key(key), self._numbers, self._numbers)]
        self.found[key] = lane
        return lane


UNLIMITED = 1 << 30

KEYS_REMEMBERED = 8192
"""Of a topic, whose lane need not be worked out again."""


class Outbox:
    """The table of publishes in flight.

    Args:
        tell: hands outcomes to the program: `tell(outgoing, result)`.
        tell_stored: the same for a batch, in one crossing.
    """

    def __init__(
        self,
        producers: Producers,
        topics: Topics,
        pick: Partitioner,
        start: Callable[..., None],
        tell: Callable[[Outgoing, Receipt | TbusError], None],
        tell_stored: Callable[[list[tuple[Outgoing, Receipt]]], None],
    ) -> None:
        self._producers = producers
        self._topics = topics
        self._pick = pick
        self._start = start
        self._tell = tell
        self._tell_stored = tell_stored
        self._loop = asyncio.get_running_loop()
        self._entries: dict[int, _Entry] = {}
        self._lanes: dict[str, _Lanes] = {}
        self._unplaced: dict[str, deque[_Entry]] = {}
        """Topics whose partitions are being looked for, and what waits for it."""
        self._ready: dict[_Lane, None] = {}
        self._delayed: dict[_Lane, None] = {}
        """Lanes that wait for a producer."""
        self._awaited = False
        self._count = 0
        self._watched = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, crossed: deque[Outgoing]) -> None:
        """Take events to be published, all that there are."""
        now = self._loop.time()
        table, ready = self._entries, self._ready
        try:
            while crossed:
                outgoing = crossed.popleft()
                if outgoing.withdrawn:
                    self._tell(outgoing, TransportLost("withdrawn before it was sent"))
                    continue
                self._count = number = self._count + 1
                table[number] = entry = _Entry(number, outgoing, now + outgoing.timeout)
                topic = outgoing.topic
                lanes = self._lanes.get(topic)
                if lanes is not None:
                    lane = lanes.found.get(outgoing.key) or lanes.of(outgoing.key)
                    lane.waiting.append(entry)
                    if not lane.busy and lane not in ready:
                        self._offer(lane)
                    continue
                waiting = self._unplaced.get(topic)
                if waiting is not None:
                    waiting.append(entry)
                else:
                    self._unplaced[topic] = deque((entry,))
                    self._start(self._find_partitions, topic)
        finally:  # also for the one that could not be taken to its end
            if table:
                self._empty.clear()
                if not self._watched:
                    self._watched = True
                    self._loop.call_later(DEADLINES_EVERY, self._look_at_deadlines)

    async def wait_empty(self) -> None:
        """Wait until every event has its outcome."""
        await self._empty.wait()

    def abandon(self) -> None:
        """Give every event that has no outcome the one that is true now."""
        for entry in list(self._entries.values()):
            self._expire(entry, "the bus ended")
        self._drop_expired()

    def topics(self) -> set[str]:
        """The topics whose partitions are known."""
        return set(self._lanes)

    def forget(self, topic: str) -> None:
        """The topic is gone, or another one: its partitions are looked for again. What waits
        for a lane that is left goes to its partition all the same."""
        self._lanes.pop(topic, None)

    def resize(self, topic: str, partitions: int) -> None:
        """The topic has so many partitions: it was made again, or some were added. Keys go where
        they belong among these from now on, and so does what waits, in its order."""
        lanes = self._lanes.get(topic)
        if lanes is None or len(lanes) == partitions:
            return
        waiting = sorted((entry for lane in lanes for entry in lane.waiting), key=_number)
        for lane in lanes:
            lane.waiting.clear()
        lanes.resize(partitions)
        for entry in waiting:
            self._place(entry, lanes)

    # Placing

    async def _find_partitions(self, topic: str) -> None:
        """Look for the topic, make it if need be, then place what waits for it."""
        failure: TbusError | None = None
        lanes = _Lanes(topic, 0, self._pick)
        try:
            # The producer may remember another number of partitions, of one that is gone.
            lanes.resize(await self._topics.ensure(topic))
            await self._producers.learn(topic)
        except TbusError as error:
            failure = error
        except (kafka.KafkaError, *LOST) as error:
            failure = translated(f"publish to topic {topic!r}", error)
        waiting = [entry for entry in self._unplaced.pop(topic) if not entry.told]
        if failure is None:
            self._lanes[topic] = lanes
            for entry in waiting:
                self._place(entry, lanes)
        elif not isinstance(failure, TransportLost):
            for entry in waiting:
                self._resolve(entry, _refusal(failure))
        elif waiting:
            # Nobody answered: again, until the deadlines of what waits have passed.
            self._unplaced[topic] = deque(waiting)
            await asyncio.sleep(DEADLINES_EVERY)
            self._start(self._find_partitions, topic)

    def _place(self, entry: _Entry, lanes: _Lanes) -> None:
        lane = lanes.of(entry.outgoing.key)
        lane.waiting.append(entry)
        if not lane.busy:
            self._offer(lane)

    # Sending

    def _offer(self, lane: _Lane) -> None:
        """Something waits in a lane. It goes when everything of this pass of the loop has come."""
        if not self._ready:
            self._loop.call_soon(self._send_ready)
        self._ready[lane] = None

    def _send_ready(self) -> None:
        ready, self._ready = self._ready, {}
        producer = self._producers.current
        if producer is None:
            self._delayed.update(ready)
            if not self._awaited:
                self._awaited = True
                self._start(self._wait_producer)
            return
        for lane in ready:
            if not lane.busy:
                self._send(lane, producer)
        producer.send()

    async def _wait_producer(self) -> None:
        """Wait for a producer that knows the topics in use, then send what was delayed for it."""
        try:
            await self._producers.get()
        except kafka.ProducerClosed:
            return  # nobody sends any more
        for topic in tuple(self._lanes):
            try:
                await self._producers.learn(topic)
            except (kafka.KafkaError, *LOST):
                self.forget(topic)  # looked for again with the next event
        self._awaited = False
        delayed, self._delayed = self._delayed, {}
        for lane in delayed:
            self._offer(lane)

    def _send(self, lane: _Lane, producer: Producer) -> None:
        """Send what waits in a lane, as one batch."""
        batch, entries = self._fill(lane, producer)
        while not entries:
            if not lane.waiting:
                return
            batch, entries = self._fill(lane, producer)
        lane.busy = True
        producer.in_flight += 1
        producer.store(batch, lane.partition, partial(self._answered, lane, producer, entries))

    def _answered(
        self,
        lane: _Lane,
        producer: Producer,
        entries: list[_Entry],
        offset: int,
        error: BaseException | None,
    ) -> None:
        """The broker has answered a batch, or never will."""
        lane.busy = False
        producer.in_flight -= 1
        if error is None:
            self._stored(lane, entries, offset)
        else:
            self._producers.retire(producer)
            if isinstance(error, kafka.ProducerClosed):  # it was not even taken
                self._take_back(lane, entries)
            else:
                self._failed(lane, entries, error)
        self._producers.end_if_idle(producer)
        if lane.waiting:
            self._offer(lane)

    def _fill(self, lane: _Lane, producer: Producer) -> tuple[Batch, list[_Entry]]:
        """A batch of what waits longest, and whose it is."""
        batch = producer.batch()
        append = batch.append
        entries: list[_Entry] = []
        waiting = lane.waiting
        now = round(time.time() * 1000)
        size = OVERHEAD
        count = 0
        while waiting and count < lane.most:
            entry = waiting.popleft()
            if entry.told:
                continue
            outgoing = entry.outgoing
            if outgoing.withdrawn:
                self._resolve(entry, TransportLost("withdrawn before it was sent"))
                continue
            key = encode_key(outgoing.key)
            headers, more = encode_headers(outgoing)
            body = outgoing.body
            more += OVERHEAD + len(body) + (0 if key is None else len(key))
            if more > LARGEST:
                self._resolve(entry, _too_large(outgoing, more))
                continue
            size += more
            if (count and size > BATCH_BYTES) or append(count, now, key, body, headers) is None:
                waiting.appendleft(entry)
                break
            entry.sent = True
            entries.append(entry)
            count += 1
        batch.count = count
        return batch, entries

    # Outcomes

    def _stored(self, lane: _Lane, entries: list[_Entry], offset: int) -> None:
        topic, partition = lane.partition
        lane.most = UNLIMITED if lane.most > BATCH_BYTES else lane.most * 2
        table = self._entries
        told: list[tuple[Outgoing, Receipt]] = []
        known = offset >= 0
        for index, entry in enumerate(entries):
            if not entry.told:
                entry.told = True
                del table[entry.number]
                position = Position(partition, offset + index if known else -1)
                told.append((entry.outgoing, Receipt(topic, position)))
        self._tell_stored(told)
        if not table:
            self._empty.set()

    def _failed(self, lane: _Lane, entries: list[_Entry], error: BaseException) -> None:
        if len(entries) > 1 and isinstance(error, RECORD_ERRORS):
            lane.most = len(entries) // 2
            self._take_back(lane, entries)  # the broker has refused the whole of it
            return
        for entry in entries:
            if not entry.told:
                self._resolve(entry, outcome_of(entry.outgoing, error))
        if isinstance(error, kafka.UnknownTopicOrPartitionError):
            self._topics.forget(lane.partition.topic)
            self.forget(lane.partition.topic)

    def _take_back(self, lane: _Lane, entries: list[_Entry]) -> None:
        """Nothing of a batch is stored: it waits again, in its place."""
        for entry in entries:
            entry.sent = False
        lane.waiting.extendleft(reversed(entries))

    def _resolve(self, entry: _Entry, result: Receipt | TbusError) -> None:
        entry.told = True
        del self._entries[entry.number]
        if not self._entries:
            self._empty.set()
        self._tell(entry.outgoing, result)

    def _expire(self, entry: _Entry, why: str) -> None:
        outgoing = entry.outgoing
        if entry.sent:
            self._resolve(entry, unknown(outgoing, why))
        else:
            self._resolve(
                entry,
                TransportLost(f"an event for topic {outgoing.topic!r} was not sent: {why}"),
            )

    def _look_at_deadlines(self) -> None:
        now = self._loop.time()
        late = [entry for entry in self._entries.values() if entry.deadline <= now]
        for entry in late:
            self._expire(entry, f"no answer within {entry.outgoing.timeout} s")
        if late:
            self._drop_expired()
        self._watched = bool(self._entries)
        if self._watched:
            self._loop.call_later(DEADLINES_EVERY, self._look_at_deadlines)

    def _drop_expired(self) -> None:
        """Keep nothing whose outcome is known: with the brokers away, nobody else clears up."""
        lines = [lane.waiting for lanes in self._lanes.values() for lane in lanes]
        for line in (*lines, *self._unplaced.values()):
            kept = [entry for entry in line if not entry.told]
            if len(kept) < len(line):
                line.clear()
                line.extend(kept)


def _number(entry: _Entry) -> int:
    return entry.number


def _refusal(error: TbusError) -> TbusError:
    """Why nothing can be published to a topic, as the outcome of a publish."""
    return error if isinstance(error, PublishRefused) else PublishRefused(str(error))


def _too_large(outgoing: Outgoing, size: int) -> PublishRefused:
    return PublishRefused(
        f"an event of {size} bytes (with key and headers) for topic {outgoing.topic!r} is larger"
        f" than {LARGEST} bytes, the most that goes in one batch: send a reference"
    )
