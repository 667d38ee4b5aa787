"""How often a program says the same."""

from __future__ import annotations

import logging
import re
from collections import Counter, deque

import attrs

WINDOW = 1.0
"""Seconds in which one event may be logged once."""

_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\S*\d\S*")


@attrs.frozen
class Lines:
    """What was logged.

    Attributes:
        total: lines.
        most: of one logger and one message, in any second.
        what: that message, and its logger.
    """

    total: int = 0
    most: int = 0
    what: str = ""


class LogTally(logging.Handler):
    """Counts lines by logger and message, where a message is what it says without its values."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._totals: Counter[tuple[str, str]] = Counter()
        self._recent: dict[tuple[str, str], deque[float]] = {}
        self._most: Counter[tuple[str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.note(record.name, str(record.msg), record.created)

    def note(self, logger: str, message: str, when: float) -> None:
        """One line."""
        kind = (logger, _VALUES.sub("*", message))
        self._totals[kind] += 1
        recent = self._recent.setdefault(kind, deque())
        recent.append(when)
        while recent[0] <= when - WINDOW:
            recent.popleft()
        self._most[kind] = max(self._most[kind], len(recent))

    def lines(self) -> Lines:
        """What was logged by now."""
        if not self._most:
            return Lines()
        [((logger, message), most)] = self._most.most_common(1)
        return Lines(self._totals.total(), most, f"{logger}: {message}")
