"""Whether the cluster answers, and whether the topics in use are still there.

Lives in the clients' loop. Each of aiokafka's clients connects, and connects again, by itself, and
none of them tells: with every broker dead a consumer just returns nothing. So one question is
asked every few seconds, about the topics in use, which shows both.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import ssl
from collections.abc import Awaitable, Callable

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from ..._config import KafkaOptions
from ..._errors import ConfigurationError, TransportLost
from ..._events import Connected, ConnectionLost, Event, Reconnecting
from ._clients import client_options, close_client, start_client
from ._errors import LOST, describe
from ._log_limit import refusals

logger = logging.getLogger("tbus.kafka")

LIVENESS_EVERY = 3.0
"""Seconds between two questions."""

LIVENESS_WAIT = 1.5
"""Seconds that one broker has to answer; another one is asked then."""

BROKERS_ASKED = 4
"""Brokers that are asked, by chance, before the cluster is taken for lost."""

CLOSE_WAIT = 0.2
"""Seconds that the client gets for closing, before its connections are closed under it."""

NOT_LET_IN: tuple[type[BaseException], ...] = (
    kafka.AuthenticationFailedError,
    kafka.IllegalSaslStateError,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
)
"""Answers that another try would not change."""

Ask = Callable[[], Awaitable[object]]
"""Asks some broker about the topics in use."""


class _NoTopics(frozenset[str]):
    """The topics about which a client keeps itself informed: none. An empty set it takes for all
    that there are, and in a cluster of thousands the answer would hold its loop up, for nothing."""

    def __bool__(self) -> bool:
        return True


class Link:
    """Asks, and tells what changed.

    Attributes:
        admin: the client that questions go by.
        is_up: whether the last question was answered.
        on_up: called when the cluster answers again.
    """

    def __init__(self, options: KafkaOptions, name: str, emit: Callable[[Event], None]) -> None:
        self.admin = AIOKafkaAdminClient(**client_options(options, name))
        self.admin._client._topics = _NoTopics()
        self.is_up = False
        self.on_up: list[Callable[[], None]] = []
        self._options = options
        self._emit = emit
        self._address = ", ".join(options.servers)

    async def connect(self) -> None:
        """Make the first connection, within `connect_timeout`.

        Raises:
            TransportLost: nobody answered; says who, and why.
            ConfigurationError: we are not let in.
        """
        attempt = 0
        problem = "no answer"
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                while True:
                    attempt += 1
                    with refusals() as told:
                        try:
                            await start_client(self.admin.start)
                            break
                        except (kafka.KafkaError, *LOST) as error:
                            cause = told.last or error
                    if isinstance(cause, NOT_LET_IN):
                        raise ConfigurationError(
                            f"the broker at {self._address} does not let us in: {_why_not(cause)}",
                            field="user",
                            value=self._options.user,
                        ) from cause
                    problem = _why_lost(cause)
                    await asyncio.sleep(self._options.reconnect.delay(attempt, random.random))
        except TimeoutError:
            raise TransportLost(
                f"cannot connect to Kafka at {self._address} within"
                f" {self._options.connect_timeout} s: {problem}"
            ) from None
        self.is_up = True
        self._emit(Connected(self._address, attempt))

    async def watch(self, ask: Ask) -> None:
        """Ask every few seconds, until cancelled.

        Args:
            ask: asks one broker the question.

        Raises:
            TransportLost: `reconnect_attempts` are used up.
        """
        while True:
            await asyncio.sleep(LIVENESS_EVERY)
            problem = await self._try(ask)
            if problem is None:
                continue
            self.is_up = False
            self._emit(ConnectionLost(self._address, problem))
            attempt = 0
            while problem is not None:
                attempt += 1
                limit = self._options.reconnect_attempts
                if limit is not None and attempt > limit:
                    raise TransportLost(
                        f"{limit} attempts to reconnect failed; the last: {problem}"
                    )
                delay = self._options.reconnect.delay(attempt, random.random)
                self._emit(Reconnecting(attempt, delay, problem))
                await asyncio.sleep(delay)
                problem = await self._try(ask)
            self.is_up = True
            self._emit(Connected(self._address, attempt))
            for tell in self.on_up:
                tell()

    async def _try(self, ask: Ask) -> str | None:
        """Why nobody answers, or None: somebody did."""
        problem = "no answer"
        for _ in range(BROKERS_ASKED):
            try:
                async with asyncio.timeout(LIVENESS_WAIT):
                    await ask()
            except TimeoutError:
                problem = f"no answer within {LIVENESS_WAIT} s"
            except (kafka.KafkaError, *LOST) as error:
                problem = describe(error)
            else:
                return None
        return problem

    async def close(self) -> None:
        """Close the client."""
        self.is_up = False
        await close_client(
            "the administration client", self.admin.close, self.admin._client, CLOSE_WAIT
        )


def _why_not(error: BaseException) -> str:
    if isinstance(error, kafka.IllegalSaslStateError):
        return "its listener takes no user and password: leave them out, or use another port"
    return f"{describe(error)}; check user, password and mechanism"


def _why_lost(error: BaseException) -> str:
    if isinstance(error, OSError) and f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return "nothing listens there. Start it, or let kafka+embedded:// do so"
    if isinstance(error, kafka.KafkaConnectionError | ConnectionResetError | ssl.SSLError):
        return f"{describe(error)} (does it speak Kafka, and with or without TLS as we do?)"
    return describe(error)
