"""What becomes of a message whose handler failed: a pure decision.

No clock, no random source of its own and no waiting: the caller says which attempt it was
and what was raised, and performs what is answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from ._errors import (
    ConfigurationError,
    Discard,
    InvalidEnvelope,
    Reject,
    RetryAfter,
    describe,
    leaves_of,
    text_of,
)


def _check_number(least: float, most: float, rule: str) -> Any:
    def check(_owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not least <= value <= most
        ):
            raise ConfigurationError(f"it must be {rule}", field=attribute.name, value=value)

    return check


# Ten years: longer than anyone waits, short enough to be added to any clock.
_LONGEST = 10 * 365.25 * 24 * 3600
_seconds = _check_number(0, _LONGEST, "a number of seconds, 0 or more (at most ten years)")


@attrs.frozen
class Backoff:
    """Delays that grow from attempt to attempt, each moved at random so that what failed
    together does not come back together.

    Attributes:
        initial: seconds after the first failure, as far as `maximum` allows.
        factor: by which each delay is longer than the one before; 1 keeps it.
        maximum: seconds at which delays stop growing, before they are moved at random.
        jitter: 0 to 1; 0.1 moves a delay by up to a tenth of it, either way.

    Raises:
        ConfigurationError: a value is out of range; the message names it.
    """

    initial: float = attrs.field(default=0.1, validator=_seconds)
    factor: float = attrs.field(
        default=2.0, validator=_check_number(1, 1e6, "a number from 1 to a million")
    )
    maximum: float = attrs.field(default=30.0, validator=_seconds)
    jitter: float = attrs.field(default=0.1, validator=_check_number(0, 1, "a number from 0 to 1"))

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait after the given attempt failed.

        Args:
            attempt: 1 for the first; below 1 is taken as 1.
            random: gives numbers from 0 to below 1.
        """
        try:
            delay = min(self.maximum, self.initial * self.factor ** (max(attempt, 1) - 1))
        except OverflowError:
            # The growth has left what a float holds; an initial 0 stays 0 all the same.
            delay = self.maximum if self.initial else 0.0
        if self.jitter:
            delay *= 1 + self.jitter * (2 * random() - 1)
        return delay


def _check_attempts(_owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigurationError(
            "it must be a whole number of at least 1, or None to retry for ever",
            field=attribute.name,
            value=value,
        )


def _check_on(_owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    types = value if isinstance(value, tuple) else (value,)
    if not types or not all(isinstance(one, type) and issubclass(one, Exception) for one in types):
        raise ConfigurationError(
            "it must be a type of Exception, or a tuple of such types",
            field=attribute.name,
            value=value,
        )


@attrs.frozen(init=False)
class Retry(Backoff):
    """When a failed message is tried again, and when no more.

    Attributes:
        initial: seconds after the first failure, as far as `maximum` allows.
        factor: by which each delay is longer than the one before.
        maximum: seconds at which delays stop growing, before they are moved at random.
        jitter: 0 to 1, how far a delay is moved at random, either way.
        attempts: runs of the handler in all, the first one counted; None is no limit.
        on: the exceptions that are worth another attempt; others are given up at once.

    Raises:
        ConfigurationError: a value is out of range; the message names it.
    """

    attempts: int | None = attrs.field(default=5, validator=_check_attempts)
    on: type[Exception] | tuple[type[Exception], ...] = attrs.field(
        default=Exception, validator=_check_on
    )

    # The order of the public signature: attempts come first.
    def __init__(
        self,
        attempts: int | None = 5,
        initial: float = 0.1,
        factor: float = 2.0,
        maximum: float = 30.0,
        jitter: float = 0.1,
        on: type[Exception] | tuple[type[Exception], ...] = Exception,
    ) -> None:
        self.__attrs_init__(initial, factor, maximum, jitter, attempts, on)


@attrs.frozen
class RetryIn:
    """Run the handler again after `delay` seconds, the key keeping its place."""

    delay: float


@attrs.frozen
class GiveUp:
    """Dead-letter the message, for this reason."""

    reason: str


@attrs.frozen
class Drop:
    """Settle the message as done, for this reason: the handler does not want it."""

    reason: str


def meant(error: Exception) -> Exception:
    """What a handler says with a group, as a task group raises it: what everything in it says. An
    only exception counts as if it had been raised alone, several `Discard`s or several `Reject`s as
    the first of them, several `RetryAfter`s as the longest. Where they differ the group is an
    ordinary failure: nothing is lost by another attempt.
    """
    if not isinstance(error, ExceptionGroup):
        return error
    leaves: list[Exception] = leaves_of(error)
    waits = [leaf for leaf in leaves if isinstance(leaf, RetryAfter)]
    if len(waits) == len(leaves):
        return max(waits, key=lambda wait: _wanted_seconds(wait) or 0.0)
    for kind in (Discard, Reject, InvalidEnvelope):
        if all(isinstance(leaf, kind) for leaf in leaves):
            return leaves[0]
    return leaves[0] if len(leaves) == 1 else error


def decide(
    retry: Retry, attempt: int, error: Exception, random: Callable[[], float]
) -> RetryIn | GiveUp | Drop:
    """What becomes of a message after its handler raised.

    What the handler asked for counts before the policy, with one limit: `RetryAfter` uses
    up attempts like any failure, so a message cannot come back for ever by accident. Of a group
    counts what is in it, see `meant`.

    Args:
        retry: the policy.
        attempt: which run of the handler this was, 1 for the first.
        error: what it raised.
        random: gives numbers from 0 to below 1.
    """
    told = meant(error)
    if isinstance(told, Discard):
        return Drop(_reason(told))
    if isinstance(told, Reject | InvalidEnvelope):
        return GiveUp(_reason(told))
    if not _is_retried(retry, error):
        return GiveUp(f"{_reason(error)} (not among the exceptions that are retried)")
    if retry.attempts is not None and attempt >= retry.attempts:
        return GiveUp(f"{_reason(error)} (attempt {attempt} of {retry.attempts})")
    if isinstance(told, RetryAfter):
        seconds = _wanted_seconds(told)
        if seconds is not None:
            return RetryIn(seconds)
    return RetryIn(retry.delay(attempt, random))


def _is_retried(retry: Retry, error: Exception) -> bool:
    """Whether it, or else everything that it holds, is worth another attempt."""
    wanted = (RetryAfter, retry.on)
    if isinstance(error, wanted):
        return True
    if not isinstance(error, ExceptionGroup):
        return False
    leaves = leaves_of(error)
    # Those that ask for different things ask for nothing, see `meant`: the others decide.
    return any(isinstance(leaf, wanted) for leaf in leaves) and all(
        isinstance(leaf, (Discard, Reject, *wanted)) for leaf in leaves
    )


def _wanted_seconds(error: RetryAfter) -> float | None:
    """What the handler asked for, as a delay that can be kept: a negative one is 0, one too
    long is the longest there is; None where a subclass of its own has put no number there, so
    the policy decides."""
    seconds: object = getattr(error, "seconds", None)  # one may forget its base's __init__
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds:
        return None
    return float(max(0, min(seconds, _LONGEST)))


REASON = 4000
"""Characters of a reason: more than anybody keeps of it."""


def _reason(error: BaseException) -> str:
    if isinstance(error, Reject | Discard) and (text := text_of(error)):
        return text
    return describe(error, REASON)
