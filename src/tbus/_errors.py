"""Every error a user of tbus can meet, under one root.

Three questions sort them. Did the caller misuse the bus (`ConfigurationError` and its
kin)? Did the broker or the way to it fail (`TransportLost`, `ConsumerGone`,
`MessagesLost`)? And for a publish: was the event stored (no error), refused
(`PublishRefused`) or is that unknown (`OutcomeUnknown`)?

`RetryAfter`, `Reject`, `Discard` and `BatchFailed` go the other way: a handler raises them to
tell the bus what to do with the message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ._message import Message, PublishOutcome


def text_of(error: BaseException) -> str:
    """What an exception says; users' own ones may fail even to say it."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - it is told in place of the text
        return f"<its __str__ raised {type(failure).__name__}>"


NAMED = 3
"""Exceptions of a group that are told of, at most."""


def describe(error: BaseException, limit: int = 500) -> str:
    """Type and text of an exception, or of those that a group holds: the group itself says nothing
    but how many. Bounded: each has its share of `limit`, in characters."""
    if not isinstance(error, BaseExceptionGroup):
        name, text = type(error).__name__, text_of(error)
        return (f"{name}: {text}" if text else name)[:limit]
    name, leaves = type(error).__name__, leaves_of(error)
    more = len(leaves) - NAMED
    end = f"; and {more} more" if more > 0 else ""
    share = max(1, (limit - len(f"{name} of {end}")) // min(len(leaves), NAMED) - len("; "))
    named = "; ".join(describe(leaf, share) for leaf in leaves[:NAMED])
    return f"{name} of {named}{end}"[:limit]


E = TypeVar("E", bound=BaseException)


def leaves_of(group: BaseExceptionGroup[E]) -> list[E]:
    """The exceptions that a group holds, however deep, in order."""
    leaves: list[E] = []
    rest: list[E | BaseExceptionGroup[E]] = [group]
    while rest:
        error = rest.pop()
        if isinstance(error, BaseExceptionGroup):
            rest += reversed(error.exceptions)
        else:
            leaves.append(error)
    return leaves


def sole(error: BaseException) -> BaseException:
    """The only exception that a group holds; itself if it is none, or holds several."""
    if isinstance(error, BaseExceptionGroup):
        leaves: list[BaseException] = leaves_of(error)
        if len(leaves) == 1:
            return leaves[0]
    return error


class TbusError(Exception):
    """The root of everything that tbus raises."""


class ConfigurationError(TbusError):
    """A value given to tbus is not one it can work with; nothing was sent.

    Args:
        problem: what is wrong and what to do, as a sentence.
        field: the name of the option, argument or field.
        value: the value that was refused.
    """

    def __init__(self, problem: str, *, field: str | None = None, value: object = None) -> None:
        super().__init__(problem if field is None else f"{field}={value!r}: {problem}")
        self.field = field
        self.value = value


class InvalidTopic(ConfigurationError):
    """A topic or group name that not every broker would take."""


class InvalidEnvelope(TbusError):
    """An event that breaks the envelope's rules, or a body that holds none.

    Args:
        problem: what is wrong and what to do, as a sentence.
        field: the envelope's field, where one can be named.
        value: its value.
    """

    def __init__(self, problem: str, *, field: str | None = None, value: object = None) -> None:
        super().__init__(problem if field is None else f"{field}={value!r}: {problem}")
        self.field = field
        self.value = value


class BusClosed(TbusError):
    """The bus, or the part of it that was called, has ended or is ending."""


class PublishRefused(TbusError):
    """The broker answered that it did not store the event: it may be sent again."""


class TransportLost(TbusError):
    """The broker could not be reached in time. What was asked did not happen."""


class OutcomeUnknown(TbusError):
    """The event was sent and no answer came: it may be stored, or not.

    Attributes:
        event_id: publish again with this id, and a broker that discards duplicates
            (NATS, within its window) stores it once.
    """

    def __init__(self, problem: str, *, event_id: str) -> None:
        super().__init__(problem)
        self.event_id = event_id


class ConsumerGone(TbusError):
    """The broker's consumer, stream or topic behind a subscription was removed."""


class MessagesLost(TbusError):
    """Retention, or a removal, took messages before the group had read them.

    Attributes:
        topic: where.
        first: position of the first message that is gone.
        last: position of the last one.
    """

    def __init__(self, topic: str, first: int, last: int) -> None:
        super().__init__(
            f"messages {first} to {last} of topic {topic!r} were removed before this group"
            " read them: raise the topic's retention, or consume faster"
        )
        self.topic = topic
        self.first = first
        self.last = last


class SubscriptionFailed(TbusError):
    """A subscription could not be made, or cannot go on."""


class PublishFailed(TbusError):
    """Events given to a pipelined publisher were not stored, or may not have been.

    Attributes:
        outcomes: the failed `PublishOutcome`s, each with its event id and error.
    """

    def __init__(self, problem: str, outcomes: Sequence[PublishOutcome] = ()) -> None:
        super().__init__(problem)
        self.outcomes = tuple(outcomes)


class BusError(TbusError):
    """The bus itself failed and has ended.

    Attributes:
        causes: what went wrong, first failure first. The first is `__cause__` too.
    """

    def __init__(self, problem: str, causes: Sequence[BaseException] = ()) -> None:
        super().__init__(problem)
        self.causes = tuple(causes)


class RetryAfter(Exception):
    """Raised by a handler: this attempt failed, try again after `seconds`.

    It uses up an attempt like any failure, and once they are used up the message goes to the
    dead-letter topic, so nothing comes again for ever by accident. Meanwhile the key waits, and
    other keys go on.

    Args:
        seconds: from now. Less than 0 is at once, so what is left until some time may be given as
            it is; more than ten years, `inf` too, is ten years.
        reason: told by events and dead letters.

    Raises:
        ConfigurationError: `seconds` is no number. In a handler that is a failed attempt like any
            other, and tried again if `Retry.on` names it, as the default does.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        if (
            isinstance(seconds, bool)
            or not isinstance(seconds, int | float)
            or seconds != seconds  # nan
        ):
            raise ConfigurationError(
                "give a number of seconds until the next attempt",
                field="seconds",
                value=seconds,
            )
        super().__init__(reason or f"retry after {seconds} s")
        self.seconds = seconds

    def __reduce__(self) -> tuple[type[RetryAfter], tuple[float, str]]:
        # A handler may work in another process, from which it comes pickled.
        return type(self), (self.seconds, str(self))


class Reject(Exception):
    """Raised by a handler: this message can never succeed, dead-letter it now."""


class Discard(Exception):
    """Raised by a handler: this message is not wanted, settle it and go on."""


class BatchFailed(Exception):
    """Raised by a handler that takes lists: these messages of the list failed, all others are
    handled. What stands behind one that failed and has its key comes again with it.

    Args:
        errors: for each message that failed, what it would have raised alone: also a `RetryAfter`,
            `Reject` or `Discard`.
    """

    def __init__(self, errors: Mapping[Message, Exception]) -> None:
        self.errors = dict(errors)
        for message, error in self.errors.items():
            if not isinstance(error, Exception):
                raise ConfigurationError(
                    f"it must be an exception, as BatchFailed has for {message!r}",
                    field="error",
                    value=error,
                )
        if not self.errors:
            raise ConfigurationError(
                "BatchFailed without a message: a handler that has handled all simply returns"
            )
        first = next(iter(self.errors.values()))
        more = f", and {len(self.errors) - 1} more" if len(self.errors) > 1 else ""
        super().__init__(f"{describe(first)}{more}")
