"""A subscription whose handler takes lists: what becomes of a list.

The laws:

1. A list whose handler returned is settled. One whose handler failed is run again as a whole,
   after the policy's delay, while its keys wait and all others go on.
2. Before anything is dead-lettered or discarded, it was handled alone and failed so: the last
   attempt, or the next after an error that is not retried, runs message by message. So nobody
   goes for what another one did.
3. A handler that tells which messages failed (`BatchFailed`) has handled all others, except
   those that stand behind one of them in its key and must come after it.
4. An attempt is a run that failed for the message: every message of a list that failed as a
   whole has used up one, of the others those that were named.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Any

from ._dispatch import Lane, LaneState
from ._errors import BatchFailed, describe
from ._events import BatchRetried
from ._gathering import Bundle, Gathering
from ._intake import Intake
from ._message import Message
from ._pace import Pace
from ._retry import Drop, RetryIn, decide, meant
from ._timers import Timer, Timers

WITHOUT_LAST = 5
"""The attempt that counts as the last one where there is no limit: from then on messages are
handled alone, so that one which never succeeds does not keep the others from it."""


class Unreadable(Exception):  # never leaves the bus
    """Messages of a list that no handler can be given."""

    def __init__(self, messages: list[Message]) -> None:
        super().__init__()
        self.messages = messages


class Lists:
    """What the workers take: the lists of one subscription.

    Args:
        gathering: the messages.
        limit: how many lists may be running at once.
        pace: what each of them is counted by.
        on_due: called when one can be taken.
    """

    def __init__(
        self,
        gathering: Gathering,
        limit: int,
        pace: Pace | None,
        clock: Callable[[], float],
        timers: Timers,
        on_due: Callable[[], None],
    ) -> None:
        self.limit = limit
        self.running = 0
        self._gathering = gathering
        self.again: deque[Bundle] = deque()
        """Lists that are to be taken again, their lanes held."""
        self._pace = pace
        self._clock = clock
        self._timers = timers
        self._on_due = on_due
        self._timer: Timer | None = None
        self._paused = False

    @property
    def ready(self) -> int:
        """Whether a list could be taken now, were there no limit: 0 or 1."""
        if self._paused:
            return 0
        return int(bool(self.again) or self._gathering.due_at() <= self._clock())

    def take(self) -> Lane[Bundle] | None:
        """A list to be handled now, or None. It runs until `running` is lowered again."""
        if self.running >= self.limit or not self.ready:
            return None
        when = None if self._pace is None else self._pace.take(self._clock())
        if when is not None:
            self._paused = True
            self._timers.call_at(when, self._go_on)
            return None
        bundle = None
        while bundle is None and self.again:
            bundle = self._gathering.take_again(self.again.popleft())
        if bundle is None:
            if self._gathering.due_at() > self._clock():
                return None
            bundle = self._gathering.take_list()
        self.running += 1
        self.arm()
        return Lane(None, bundle, LaneState.RUNNING)

    def peek(self) -> Message | None:
        """The first message of the list that would be taken next, if one is due."""
        if not self.ready:
            return None
        return self.again[0].messages[0] if self.again else self._gathering.peek()

    def repeat(self, bundle: Bundle) -> None:
        """A list whose lanes are held is to be taken again, before others."""
        self.again.append(bundle)
        self._on_due()

    def arm(self) -> None:
        """See to it that `on_due` is called when the next list is due, if none is now."""
        if self._timer is None:
            when = self._gathering.due_at()
            if self._clock() < when < inf:
                self._timer = self._timers.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._on_due()

    def _go_on(self) -> None:
        self._paused = False
        self._on_due()


class BatchIntake(Intake):
    """The same with verdicts about lists."""

    dispatcher: Gathering

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        clock, limit = self._runtime.clock, self.options.concurrency
        self.lists = Lists(
            self.dispatcher, limit, self._pace, clock, self._timers, self._tell_ready
        )
        self._limited = self.lists
        self._again: dict[Bundle, Timer] = {}

    def _make_dispatcher(self) -> Gathering:
        assert self.options.batch is not None
        last = self.options.retry.attempts or WITHOUT_LAST
        return Gathering(self.options.batch, last, self.graves, self._runtime.clock)

    @property
    def running(self) -> int:
        """Handlers running."""
        return self.lists.running

    # Verdicts

    def list_done(self, bundle: Bundle) -> None:
        """The handler returned."""
        self.lists.running -= 1
        for lane, messages in bundle.parts:
            for _ in messages:
                self.done(lane)

    async def list_failed(self, bundle: Bundle, error: Exception) -> None:
        """The handler raised. Every lane is finished or held."""
        messages = bundle.messages
        told = meant(error)
        if isinstance(told, BatchFailed):
            error = told
        if isinstance(error, BatchFailed) and not error.errors.keys() <= set(messages):
            error = LookupError("its BatchFailed names a message that is not in the list")
        if isinstance(error, Unreadable):
            self.dispatcher.alone.update(error.messages)
            self._hold_all(bundle)
            self._release_all(bundle)
        elif isinstance(error, BatchFailed):
            await self._some_failed(bundle, error.errors)
        elif len(messages) == 1:
            await self._one_failed(bundle.parts[0][0], error)
        else:
            self._all_failed(bundle, error)
        self.lists.running -= 1

    def list_interrupted(self, bundle: Bundle) -> None:
        """The handler, or `list_failed`, was cancelled from outside: what is still in the list
        is not handled, and no attempt is used up."""
        self.lists.running -= 1
        self._hold_all(bundle)
        if self._gone:
            # Some of its messages are somebody else's now; the others go on.
            self._release_all(bundle)
            self._go_on()

    async def _some_failed(self, bundle: Bundle, errors: Mapping[Message, Exception]) -> None:
        parts = bundle.parts
        parts.sort(key=lambda part: any(message in errors for message in part[1]))
        while parts:
            lane, messages = parts[0]
            while messages and self.dispatcher.taken(lane):
                message = messages[0]
                error = errors.get(message)
                if error is None:
                    self.done(lane)
                else:
                    await self._one_failed(lane, error)
                del messages[0]
            for message in messages:  # it comes again behind one that failed
                if message in errors:
                    self._count_attempt(message)
            del parts[0]

    async def _one_failed(self, lane: Lane[Message], error: Exception) -> None:
        message = lane.head
        await self.failed(lane, error)
        if len(lane) and lane.head is message:
            self.dispatcher.keep_alone(message)

    def _all_failed(self, bundle: Bundle, error: Exception) -> None:
        messages = bundle.messages
        attempt = max(message.attempt for message in messages)
        decision = decide(self.options.retry, attempt, error, random.random)
        delay = decision.delay if isinstance(decision, RetryIn) else 0.0
        if not isinstance(decision, Drop):
            self._tell_failure(messages[0], error)
            for message in messages:
                self._count_attempt(message)
        if not isinstance(decision, RetryIn) or not self.dispatcher.alone.isdisjoint(messages):
            self.dispatcher.alone.update(messages)
        alone = messages[0] in self.dispatcher.alone
        first = messages[0].position
        self._emit(
            BatchRetried(
                self.topic, self.group, str(first), len(messages), attempt, delay, alone,
                describe(error),
            )
        )  # fmt: skip
        self._hold_all(bundle)
        self._keep_parked_keys(bundle)
        if self._draining:
            pass
        elif alone:
            for lane, _ in bundle.parts:
                release = partial(self._release, lane)
                self._waiting[lane] = self._timers.call_later(delay, release)
        elif bundle.parts:
            again = partial(self._repeat, bundle)
            self._again[bundle] = self._timers.call_later(delay, again)

    def _count_attempt(self, message: Message) -> None:
        self._first_failed.setdefault(message, self._runtime.clock())
        self.feed.note_attempts(message.delivery, message.attempt)
        message.attempt += 1
        self.dispatcher.keep_alone(message)

    # Lists that wait

    def _hold_all(self, bundle: Bundle) -> None:
        for lane, _ in bundle.parts:
            self.dispatcher.hold(lane)
        if self._gone:
            for message in self.dispatcher.drop(self._leaving.is_gone):
                self._forget_message(message)
                self._leaving.ended(message)
            bundle.parts = [part for part in bundle.parts if part[0].state is LaneState.HELD]
        if self._watching:
            self._ended()

    def _release_all(self, bundle: Bundle) -> None:
        self._keep_parked_keys(bundle)
        if not self._draining:
            for lane, _ in bundle.parts:
                self.dispatcher.release(lane)

    def _keep_parked_keys(self, bundle: Bundle) -> None:
        """Keys that were parked meanwhile are not of the list any more: they stay held, or, if
        the key's messages are dead-lettered, those of the list are, too."""
        for part in bundle.parts if self._wards else ():
            lane, messages = part
            ward = None if messages[0].key is None else self._wards.get(messages[0].key)
            if ward is None:
                continue
            bundle.parts = [other for other in bundle.parts if other is not part]
            if not ward.waits:
                for message in messages:
                    self._doom(message, f"its key is parked: {ward.reason}")
                self.dispatcher.release(lane)

    def _repeat(self, bundle: Bundle) -> None:
        self._again.pop(bundle, None)
        if not self._draining:
            self.lists.repeat(bundle)

    def _calm(self, lane: Lane[Message]) -> None:
        super()._calm(lane)
        for bundle in (*self._again, *self.lists.again):
            bundle.parts = [part for part in bundle.parts if part[0] is not lane]

    def _suspect(self, message: Message) -> None:
        self.dispatcher.alone.add(message)
        super()._suspect(message)

    def _forget_message(self, message: Message) -> None:
        super()._forget_message(message)
        self.dispatcher.alone.discard(message)

    def stop(self) -> None:
        """Take nothing more, begin nothing more. What runs may still be settled."""
        for timer in self._again.values():
            timer.cancel()
        self._again.clear()
        self.lists.again.clear()
        super().stop()
