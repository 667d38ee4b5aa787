"""One subscription's work: feed, key order, verdicts.

The pull loop takes what the feed hands over, finds each message's key and pushes it into
the dispatcher. Whoever handles the heads (workers, or the user's own loop over
`open_messages`) reports here how it went, and here it is decided what follows: settle,
try again in place, dead-letter, or hold and report. A message is settled only when it was
handled, discarded, or stored in its dead-letter topic; until then it keeps its key.

(A long file: each verdict touches the same few tables. What can be told apart stands elsewhere:
`_parked_keys`, `_leaving`, `_careful`; lists and at-most-once in intakes of their own.)
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from math import inf

import attrs

from ._careful import Careful, Limited, Turns
from ._dispatch import KeyedDispatcher, Lane, LaneState
from ._errors import InvalidEnvelope, Reject, TbusError, describe
from ._events import (
    DeadLettered,
    Discarded,
    KeyBacklog,
    MessageRetried,
    Stalled,
)
from ._gathering import Batch
from ._keys import find_key
from ._leaving import Leaving
from ._message import Delivery, Message
from ._pace import Pace, Rate
from ._parked_keys import ParkedKeys
from ._parking import Parking
from ._quarantine import Quarantine
from ._retry import Drop, GiveUp, Retry, RetryIn, decide, meant
from ._runtime import OneShot, Runtime
from ._throttle import PacedDispatcher
from ._timers import Timer, Timers
from ._transport import Emit, EndOfFeed, Feed, Guarantee, Order, Verdict

logger = logging.getLogger("tbus.handlers")

_DONE = Verdict.DONE  # looking a member up in its class takes as long as a call

SLICE = 0.001
"""Seconds for which the pull loop hands over before it gives the loop to others."""

HAND_OVER = 1024
"""The same in messages, for clocks that stand still (virtual time)."""

_LOOK = 128
"""Messages between two looks at the clock: a pass of the loop costs as much as twenty of them."""


@attrs.frozen
class IntakeOptions:
    """How a subscription treats its messages.

    Attributes:
        concurrency: handlers running at once.
        max_in_flight: of the feed; a key that holds half of it is reported.
        order: what is handled one after another.
        retry: when a handler failed.
        dead_letter: the topic for messages that cannot be handled, or None: hold them.
        timeout: seconds for one handler run.
        rate: how fast handlers are begun, or None.
        quarantine: what becomes of a key whose message has used up its attempts, or None:
            that message alone is dead-lettered.
        max_deliveries: how often the broker may deliver a message before it is
            dead-lettered without another run, or None: any number of times.
        delivery: what is promised of each message.
        batch: of what lists the handler takes, or None: it takes single messages.
    """

    concurrency: int
    max_in_flight: int
    order: Order
    retry: Retry
    dead_letter: str | None
    timeout: float
    rate: Rate | None = None
    quarantine: Quarantine | None = None
    max_deliveries: int | None = None
    delivery: Guarantee = "at_least_once"
    batch: Batch | None = None


class Intake:
    """Takes from one feed, hands out in key order, settles.

    Args:
        bury: stores a message in the dead-letter topic, told when it failed first and last;
            raises a `TbusError` if it could not.
        on_ready: called when a message can be handled.
        turns: of the bus, for messages that are handled alone.
    """

    __slots__ = (  # there is one for each topic, and a dict of so many takes 1.5 KB
        "_bury",
        "_careful",
        "_draining",
        "_emit",
        "_first_failed",
        "_gone",
        "_idle",
        "_leaving",
        "_limited",
        "_most_redelivered",
        "_on_ready",
        "_pace",
        "_parking",
        "_runtime",
        "_settle",
        "_timers",
        "_turns",
        "_waiting",
        "_wards",
        "_watching",
        "dispatcher",
        "evict",
        "feed",
        "graves",
        "group",
        "keys",
        "may_begin",
        "options",
        "progressed",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        group: str | None,
        feed: Feed,
        options: IntakeOptions,
        *,
        runtime: Runtime,
        timers: Timers,
        emit: Emit,
        bury: Callable[[Message, str, str, Exception | None, tuple[float, float]], Awaitable[None]],
        on_ready: Callable[[], None],
        turns: Turns | None = None,
    ) -> None:
        self.topic = topic
        self.group = group
        self.feed = feed
        self.options = options
        self._runtime = runtime
        self._timers = timers
        self._emit = emit
        self._bury = bury
        self._on_ready = on_ready
        self._pace = None if options.rate is None else Pace(options.rate, runtime.clock())
        self.progressed: float | None = None
        """When a message was settled last that no worker has handled, and no dead letter is."""
        self._first_failed: dict[Message, float] = {}
        self.graves: dict[Message, _Grave] = {}
        self.dispatcher = self._make_dispatcher()
        self._limited: Limited = self.dispatcher
        self._turns = Turns() if turns is None else turns
        self._careful: Careful | None = None
        self._waiting: dict[Lane[Message], Timer] = {}
        self._parking = self._make_parking(options)
        self._wards = self._parking.wards
        self.keys = ParkedKeys(topic, group, self._parking, feed, emit, self._go_on)
        most = options.max_deliveries
        self._most_redelivered = inf if most is None else most - 1
        self._draining = False
        self._watching = False
        """Whether anybody is to be told that nothing runs any more."""
        self._idle: OneShot | None = None
        """Set when nothing runs any more; from `stop` on."""
        self._leaving = Leaving()
        self._gone = self._leaving.gone
        self._settle = feed.settle
        self.may_begin = feed.read_by(self)
        """What to ask before a handler is begun, if anything."""
        self.evict: Callable[[Callable[[Message], bool]], object] | None = None
        """Cancels the handlers of some messages; None where the user's own loop handles them."""

    def _make_dispatcher(self) -> KeyedDispatcher[Message]:
        limit = self.options.concurrency
        if self._pace is None:
            return KeyedDispatcher(limit)
        return PacedDispatcher(
            limit, self._pace, self._runtime.clock, self._timers, self._tell_ready
        )

    @property
    def running(self) -> int:
        """Handlers running."""
        return self.dispatcher.running

    # The pull loop

    async def run(self) -> None:
        """Take from the feed until it ends.

        Raises:
            TbusError: the feed cannot go on.
        """
        clock = self._runtime.clock
        while True:
            try:
                deliveries = await self.feed.receive()
            except EndOfFeed:
                return
            began = clock()
            for start in range(0, len(deliveries), _LOOK):
                if start and (clock() - began > SLICE or not start % HAND_OVER):
                    await self._runtime.checkpoint()
                    began = clock()
                if self._draining:
                    break  # what is not handed out is given back when the feed closes
                slice_ = deliveries[start : start + _LOOK]
                if start and self._gone:  # partitions may have gone meanwhile
                    slice_ = [one for one in slice_ if not self._leaving.has_left(one)]
                self._hand_over(slice_)

    def _hand_over(self, deliveries: Iterable[Delivery]) -> None:
        if self._wards:
            self._hand_over_parked(deliveries)
            return
        push = self.dispatcher.push
        topic, group, order = self.topic, self.group, self.options.order
        by_key = order == "key"
        half = self.options.max_in_flight // 2
        behind = half - 1 if half > 1 else -1
        for delivery in deliveries:
            if delivery.keyed:
                key = delivery.key
                message = Message(topic, key, group, delivery, delivery.attempts + 1)
            else:
                key, decoded = find_key(delivery)
                message = Message(topic, key, group, delivery, delivery.attempts + 1, decoded)
            if delivery.redelivered:
                self._look_closer(message)
            if by_key:
                rest = push(key, message).rest
                if rest is None or len(rest) != behind or key is None:
                    continue
                self._emit(KeyBacklog(topic, group, key, half, self.options.max_in_flight))
            elif order == "none":
                push(None, message)
            else:
                push(delivery.position.partition, message)
        self._tell_ready()

    def _look_closer(self, message: Message) -> None:
        """It was delivered before: it may be what kills the processes that handle it."""
        delivery = message.delivery
        if delivery.redelivered > self._most_redelivered:
            reason = (
                f"the broker delivered it {delivery.redelivered + 1} times (max_deliveries is"
                f" {self.options.max_deliveries}): whoever had it before may have died of it"
            )
            self._doom(message, reason)
        elif delivery.suspect:
            self._suspect(message)

    def _suspect(self, message: Message) -> None:
        if self._careful is None or self._careful.over:
            self._careful = Careful(self._turns, self._limited, self._begin, self._on_ready)
            self._watching = True
        self._careful.suspects.add(message)

    def _begin(self, message: Message, stored: Callable[[], None]) -> None:
        self.feed.begin(message.delivery, stored)

    def _tell_ready(self) -> None:
        """Something can be handled: one at a time where some are suspect."""
        if self._careful is None:
            self._on_ready()
        else:
            self._careful.step()
            if self._careful.over:
                self._careful = None
                self._watching = self._draining
                self._on_ready()

    def _ended(self, message: Message | None = None) -> None:
        """Something was handled, or is not any more."""
        if self._careful is not None:
            if message is not None:
                self._careful.suspects.discard(message)
            self._careful.ended()
            if self._careful.over:
                self._careful = None
                self._watching = self._draining
        if self._idle is not None and not self.dispatcher.running:
            self._idle.set()

    # Verdicts

    def done(self, lane: Lane[Message]) -> None:
        """The head was handled."""
        message = self.dispatcher.finish(lane)
        if self._wards:
            self._parking.finished(lane)
        if self._first_failed:
            self._first_failed.pop(message, None)
        self._settle(message.delivery, _DONE)
        if self._gone:
            self._leaving.ended(message)
        if self._watching:
            self._ended(message)

    async def failed(self, lane: Lane[Message], error: Exception) -> None:
        """Handling the head raised: decide what follows. The lane is finished or held."""
        message = lane.head
        if message in self.graves:  # a dead letter that could not be stored before
            await self._try_to_bury(lane)
            return
        now = self._runtime.clock()
        self._first_failed.setdefault(message, now)
        decision = decide(self.options.retry, message.attempt, error, random.random)
        if not isinstance(decision, Drop):
            self.feed.note_attempts(message.delivery, message.attempt)
            self._tell_failure(message, error)
        if self._is_quarantined(lane, decision, error):
            await self._keep_parked(lane, decision, error, now)
        elif isinstance(decision, RetryIn):
            self._emit(
                MessageRetried(
                    self.topic, self.group, message.key, str(message.position), message.attempt,
                    decision.delay, describe(error),
                )
            )  # fmt: skip
            message.attempt += 1
            self._hold(lane, decision.delay)
        elif isinstance(decision, Drop):
            self._emit(
                Discarded(
                    self.topic, self.group, message.key, str(message.position), decision.reason
                )
            )
            self.progressed = now
            self.done(lane)
        else:
            self.graves[message] = _Grave(decision, error, now)
            await self._try_to_bury(lane)

    def _tell_failure(self, message: Message, error: Exception) -> None:
        """Events tell that it failed, each in a line, and the log where."""
        if self._pace is not None:
            self._pace.failed()
        logger.debug(
            "topic %s, group %s, key %r, message %s: attempt %d failed",
            self.topic, self.group, message.key, message.position, message.attempt,
            exc_info=error,
        )  # fmt: skip

    def interrupted(self, lane: Lane[Message]) -> None:
        """Handling the head was cancelled from outside: it is not handled, and no attempt is
        used up. It keeps its key until the feed gives it back."""
        self.dispatcher.hold(lane)
        if self._gone:
            self._let_go(lane.head)
        if self._watching:
            self._ended()

    async def _try_to_bury(self, lane: Lane[Message]) -> None:
        message = lane.head
        grave = self.graves[message]
        target = self.options.dead_letter
        problem = "it has no dead-letter topic"
        if target is not None:
            try:
                failed = (self._first_failed[message], grave.dug)
                await self._bury(message, target, grave.decision.reason, grave.error, failed)
            except TbusError as error:
                problem = f"its dead letter could not be stored: {describe(error)}"
            else:
                del self.graves[message]
                self._emit(
                    DeadLettered(
                        self.topic, self.group, message.key, str(message.position), target,
                        message.attempt, grave.decision.reason,
                    )
                )  # fmt: skip
                self.done(lane)
                return
        grave.tries += 1
        retry = self.options.retry
        delay = retry.maximum if target is None else retry.delay(grave.tries, random.random)
        self._emit(
            Stalled(
                self.topic, self.group, message.key, str(message.position), message.attempt,
                self._runtime.clock() - self._first_failed[message], delay,
                f"{grave.decision.reason}; {problem}",
            )
        )  # fmt: skip
        if target is None and not grave.is_unreadable():
            del self.graves[message]  # nothing to bury it in: the handler runs again
            message.attempt += 1
        self._hold(lane, delay)

    def _hold(self, lane: Lane[Message], delay: float | None) -> None:
        """Let the head wait: for so many seconds, or (None) until its key is released."""
        self.dispatcher.hold(lane)
        if self._gone and self._let_go(lane.head):
            pass
        elif not self._draining and delay is not None:
            self._waiting[lane] = self._timers.call_later(delay, partial(self._release, lane))
        if self._watching:
            self._ended()

    def _release(self, lane: Lane[Message]) -> None:
        self._waiting.pop(lane, None)
        if not self._draining and self.dispatcher.release(lane):
            self._tell_ready()

    # Parked keys

    def _make_parking(self, options: IntakeOptions) -> Parking:
        quarantine = options.quarantine or Quarantine()
        limit = quarantine.limit or max(1, options.max_in_flight // 4)
        return Parking(
            self.dispatcher,
            quarantine,
            None if options.dead_letter is None else limit,
            doom=self._doom,
            renew=self._renew,
            calm=self._calm,
            now=_now,
        )

    def _hand_over_parked(self, deliveries: Iterable[Delivery]) -> None:
        """The same as `_hand_over` while keys are parked: message by message."""
        wards = self._wards
        for delivery in deliveries:
            key, decoded = (delivery.key, None) if delivery.keyed else find_key(delivery)
            attempt = delivery.attempts + 1
            message = Message(self.topic, key, self.group, delivery, attempt, decoded)
            if delivery.redelivered:
                self._look_closer(message)
            ward = None if key is None else wards.get(key)
            if ward is None:
                self.dispatcher.push(key, message)
            else:
                self._parking.push(ward, message)
        self._tell_ready()

    def _is_quarantined(
        self, lane: Lane[Message], decision: RetryIn | Drop | GiveUp, error: Exception
    ) -> bool:
        """Whether the failed head's key is parked, from now on or since before."""
        key = lane.head.key
        if key is None or isinstance(decision, Drop):
            return False
        if key in self._wards:
            return True
        return (
            isinstance(decision, GiveUp)
            and self.options.quarantine is not None
            and not isinstance(meant(error), Reject)  # a verdict on one message, not on its key
            and self.keys.park_failed(key, decision.reason)
        )

    async def _keep_parked(
        self, lane: Lane[Message], decision: RetryIn | Drop | GiveUp, error: Exception, now: float
    ) -> None:
        key = lane.head.key
        assert key is not None
        ward = self._wards[key]
        if ward.waits:
            self._hold(lane, None)
            return
        reason = decision.reason if isinstance(decision, GiveUp) else ward.reason
        self.graves[lane.head] = _Grave(GiveUp(reason), error, now)
        await self._try_to_bury(lane)

    def _doom(self, message: Message, reason: str) -> None:
        if message not in self.graves:
            now = self._runtime.clock()
            self._first_failed.setdefault(message, now)
            self.graves[message] = _Grave(GiveUp(reason), None, now)
            message.attempt -= 1  # it tells how often a handler ran

    def _renew(self, message: Message) -> None:
        if message.delivery.attempts or message in self._first_failed:
            self.feed.note_attempts(message.delivery, 0)
        self._forget_message(message)
        message.attempt = 1

    def _calm(self, lane: Lane[Message]) -> None:
        timer = self._waiting.pop(lane, None)
        if timer is not None:
            timer.cancel()

    def _go_on(self) -> None:
        if self.dispatcher.ready:
            self._tell_ready()

    # Partitions that go

    def drain(self, partitions: Mapping[int, int], drained: Callable[[], None]) -> None:
        """Partitions are about to go: begin nothing more of them, and say when what runs has
        ended."""
        self._forget(partitions)
        running = self.dispatcher.running_items()
        self._leaving.when_ended(partitions, running, drained)

    def lose(self, partitions: Mapping[int, int]) -> None:
        """Partitions are gone: what still runs of them is cancelled."""
        self._forget(partitions)
        if self.evict is not None:
            self.evict(self._leaving.is_gone)

    def _forget(self, partitions: Mapping[int, int]) -> None:
        self._leaving.begin(partitions)
        for message in self.dispatcher.drop(self._leaving.is_gone):
            self._forget_message(message)
        for lane in [lane for lane in self._waiting if lane.state is not LaneState.HELD]:
            self._waiting.pop(lane).cancel()
        self.keys.forget(partitions)
        if self.dispatcher.ready:
            self._tell_ready()

    def _let_go(self, message: Message) -> bool:
        """It is not running any more; if it is somebody else's by now, forget it."""
        if not self._leaving.is_gone(message):
            return False
        for gone in self.dispatcher.drop(self._leaving.is_gone):
            self._forget_message(gone)
            self._leaving.ended(gone)
        if self.dispatcher.ready:
            self._tell_ready()
        return True

    def _forget_message(self, message: Message) -> None:
        self.graves.pop(message, None)
        self._first_failed.pop(message, None)
        if self._careful is not None:
            self._careful.suspects.discard(message)

    # The end

    def stop(self) -> None:
        """Take nothing more, begin nothing more. What runs may still be settled."""
        if self._draining:
            return
        self._draining = self._watching = True
        self._idle = self._runtime.one_shot()
        if self._careful is not None:
            self._careful.end()
            self._careful = None
        self.keys.stop()
        self.feed.stop()
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self.dispatcher.clear()
        if not self.dispatcher.running:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until nothing runs any more. After `stop`."""
        assert self._idle is not None
        await self._idle.wait()


def _now() -> datetime:
    return datetime.now(UTC)


@attrs.define
class _Grave:
    """Why a message is to be dead-lettered, and how often that was tried."""

    decision: GiveUp
    error: Exception | None
    dug: float
    """Clock time of the last failure."""
    tries: int = 0

    def is_unreadable(self) -> bool:
        """Whether it is the message, which stays as it is."""
        return self.error is not None and isinstance(meant(self.error), InvalidEnvelope)
