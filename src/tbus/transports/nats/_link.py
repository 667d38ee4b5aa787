"""The supervisor of connections: one at a time, and the next one after a backoff.

Lives in the clients' loop. Who uses the connection is told when there is one (`on_up`) and
when it is gone (`on_down`); both are called in order, in the supervisor's task, and must
not block.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import anyio

from ..._config import NatsOptions
from ..._errors import TransportLost
from ..._events import Connected, ConnectionLost, Event, Reconnecting
from ._errors import NoAnswer, SessionLost
from ._session import CLOSE_WAIT, Session

logger = logging.getLogger("tbus.nats")

LIVENESS_EVERY = 3.0
"""Seconds without a word from the server, after which it is asked for one."""

LIVENESS_WAIT = 3.0
"""Seconds it has to answer then. A suspended server is found out by this alone."""


class Link:
    """Keeps a session as long as it runs.

    Attributes:
        session: the connection, or None while there is none.
        closing: set before the session is closed on purpose: that is no loss.
        on_up: called with each new session.
        on_down: called with the reason when one was lost.
    """

    def __init__(self, options: NatsOptions, name: str, emit: Callable[[Event], None]) -> None:
        self.session: Session | None = None
        self.closing = False
        self.on_up: list[Callable[[Session], None]] = []
        self.on_down: list[Callable[[str], None]] = []
        self._options = options
        self._name = name
        self._emit = emit
        self._up = asyncio.Event()
        self._next_server = random.randrange(len(options.servers))  # noqa: S311 - spreads clients, and guards nothing

    async def connect(self) -> None:
        """Make the first connection: every server is tried once.

        Raises:
            TransportLost: none of them took us; says which, and why.
        """
        problems = []
        for _ in self._options.servers:
            try:
                self.session = await self._connect_next()
            except TransportLost as error:
                problems.append(str(error))
            else:
                self._up.set()
                self._emit(Connected(self.session.address))
                return
        raise TransportLost("; ".join(problems))

    async def wait_session(self) -> Session:
        """Wait until there is a connection."""
        while self.session is None:
            await self._up.wait()
        return self.session

    async def run(self) -> None:
        """Supervise until cancelled.

        Raises:
            TransportLost: `reconnect_attempts` are used up.
        """
        try:
            while True:
                session = self.session
                assert session is not None
                await self._watch(session)
                if self.closing:
                    return
                self.session = None
                self._up.clear()
                for tell in self.on_down:
                    tell(session.reason)
                self._emit(ConnectionLost(session.address, session.reason))
                await session.close()
                await self._reconnect(session.reason)
        finally:
            if self.session is not None:
                with anyio.move_on_after(2 * CLOSE_WAIT, shield=True):
                    await self.session.close()

    async def _watch(self, session: Session) -> None:
        """Wait until the session is lost; ask for a sign of life when it is silent."""
        activity = session.activity
        while not session.lost.is_set():
            try:
                async with asyncio.timeout(LIVENESS_EVERY):
                    await session.lost.wait()
            except TimeoutError:
                if session.activity == activity:
                    try:
                        await session.ping(LIVENESS_WAIT)
                    except NoAnswer as error:
                        session.end(str(error))
                    except SessionLost:
                        pass  # then `lost` is set
                activity = session.activity

    async def _reconnect(self, reason: str) -> None:
        attempt = 0
        while True:
            attempt += 1
            limit = self._options.reconnect_attempts
            if limit is not None and attempt > limit:
                raise TransportLost(f"{limit} attempts to reconnect failed; the last: {reason}")
            delay = self._options.reconnect.delay(attempt, random.random)
            self._emit(Reconnecting(attempt, delay, reason))
            await asyncio.sleep(delay)
            try:
                session = await self._connect_next()
            except TransportLost as error:
                reason = str(error)
                continue
            self.session = session
            self._up.set()
            self._emit(Connected(session.address, attempt))
            for tell in self.on_up:
                tell(session)
            return

    async def _connect_next(self) -> Session:
        servers = self._options.servers
        server = servers[self._next_server % len(servers)]
        self._next_server += 1
        return await Session.connect(self._options, server, self._name)
