"""How fast: rates, and the bucket of tokens that keeps them.

The laws:

1. In any time `t` no more than `burst + per_second * t` are let through.
2. Nobody who is refused has taken anything; so who gives up waiting costs nobody a token.
3. The time that is answered is exact: whoever asks again then is let through, if nobody
   else was before, and not earlier.

The bucket is kept as the time at which it was last full, and the tokens taken since. So there is
nothing to refill, no task that does it, and every answer is one product and one sum away from
that time: rounding does not add up. The figures of the adaptive rate are those of the services
that tbus follows: a fifth less above 10 % errors, a fifth more above 90 % successes.

Pure: no clock, no waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import attrs

from ._errors import ConfigurationError
from ._rules import is_number, number, shown, whole

TOO_MANY_ERRORS = 0.1
"""The part of errors above which a rate goes down, and below which it goes up."""

DOWN = 0.8
UP = 1.2


# Defaults are made before anything is checked; what is no number is refused afterwards.


def _tenth_of_a_second(rate: Rate) -> int:
    return max(1, int(_tenth(rate)))


def _tenth(rate: Rate) -> float:
    return rate.per_second / 10 if is_number(rate.per_second) else 1.0


@attrs.frozen
class Rate:
    """So many a second, and so many at once.

    Attributes:
        per_second: on the average; may be less than 1.
        burst: at once, after a pause; by default what comes in a tenth of a second, at least
            1. With 1 they come one by one; a fast rate then falls short by what a timer is
            late each time.

    Raises:
        ConfigurationError: a value is out of range; the message names it.
    """

    per_second: float = attrs.field(validator=number(above=0))
    burst: int = attrs.field(
        default=attrs.Factory(_tenth_of_a_second, takes_self=True), validator=whole(1)
    )


@attrs.frozen
class AdaptiveRate(Rate):
    """A rate that gives way to errors: at the end of every `every` seconds it becomes a fifth
    less if more than 10 % of what was let through failed, and a fifth more if more than 90 %
    succeeded, within its bounds.

    Attributes:
        per_second: to begin with.
        burst: at once, after a pause.
        least: per second; by default a tenth of the beginning.
        most: per second; by default what it begins with.
        every: seconds between two looks.
    """

    least: float = attrs.field(
        default=attrs.Factory(_tenth, takes_self=True),
        validator=number(above=0),
    )
    most: float = attrs.field(
        default=attrs.Factory(lambda rate: rate.per_second, takes_self=True),
        validator=number(above=0),
    )
    every: float = attrs.field(default=1.0, validator=number(above=0))

    def __attrs_post_init__(self) -> None:
        if not self.least <= self.per_second <= self.most:
            raise ConfigurationError(
                f"it must lie between least={self.least} and most={self.most}",
                field="per_second",
                value=self.per_second,
            )


def as_rate(value: Any) -> Any:
    """A number, or the fields of a rate from a file, as a `Rate`; anything else as it is, for
    a validator to refuse.

    Raises:
        ConfigurationError: a field is unknown, or its value out of range.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if is_number(value):
        return Rate(value)
    if not isinstance(value, Mapping):
        return value
    kind = Rate if {"per_second", "burst"} >= set(value) else AdaptiveRate
    known = [field.name for field in attrs.fields(kind)]
    for name in value:
        if name not in known:
            raise ConfigurationError(
                f"a rate has no option {shown(str(name))}, but {', '.join(known)}"
            )
    if "per_second" not in value:
        raise ConfigurationError("a rate needs its per_second")
    return kind(**value)


class Pace:
    """Lets through what a rate allows.

    Args:
        rate: fixed or adaptive.
        now: the time, on the clock of all other calls.
    """

    __slots__ = (
        "_adaptive", "_burst", "_failed", "_full", "_interval", "_looked", "_missing", "_taken",
    )  # fmt: skip

    def __init__(self, rate: Rate, now: float) -> None:
        self._adaptive = rate if isinstance(rate, AdaptiveRate) else None
        self._burst = rate.burst
        self._interval = 1 / rate.per_second
        self._full = now
        self._missing = 0
        self._looked = now
        self._taken = self._failed = 0

    @property
    def per_second(self) -> float:
        """The rate now."""
        return 1 / self._interval

    def take(self, now: float) -> float | None:
        """Let one through: None. Or the time at which to ask again, with nothing taken."""
        if self._adaptive is not None and now - self._looked >= self._adaptive.every:
            self._adapt(self._adaptive, now)
        if now >= self._full + self._missing * self._interval:
            self._full = now  # again
            self._missing = 0
        elif self._missing >= self._burst:
            when = self._full + (self._missing + 1 - self._burst) * self._interval
            if when > now:
                return when
        self._missing += 1
        self._taken += 1
        return None

    def failed(self) -> None:
        """One that was let through has failed. For adaptive rates; nothing to others."""
        self._failed += 1

    def _adapt(self, rate: AdaptiveRate, now: float) -> None:
        taken, failed = self._taken, self._failed
        self._looked = now
        self._taken = self._failed = 0
        if not taken and not failed:
            return
        # What failed may have been let through before the last look.
        errors = failed / max(taken, failed)
        if errors == TOO_MANY_ERRORS:
            return
        wanted = self.per_second * (DOWN if errors > TOO_MANY_ERRORS else UP)
        interval = 1 / min(rate.most, max(rate.least, wanted))
        # As many tokens are missing as before; of one that is on its way, the same part.
        missing = max(0.0, self._missing - (now - self._full) / self._interval)
        self._missing = ceil(missing)
        self._full = now - (self._missing - missing) * interval
        self._interval = interval
