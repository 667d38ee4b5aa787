"""How long a lease lasts, how long others wait, and that these two can never overlap.

A member counts its lease from the moment at which it *sent* a heartbeat that was stored;
another member counts the silence from the moment at which it *saw* that heartbeat, which is
later. Clocks may run fast or slow by `drift`. So a member that keeps to its lease has stopped
`lease / (1 - drift)` true seconds after the heartbeat at the latest, and another one takes
over `takeover / (1 + drift)` true seconds after it at the earliest. `takeover` is the shortest
time for which the second exceeds the first by `margin`, in the taker's seconds.
"""

from __future__ import annotations

from math import floor

import attrs

from .._errors import ConfigurationError
from .._rules import is_number

BEATS_APART = 2
"""Times in the length of a heartbeat at which members of one phase send theirs. Each wakes a
client's loop a few times, however few are sent; all at once would keep it busy for milliseconds
where there are hundreds."""


@attrs.frozen
class Timing:
    """The seconds that ownership goes by. All members of a group need the same ones.

    Attributes:
        heartbeat: from one heartbeat to the next.
        lease: from sending a heartbeat until its member acts no more, unless a later one
            was stored.
        margin: between the end of a lease and its takeover, with the worst clocks; it
            covers the way of what was sent in the last moment of a lease.
        drift: how wrong the rate of a clock may be: 0.1 is ten percent either way.
        answer: from a question to the broker until it is asked again.

    Raises:
        ConfigurationError: a value is out of range, or a lease has no room for a heartbeat
            that is repeated twice.
    """

    heartbeat: float = 1.1
    lease: float = 1.8
    margin: float = 0.2
    drift: float = 0.1
    answer: float = 0.25

    def __attrs_post_init__(self) -> None:
        for name in ("heartbeat", "lease", "margin", "answer"):
            value = getattr(self, name)
            if not is_number(value) or value <= 0:
                raise ConfigurationError("give seconds above 0", field=name, value=value)
        if not is_number(self.drift) or not 0 <= self.drift < 0.5:
            raise ConfigurationError(
                "give a number from 0 to below 0.5", field="drift", value=self.drift
            )
        if self.heartbeat + 2 * self.answer > self.lease:
            raise ConfigurationError(
                "a heartbeat and two repeats of it must fit: give at least heartbeat"
                f" + 2 * answer, {self.heartbeat + 2 * self.answer:g}",
                field="lease",
                value=self.lease,
            )

    def next_heartbeat(self, sent: float, phase: float) -> float:
        """When to send the heartbeat after one: `heartbeat` seconds later, or up to half of them
        earlier, at a time that all members with that phase have in common: what one process
        sends for many groups then goes, and is answered, together."""
        step = self.heartbeat / BEATS_APART
        # A millionth more, for what is one step less by rounding only.
        return floor((sent - phase) / step + BEATS_APART + 1e-6) * step + phase

    @property
    def takeover(self) -> float:
        """Seconds of unbroken silence, by the own clock, after which another member's
        lease has run out by any clock."""
        return self.lease * (1 + self.drift) / (1 - self.drift) + self.margin

    @property
    def longest_silence(self) -> float:
        """True seconds from the last heartbeat that was seen to its member's end, at most."""
        return self.takeover / (1 - self.drift)
