"""A member's own lease: its heartbeats, and until when they let it act.

The laws:

1. The lease lasts from the moment at which a heartbeat was *sent*, and only once it is known
   that it was stored.
2. A heartbeat is stored at the revision of the one before, so it cannot be stored once
   another member has taken the lease away.
3. Several may be under way: a lost answer, or a late one, costs no more than a repeat.
4. A heartbeat that was stored once may be stored a second time only if it was the first of
   all, which needs no other before it: late, after the key was removed. So heartbeats are
   numbered, and one that is no news is no lease.
"""

from __future__ import annotations

from math import inf

from ._timing import Timing


class Lease:
    """When to send a heartbeat, at which revision, and whether the lease holds.

    Args:
        timing: the group's.
        now: the first heartbeat is due at once.
        phase: seconds; the later ones are due at times that those of one phase have in common.
    """

    __slots__ = (
        "_phase",
        "_sent",
        "_stored",
        "_timing",
        "beat",
        "due",
        "is_unsure",
        "revision",
        "until",
    )

    def __init__(self, timing: Timing, now: float, phase: float = 0.0) -> None:
        self._timing = timing
        self._phase = phase
        self._sent: dict[int, tuple[float, int, int]] = {}
        """Heartbeats under way: when each was sent, at which revision, its number."""
        self._stored = 0
        self.beat = 1
        """The number of the heartbeat that is sent next."""
        self.revision = 0
        """Of the own heartbeat, as far as is known."""
        self.until = -inf
        """When the lease ends."""
        self.due = now
        """When the next heartbeat is to be sent, or the own one to be read if `is_unsure`."""
        self.is_unsure = False
        """A heartbeat was refused: what stands there must be read first."""

    def holds(self, now: float) -> bool:
        """Whether the member may act."""
        return now < self.until

    def send(self, now: float, request: int) -> None:
        """A heartbeat is sent now, at `revision`."""
        # An older one could not prolong the lease any more. (A broker may be gone for days.)
        if self._sent:
            first = now - self._timing.lease
            self._sent = {one: at for one, at in self._sent.items() if at[0] > first}
        self._sent[request] = (now, self.revision, self.beat)
        self.beat += 1
        self.due = now + self._timing.answer

    def ask(self, now: float) -> None:
        """The own heartbeat is read now."""
        self.due = now + self._timing.answer

    def owns(self, request: int) -> bool:
        """Whether a request was one of these heartbeats."""
        return request in self._sent

    def stored(self, request: int, revision: int) -> None:
        """A heartbeat was stored, however long ago it was sent."""
        sent, _, beat = self._sent.pop(request)
        if revision > self.revision:
            self._stored = beat
            self.revision = revision
            self.is_unsure = False
            timing = self._timing
            self.until = max(self.until, sent + timing.lease)
            self.due = timing.next_heartbeat(sent, self._phase)
            # None that was sent at an older revision can be stored any more.
            if self._sent:
                self._sent = {one: at for one, at in self._sent.items() if at[1] >= revision}

    def refused(self, request: int, now: float) -> None:
        """A heartbeat was refused: somebody else wrote, or an answer was lost."""
        del self._sent[request]
        self.is_unsure = True
        self.due = now

    def found(self, revision: int, beat: int, now: float) -> bool:
        """A heartbeat of this member stands there, most likely one whose answer was lost.

        Returns:
            False if it is one that was stored before and came again.
        """
        if revision > self.revision and beat <= self._stored:
            return False
        if self.is_unsure:
            self.is_unsure = False
            self.revision = max(revision, self.revision)
            self.due = now
        return True
