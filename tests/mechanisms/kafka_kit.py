"""What the tests of Kafka's outbox are made of: a loop whose time jumps, producers by hand."""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from tbus._errors import TbusError
from tbus._message import Receipt
from tbus._transport import Outgoing
from tbus.transports.kafka._outbox import Outbox
from tbus.transports.kafka._partitioners import partitioner
from tbus.transports.kafka._producers import BATCH_BYTES
from tbus.transports.kafka._sending import Answered

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Where nothing but time would wake the loop, it is that time."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += timeout
        return ready


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = _JumpingSelector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it in an asyncio loop whose time jumps to whatever is waited for."""
    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        return runner.run(main())


class HandProducer:
    """Batches that were sent, to be answered by the test."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.retired = False
        self.batches: list[list[str]] = []
        self.partitions: list[int] = []
        self.answers: list[asyncio.Future[int]] = []
        """Of each batch, the offset that it is stored at."""
        self.stored = 0

    def batch(self) -> HandBatch:
        return HandBatch()

    def store(self, batch: HandBatch, partition: TopicPartition, answered: Answered) -> None:
        assert batch.count == len(batch.bodies)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def tell(_: object) -> None:
            error = answer.exception()
            answered(-1 if error else answer.result(), error)

        answer.add_done_callback(tell)
        self.batches.append(batch.bodies)
        self.partitions.append(partition.partition)
        self.answers.append(answer)

    def send(self) -> None:
        """What was stored was sent."""

    def answer(self, number: int = -1) -> None:
        """It is stored."""
        offset = self.stored
        self.stored += len(self.batches[number])
        self.answers[number].set_result(offset)

    def refuse(self, error: Exception, number: int = -1) -> None:
        self.answers[number].set_exception(error)


class HandBatch:
    """A batch of the client's own, that remembers the bodies."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.count = 0
        self._batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, BATCH_BYTES)

    def append(self, offset: int, time: int, key: bytes | None, value: bytes, more: Any) -> object:
        assert offset == len(self.bodies)
        taken: object = self._batch.append(offset, time, key, value, more)
        if taken is not None:
            self.bodies.append(value.decode())
        return taken


class HandProducers:
    """Whichever producer the test puts here."""

    def __init__(self) -> None:
        self.current: HandProducer | None = HandProducer()
        self.made = [self.current]
        self.ended: list[HandProducer] = []
        self.replaced = True
        self.changed = asyncio.Event()

    async def get(self) -> HandProducer:
        while self.current is None:
            self.changed.clear()
            await self.changed.wait()
        return self.current

    async def learn(self, topic: str) -> None:
        await self.get()

    def retire(self, producer: HandProducer) -> None:
        producer.retired = True
        if self.current is producer:
            self.current = None
            if self.replaced:
                self.replace()

    def replace(self) -> None:
        """There is another one."""
        self.current = HandProducer()
        self.made.append(self.current)
        self.changed.set()

    def end_if_idle(self, producer: HandProducer) -> None:
        if producer.retired and not producer.in_flight:
            self.ended.append(producer)


class HandTopics:
    """Topics that are there, or the error that looking for one raises."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.error: TbusError | None = None
        self.looked = 0
        self.forgotten: list[str] = []

    async def ensure(self, topic: str) -> int:
        self.looked += 1
        if self.error is not None:
            raise type(self.error)(str(self.error))
        return self.partitions

    def forget(self, topic: str) -> None:
        self.forgotten.append(topic)


class Desk:
    """An outbox, what is put into it, and what comes of that."""

    def __init__(self, partitions: int = 1) -> None:
        self.producers = HandProducers()
        self.topics = HandTopics(partitions)
        self.outcomes: dict[str, Receipt | TbusError] = {}
        self.times: dict[str, float] = {}
        self.order: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.outbox = Outbox(
            self.producers,  # type: ignore[arg-type]
            self.topics,  # type: ignore[arg-type]
            partitioner("murmur2"),
            self._start,
            self._tell,
            self._tell_stored,
        )

    def _start(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        async def call() -> None:
            await function(*args)

        task = self._loop.create_task(call())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, outgoing: Outgoing, result: Receipt | TbusError) -> None:
        assert outgoing.id not in self.outcomes, "a second outcome"
        self.outcomes[outgoing.id] = result
        self.times[outgoing.id] = self._loop.time()
        self.order.append(outgoing.id)

    def _tell_stored(self, stored: list[tuple[Outgoing, Receipt]]) -> None:
        for outgoing, receipt in stored:
            self._tell(outgoing, receipt)

    @property
    def producer(self) -> HandProducer:
        """The latest one."""
        return self.producers.made[-1]

    @property
    def sent(self) -> list[list[str]]:
        """All batches of all producers."""
        return [batch for producer in self.producers.made for batch in producer.batches]

    def put(
        self, ids: str, key: str | None = "k", *, timeout: float = 10.0, size: int = 0
    ) -> list[Outgoing]:
        """An event for each letter, which is its id and its body; `size`: the body's bytes."""
        events = [
            Outgoing("t", id.ljust(size).encode(), key, (), id, timeout, lambda *_: None)
            for id in ids
        ]
        self.outbox.take(deque(events))
        return events

    async def settle(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(20):
            await asyncio.sleep(0)
