"""A member of a group, doing what `_ownership` decides. Lives in the clients' loop.

It needs no task: a timer, the answers to its questions and the news of the bucket are its only
inputs, and each is performed at once. The clock goes on while the process is suspended, and where
there is one that does, while the machine is.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from math import inf

from ..._config import NatsOptions
from ..._errors import TbusError
from ..._ownership import (
    Answer,
    Delete,
    Document,
    Drain,
    Drop,
    Effect,
    Get,
    Left,
    Member,
    Put,
    Take,
    Timing,
)
from ._alarms import Alarms
from ._bucket import GroupBucket
from ._errors import NoAnswer, NoResponders, SessionLost
from ._session import Session

if hasattr(time, "CLOCK_BOOTTIME"):
    clock: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
else:
    clock = time.monotonic

JOIN_WAIT = 5.0
"""Seconds to wait for the group at the beginning: those who must be taken for dead first take
half of it."""

ATTACH_AGAIN = 0.1
"""Seconds until a bucket that did not answer is asked again."""

Shares = Iterable[tuple[int, int, str]]
"""Partition, epoch and mark of each that is read."""


class Lease:
    """When the lease ends, by `clock`: for everything that is begun or settled, in any thread."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = -inf


class Membership:
    """Who owns what, as one process of a group knows it.

    Args:
        partitions: of the topic.
        alarms: of the process: the heartbeats of many topics are written, sent and answered at
            once.
        start: starts a task in the loop's nursery.
        perform: does what is to be done with partitions: all that was decided at once.
        shares: what is read, for the heartbeats.
        meet: told who is in the group now, whenever that is somebody else.
        fail: the member cannot go on.
    """

    def __init__(
        self,
        topic: str,
        group: str,
        partitions: int,
        options: NatsOptions,
        alarms: Alarms,
        *,
        start: Callable[..., None],
        perform: Callable[[list[Take | Drain | Drop]], None],
        shares: Callable[[], Shares],
        meet: Callable[[tuple[str, ...]], None],
        fail: Callable[[TbusError], None],
        timing: Timing | None = None,
    ) -> None:
        self.bucket = GroupBucket(
            topic, group, options, on_answer=self._answered, on_news=self._noticed, fail=fail
        )
        self._member = Member(_new_name(), partitions, clock(), timing, _phase())
        self.lease = Lease()
        self._start = start
        self._perform_shares = perform
        self._shares = shares
        self._meet = meet
        self._met: tuple[str, ...] = ()
        self._seen: Document | None = None
        """The last one that was looked at for who is in it."""
        self._fail = fail
        self._alarms = alarms
        self._wakes = inf
        """What the alarm is set to, by `clock`."""
        self._joined = _Once()
        self._left = _Once()
        self._ended = False

    # Questions

    def owns(self, partition: int, epoch: int) -> bool:
        """Whether something of a partition may be settled now."""
        return self._member.owns(clock(), partition, epoch)

    @property
    def member(self) -> Member:
        """What has been decided."""
        return self._member

    # The connection

    async def join(self, session: Session) -> None:
        """Begin; returns when the group has this member, or cannot be asked for now. Whatever it
        owns at once has been told by then.

        Raises:
            TbusError: the bucket cannot be used.
            SessionLost, NoAnswer, NoResponders: the server did not answer.
        """
        await self.bucket.attach(session)
        self._wake()
        try:
            async with asyncio.timeout(JOIN_WAIT):
                await self._joined.wait()
        except TimeoutError:
            pass

    async def attach_again(self, session: Session) -> None:
        """Go on with another connection; returns when the bucket can be asked."""
        while not self._ended and not session.lost.is_set():
            try:
                await self.bucket.attach(session)
            except SessionLost:
                return
            except (NoAnswer, NoResponders):
                await asyncio.sleep(ATTACH_AGAIN)
            except TbusError as error:
                self._fail(error)
                return
            else:
                self._wake()
                return

    def detach(self) -> None:
        """The connection is gone."""
        self.bucket.detach()

    # Inputs

    def _wake(self) -> None:
        if self._ended:
            return
        self._wakes = -inf  # it has rung; or this is a reconnect, and it is set anew
        for partition, epoch, mark in self._shares():
            self._member.note(partition, epoch, mark)
        self._perform(self._member.wake(clock()))

    def _answered(self, request: int, answer: Answer) -> None:
        self._tell(self._member.answered, request, answer)

    def _noticed(self, key: str, revision: int, value: bytes | None) -> None:
        if not self._member.knows(key, revision):
            self._tell(self._member.noticed, key, revision, value)

    def _tell(self, tell: Callable[..., list[Effect]], *news: object) -> None:
        if self._ended:
            return
        try:
            effects = tell(clock(), *news)
        except TbusError as error:
            self._fail(error)
        else:
            self._perform(effects)

    def drained(self, partition: int, epoch: int, mark: str) -> None:
        """Nothing of a partition runs any more. Answers every `Drain` and `Drop`."""
        self._tell(self._member.drained, partition, epoch, mark)

    def lost(self, partition: int, epoch: int, reason: str) -> None:
        """Somebody else reads the partition."""
        self._tell(self._member.lost, partition, epoch, reason)

    def begin_to_leave(self) -> None:
        """Give everything away."""
        self._tell(self._member.leave)

    async def leave(self) -> None:
        """The same; returns when the group knows it. Bounded by the caller."""
        self.begin_to_leave()
        if not self._ended:
            await self._left.wait()

    async def close(self) -> None:
        """Stop. What is owned is taken over by others when the lease has run out, unless it
        was given away."""
        self.end()
        await self.bucket.close()

    def end(self) -> None:
        """Nothing is looked at any more."""
        self._ended = True
        self._joined.set()
        self._left.set()
        self._alarms.cancel(self._wake)

    # Effects

    def _perform(self, effects: list[Effect]) -> None:
        member, bucket = self._member, self.bucket
        shares: list[Take | Drain | Drop] = []
        for effect in effects:
            if isinstance(effect, Put):
                bucket.put(effect)
            elif isinstance(effect, Get):
                bucket.get(effect)
            elif isinstance(effect, Delete):
                bucket.delete(effect)
            elif isinstance(effect, Left):
                self._left.set()
            else:
                shares.append(effect)
        self.lease.until = member.lease_until
        if member.wake_at != self._wakes:
            self._wake_at(member.wake_at)
        if shares:
            self._perform_shares(shares)
        document = member.document
        if document is not self._seen:
            self._seen = document
            self._look_who_is_here(document.members)

    def _look_who_is_here(self, members: tuple[str, ...]) -> None:
        if self._member.id in members:
            self._joined.set()
            if members != self._met:
                self._met = members
                self._meet(members)

    def _wake_at(self, when: float) -> None:
        """By `clock`."""
        if when == self._wakes or self._ended:
            return
        self._wakes = when
        delay = when - clock()
        if delay < inf:
            self._alarms.set(self._wake, delay)
        else:
            self._alarms.cancel(self._wake)


def _phase() -> float:
    """The same for all memberships of this process, and mostly another one in other processes: the
    server need not hear all of a machine at once."""
    return os.getpid() * 0.618 % 1.0


def _new_name() -> str:
    """One that nobody else ever has, and people can do something with."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class _Once:
    """Something that happens once. Every idle topic has two, so an event, with its queue for
    those who wait, is only there while somebody does."""

    __slots__ = ("_event", "_has_happened")

    def __init__(self) -> None:
        self._has_happened = False
        self._event: asyncio.Event | None = None

    def set(self) -> None:
        """It has happened."""
        self._has_happened = True
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait until it has."""
        if not self._has_happened:
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()
