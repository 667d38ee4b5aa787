"""From published to handled, one event after another: each in turn is published, and its handler
has begun, before the next.

The clock runs from the call that publishes to the first line of the handler, in one process, which
publishes and consumes over one connection. nats-py consumes in the two ways of its documentation:
`fetch(1)`, asked for again while the next event is published; and a push consumer with a callback,
which the server sends to without being asked. Both acknowledge each message, as tbus does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import trio
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from tbus import Message, open_bus

from .consuming import GROUP
from .workload import Figures, Job, bodies, connect, percentile

WARM_UP = 50
"""Events that are not counted."""


class Course:
    """When each event was published and handled.

    Attributes:
        handled: how many.
    """

    def __init__(self, job: Job, clock: Callable[[], float] = time.perf_counter) -> None:
        self.events = bodies(job.count)
        self._clock = clock
        self.handled = 0
        self._left = 0.0
        self._took: list[float] = []

    def leave(self) -> None:
        """The next event is published now."""
        self._left = self._clock()

    def arrive(self) -> None:
        """Its handler has begun."""
        self._took.append(self._clock() - self._left)
        self.handled += 1

    def figures(self) -> Figures:
        """Percentiles, in microseconds."""
        took = [seconds * 1e6 for seconds in self._took[min(WARM_UP, len(self._took) // 2) :]]
        return {
            "p50": percentile(took, 0.5),
            "p99": percentile(took, 0.99),
            "max": max(took),
            "handled": self.handled,
        }


async def arrival_tbus(job: Job) -> Figures:
    course = Course(job)
    arrived = trio.Event()

    async def handle(_: Message) -> None:
        course.arrive()
        arrived.set()

    async with open_bus(job.url) as bus:
        await bus.subscribe(job.topic, handle, group=GROUP)
        for _, body in course.events:
            arrived = trio.Event()
            course.leave()
            await bus.publish(job.topic, body)
            await arrived.wait()
    return course.figures()


async def arrival_nats_py_fetch(job: Job) -> Figures:
    client, js = await connect(job.url)
    course = Course(job)
    arrived = asyncio.Event()
    subscription = await js.pull_subscribe(job.topic, durable=GROUP)

    async def consume() -> None:
        while course.handled < job.count:
            for message in await subscription.fetch(1, timeout=5):
                course.arrive()
                arrived.set()
                await message.ack()

    async with asyncio.TaskGroup() as group:
        group.create_task(consume())
        await _publish(js, job, course, arrived)
    await client.close()
    return course.figures()


async def arrival_nats_py_push(job: Job) -> Figures:
    client, js = await connect(job.url)
    course = Course(job)
    arrived = asyncio.Event()

    async def handle(message: Msg) -> None:
        course.arrive()
        arrived.set()
        await message.ack()

    await js.subscribe(job.topic, durable=GROUP, cb=handle, manual_ack=True)
    await _publish(js, job, course, arrived)
    await client.close()
    return course.figures()


async def _publish(js: JetStreamContext, job: Job, course: Course, arrived: asyncio.Event) -> None:
    for event_id, body in course.events:
        arrived.clear()
        course.leave()
        await js.publish(job.topic, body, headers={"Nats-Msg-Id": event_id})
        await arrived.wait()


async def arrival_faststream(job: Job) -> Figures:
    from faststream.nats import JStream, NatsBroker, PullSub  # noqa: PLC0415 - slow, only here

    course = Course(job)
    arrived = asyncio.Event()

    async def handle(_: bytes) -> None:
        course.arrive()
        arrived.set()

    broker = NatsBroker(job.url, logger=None)
    broker.subscriber(
        job.topic,
        stream=JStream(job.topic, declare=False),
        durable=GROUP,
        pull_sub=PullSub(batch_size=1),
    )(handle)
    await broker.connect()
    await broker.start()
    for _, body in course.events:
        arrived.clear()
        course.leave()
        await broker.publish(body, job.topic, stream=job.topic)
        await arrived.wait()
    await asyncio.sleep(0.1)  # the last acknowledgement is under way
    await broker.stop()
    return course.figures()
