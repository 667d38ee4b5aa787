"""aiokafka's log, bounded: with a dead broker it writes tens of errors a second.

What happened is told by the bus's own events. Of the client's lines, one of each kind goes through
every few seconds, and says how many were left out. Only lines that are written in the bus's own
loop are counted: another user of aiokafka in the same program keeps all of its lines.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

INTERVAL = 5.0
"""Seconds between two lines of one kind."""

KINDS = 1000
"""Kinds of lines that are remembered, at most."""

NO_NEWS = "because it is rebalancing"
"""How a line ends that the client writes, as a warning, whenever a member comes or goes."""

LOGGERS = tuple(
    f"aiokafka{name}"
    for name in (
        "",
        ".client",
        ".cluster",
        ".conn",
        ".admin.client",
        ".producer.producer",
        ".producer.sender",
        ".producer.message_accumulator",
        ".consumer.consumer",
        ".consumer.fetcher",
        ".consumer.group_coordinator",
        ".consumer.subscription_state",
    )
)
"""A filter of a logger sees only what is written to that very logger."""


class LogLimit(logging.Filter):
    """Lets one line of each kind through in each interval. A kind is what a line says without its
    values.

    Args:
        thread: the name of the thread whose lines are counted.
    """

    def __init__(self, thread: str) -> None:
        super().__init__()
        self._thread = thread
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line goes through."""
        if record.threadName != self._thread or threading.current_thread().name != self._thread:
            return True
        kind = (record.name, str(record.msg))
        if kind[1].endswith(NO_NEWS):
            return False
        now = time.monotonic()
        last, left_out = self._seen.get(kind, (-INTERVAL, 0))
        if now - last < INTERVAL:
            self._seen[kind] = (last, left_out + 1)
            return False
        if len(self._seen) >= KINDS:
            self._seen.clear()
        self._seen[kind] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} (and {left_out} more like it in {now - last:.0f} s)"
        return True


class Refusals(logging.Filter):
    """Why the client reaches no broker when it begins: it says so in its log alone, and raises an
    error without a cause. What is told here is not written there.

    Attributes:
        last: what went wrong last, if anything did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last: BaseException | None = None
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line goes through."""
        told = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        if record.thread != self._thread or not isinstance(told, BaseException):
            return True
        self.last = told
        return False


@contextmanager
def refusals() -> Iterator[Refusals]:
    """Keep what the client tells in its log of the servers that it begins with."""
    told = Refusals()
    logger = logging.getLogger("aiokafka")  # the name that its client's module has taken
    logger.filters.insert(0, told)  # before the one that leaves repeats out
    try:
        yield told
    finally:
        logger.removeFilter(told)


@contextmanager
def limit_logs(thread: str = "tbus loop") -> Iterator[None]:
    """Limit what the client writes from the loop's thread, as long as the block runs."""
    limit = LogLimit(thread)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addFilter(limit)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(limit)
