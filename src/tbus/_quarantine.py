"""What becomes of a key whose message cannot be handled, where the user asks for more than one
dead letter: the options of a quarantine, and what it tells."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args

import attrs

from ._errors import ConfigurationError

Action = Literal["park", "dead_letter"]


@attrs.frozen
class Quarantine:
    """What happens to a key when one of its messages has used up its attempts.

    Attributes:
        action: "park": that message and all later ones of the key wait in place, unsettled,
            until the key is released or they are discarded. "dead_letter": that message and
            all later ones go to the dead-letter topic, in order, until the key is released.
        limit: messages of parked keys that wait in place, all keys of the subscription
            together (default: a quarter of its `max_in_flight`). Where there are more, later
            ones of a parked key go to the dead-letter topic, in order.

    Raises:
        ConfigurationError: a value cannot be used.
    """

    action: Action = "park"
    limit: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ConfigurationError(
                "one of 'park', 'dead_letter'", field="quarantine.action", value=self.action
            )
        limit: object = self.limit
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise ConfigurationError(
                "a whole number of messages, or None", field="quarantine.limit", value=limit
            )
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(
                "at least 1: the message that failed waits, too", field="quarantine.limit",
                value=limit,
            )  # fmt: skip


@attrs.frozen
class ParkedKey:
    """A key whose messages the handler does not get.

    Attributes:
        key: which.
        since: when that began, in UTC.
        waiting: messages of it that are here and not settled.
        reason: what its message failed with, or what `park` was told.
    """

    key: str
    since: datetime
    waiting: int
    reason: str


def as_quarantine(value: Any) -> Quarantine | None:
    """A `Quarantine`, one of its actions alone, or None.

    Raises:
        ConfigurationError: it is none of these.
    """
    if value is None or isinstance(value, Quarantine):
        return value
    if isinstance(value, str) and value in get_args(Action):
        return Quarantine(value)  # type: ignore[arg-type]  # one of the words, as was asked
    raise ConfigurationError(
        "'park', 'dead_letter', a Quarantine(...), or None", field="quarantine", value=value
    )
