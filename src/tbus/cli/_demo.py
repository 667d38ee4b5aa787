"""The demo's work: thousands of orders through a bus, watched from outside.

The bus is used as any program would use it. What is claimed at the end is counted by
`Tally` and `take_census`, which ask the bus for nothing but its publishers' counts.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Protocol

import attrs
import trio

from .._bus import Bus
from .._config import BusConfig
from .._envelope import Envelope
from .._errors import PublishFailed
from .._message import Message, PublishOutcome
from .._open import open_bus
from .._retry import Retry
from .._subscription import Subscription
from .._transport import Order as OrderBy
from ._clean_up import remove_topics
from ._demo_census import take_census
from ._demo_plan import Order, Plan, make_plan
from ._demo_report import Report, figure
from ._demo_tally import Tally
from ._stop import Stop

GROUP = "demo"
REDRAW = 0.15
"""Seconds between two looks at the clock, the tasks and the screen."""

STALL = 30.0
"""Seconds without any progress, after which the demo gives up."""


@attrs.frozen
class DemoOptions:
    """What to do.

    Attributes:
        config: of the bus.
        events: how many to publish.
        customers: how many keys they have.
        topics: how many they are spread over.
        seed: what everything random follows from.
        order: "none" shows what is lost without key order.
    """

    config: BusConfig
    events: int
    customers: int
    topics: int
    seed: int
    order: OrderBy = "key"


class Audience(Protocol):
    """Who is told what happens, while it happens."""

    def say(self, text: str, seconds: float | None = None) -> None:
        """One thing is done, and took so long."""

    def begin(self, tally: Tally, plan: Plan) -> None:
        """The work begins."""

    def redraw(self) -> None:
        """A little time has passed."""

    def end(self) -> None:
        """The work has ended. Called whatever happened, `begin` or not."""


class ShopDown(Exception):
    """What a handler raises that was planned to fail."""


async def run_demo(options: DemoOptions, audience: Audience, stop: Stop) -> Report:
    """Publish, handle, clean up, and report.

    A stop ends it gracefully: the report is of what was done until then.

    Raises:
        TbusError: the bus could not be opened, or failed.
    """
    config = options.config
    foreign = config.backend != "memory" and not config.embedded
    lasting = foreign or config.nats.store is not None or config.kafka.store is not None
    plan = make_plan(
        events=options.events,
        customers=options.customers,
        topics=options.topics,
        seed=options.seed,
        prefix=f"tbus-demo-{secrets.token_hex(4)}." if lasting else "",
    )
    tally = Tally(options.events)
    left: list[str] = []
    stalled = False
    before = take_census()
    clock = trio.current_time
    opening = clock()
    async with open_bus(config, topics=tuple(plan.topics)) as bus:
        audience.say(_opened(config), clock() - opening)
        subscriptions: list[Subscription] = []
        try:
            with stop.scope():
                since = clock()
                for topic in plan.topics:
                    # One by one: those there are must be closed if it is ended here.
                    subscription = await _subscribe(bus, topic, plan, tally, options.order)
                    subscriptions.append(subscription)
                audience.say(
                    f"{len(plan.topics)} topics made and subscribed to",
                    clock() - since,
                )
                stalled = await _work(bus, plan, tally, audience)
        finally:
            audience.end()
            if foreign:
                left = await remove_topics(bus, plan.topics, subscriptions)  # noqa: ASYNC102 - the transport bounds it
        closing = clock()
    closed = clock() - closing
    audience.say(_closed(config), closed)
    return Report(
        address=config.address,
        events=options.events,
        customers=min(options.customers, options.events),
        topics=len(plan.topics),
        concurrency=config.concurrency,
        seed=options.seed,
        sent=len(tally.sent),
        acknowledged=tally.acknowledged,
        not_stored=len(tally.failed),
        why_not_stored=next(iter(tally.failed.values()), ""),
        handled=len(tally.handled),
        handled_acknowledged=len(tally.handled - tally.failed.keys()),
        missing=tally.missing,
        retries=tally.retries,
        duplicates=tally.duplicates,
        violations=tally.violations,
        examples=tuple(tally.examples),
        peak_tasks=tally.peak_tasks,
        tasks_at_rest=tally.tasks_at_rest,
        seconds=tally.seconds,
        closed_in=closed,
        before=before,
        after=take_census(),
        left_topics=tuple(left),
        stalled=stalled,
        signal=stop.signal,
    )


def _opened(config: BusConfig) -> str:
    if config.backend == "memory":
        return "broker opened in this process"
    if config.embedded:
        return f"{config.backend}-server started, connected"
    return f"connected to {config.address}"


def _closed(config: BusConfig) -> str:
    if config.backend == "memory":
        return "drained and closed"
    return f"drained; client loop{' and server' * config.embedded} stopped"


async def _subscribe(
    bus: Bus, topic: str, plan: Plan, tally: Tally, order: OrderBy
) -> Subscription:
    orders = plan.orders

    async def handle(message: Message) -> None:
        tally.begun(message.attempt)
        try:
            event = message.envelope
            planned = orders[event.aggregate_id, event.event_version]
            await trio.sleep(planned.wait)
            if planned.fails and message.attempt == 1:
                raise ShopDown("the shop's database did not answer")
            tally.completed(topic, event.aggregate_id, event.event_version, event.event_id)
        finally:
            tally.ended()

    return await bus.subscribe(
        topic,
        handle,
        group=GROUP,
        order=order,
        # No dead letters: whatever fails is tried until it works, in its place.
        retry=Retry(attempts=None, initial=0.02, maximum=1.0),
        dead_letter=None,
    )


async def _work(bus: Bus, plan: Plan, tally: Tally, audience: Audience) -> bool:
    """Publish everything and wait until it is handled; True if that came to a standstill."""
    tally.started = tally.last_handled = trio.current_time()
    tally.count_tasks(_client_tasks(bus))
    tally.tasks_at_rest = tally.tasks
    audience.begin(tally, plan)
    stalled = False

    async def watch() -> None:
        nonlocal stalled
        seen, since = (-1, -1, -1), trio.current_time()
        while True:
            tally.count_tasks(_client_tasks(bus))
            audience.redraw()
            now = (tally.acknowledged, len(tally.handled), len(tally.failed))
            if now != seen:
                seen, since = now, trio.current_time()
            elif trio.current_time() - since > STALL:
                stalled = True
                nursery.cancel_scope.cancel()
            await trio.sleep(REDRAW)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, name="demo watch")
        async with trio.open_nursery() as producers:
            for number, share in enumerate(plan.shares, 1):
                producers.start_soon(
                    partial(_produce, bus, share, tally), name=f"demo producer {number}"
                )
        taken = trio.current_time() - tally.started
        audience.say(f"{figure(tally.acknowledged)} events published, acknowledged", taken)
        await tally.wait_all_handled()
        nursery.cancel_scope.cancel()
    return stalled


def _client_tasks(bus: Bus) -> int:
    """The tasks that Trio does not count: none in memory, whose tasks are Trio's own."""
    if bus.config.backend == "memory":
        return 0
    return sum(1 for holding in bus.transport.holdings() if holding.kind == "task")


async def _produce(bus: Bus, share: Iterable[Order], tally: Tally) -> None:
    async with trio.open_nursery() as nursery:
        try:
            async with bus.open_publisher() as publisher:
                tally.publishers.append(publisher)
                nursery.start_soon(_read_failures, publisher.outcomes, tally)  # noqa: ASYNC111 - outcomes end with the publisher
                for order in share:
                    event = Envelope.new(
                        order.customer,
                        order.event_type,
                        {"order": f"{order.customer}/{order.version}", "total": 42},
                        event_version=order.version,
                    )
                    await publisher.send(order.topic, event)
                    tally.sent.add(event.event_id)
        except PublishFailed as error:
            for outcome in error.outcomes:
                tally.not_stored(outcome)


async def _read_failures(outcomes: AsyncIterator[PublishOutcome], tally: Tally) -> None:
    async for outcome in outcomes:
        if not outcome.success:
            tally.not_stored(outcome)
