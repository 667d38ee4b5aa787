"""The other members: when they were last seen to live, and which of them are dead.

The laws:

1. Alive is whose heartbeat has a new revision. No time of another machine is looked at.
2. Silence is counted from the moment at which a revision was first seen here, and anew when
   this member was cut off itself: whoever cannot hear may not call others silent.
3. Silence is a suspicion. Dead is only whose heartbeat was replaced, at the very revision
   that was seen all the time, by one that says so: the bucket refuses that if the member was
   heard meanwhile, and refuses every heartbeat of the member afterwards. So it makes no
   difference how old the news is that a member goes by.
4. Dead is for ever; who was called dead comes back under another name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

import attrs
import msgspec

from ._document import Heartbeat, decode_heartbeat, encode, key_of
from ._effects import Delete, Effect, Get, Put
from ._timing import Timing


@attrs.frozen
class _Sight:
    """The last that was seen of a member: which heartbeat, and since when it stands there.

    Attributes:
        stands: it is there; otherwise it is the last one that was, and something removed it.
    """

    revision: int
    heartbeat: Heartbeat
    since: float
    stands: bool = True


class Silence:
    """Judges the other members of a group.

    Args:
        timing: the group's.
    """

    __slots__ = ("_asked", "_seen", "_timing")

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._seen: dict[str, _Sight] = {}
        self._asked: dict[str, tuple[int, float]] = {}
        """Members about whom a question is open: its number, and until when it is waited for."""

    def saw(self, now: float, member: str, revision: int, value: bytes | None) -> Heartbeat:
        """A heartbeat was read, or news of it came; None: there is none, or a marker at
        `revision`.

        Returns:
            the latest heartbeat of the member that is known.
        """
        known = self._seen.get(member)
        if value is not None:
            if known is not None and revision <= known.revision:
                return known.heartbeat
            heartbeat = decode_heartbeat(value)
        elif known is None:
            heartbeat = Heartbeat()
        else:
            # The marks are kept: they were true, and nobody else has them any more.
            heartbeat = known.heartbeat
            is_late = 0 < revision < known.revision
            if is_late or (not known.stands and revision == known.revision):
                return heartbeat
        self._seen[member] = _Sight(revision, heartbeat, now, value is not None)
        return heartbeat

    def answered(self, request: int) -> str | None:
        """Whom the answered question was about, or None: it was not asked here, or is asked
        again already."""
        for member, (number, _) in self._asked.items():
            if number == request:
                del self._asked[member]
                return member
        return None

    def condemned(self, now: float, member: str, revision: int) -> None:
        """The heartbeat that says that a member is dead was stored."""
        dead = msgspec.structs.replace(self._seen[member].heartbeat, dead=True)
        self._seen[member] = _Sight(revision, dead, now)

    def begin_anew(self, now: float) -> None:
        """This member heard nothing for a while: everybody's silence begins now."""
        for member, sight in self._seen.items():
            self._seen[member] = attrs.evolve(sight, since=now)
        self._asked.clear()

    def find_dead(self, members: Iterable[str]) -> dict[str, Mapping[int, tuple[int, str]]]:
        """Those of the members that are dead, with the marks that they left."""
        seen = ((member, self._seen.get(member)) for member in members)
        return {
            member: sight.heartbeat.marks
            for member, sight in seen
            if sight is not None and sight.heartbeat.dead
        }

    def judge(
        self, now: float, members: Iterable[str], new_request: Iterable[int]
    ) -> tuple[list[Effect], float]:
        """Look after the members; returns what to ask, and when to look again."""
        numbers = iter(new_request)
        effects: list[Effect] = []
        again = inf
        for member in members:
            sight = self._seen.get(member)
            asked = self._asked.get(member)
            if sight is not None and sight.heartbeat.dead:
                continue
            if asked is not None and now < asked[1]:
                again = min(again, asked[1])
                continue
            if sight is not None and asked is None:
                due = sight.since + self._timing.takeover
                if now < due:
                    again = min(again, due)
                    continue
            number = next(numbers)
            if sight is None or asked is not None:
                # Never seen; or no answer came, so what stands there now is not known.
                effects.append(Get(number, key_of(member)))
            else:
                dead = msgspec.structs.replace(sight.heartbeat, dead=True)
                effects.append(Put(number, key_of(member), encode(dead), sight.revision))
            self._asked[member] = (number, now + self._timing.answer)
            again = min(again, now + self._timing.answer)
        return effects, again

    def is_tidy(self, members: Iterable[str]) -> bool:
        """Whether nobody else was seen, so that there is nobody to be forgotten."""
        return self._seen.keys() <= set(members)

    def look_again(self, now: float, member: str, number: int) -> Effect:
        """What to ask after a refusal."""
        self._asked[member] = (number, now + self._timing.answer)
        return Get(number, key_of(member))

    def sweep(self, now: float, members: Iterable[str]) -> list[Effect]:
        """Forget whoever is in no document, and dead or silent; returns how to remove their
        heartbeats. All members do so: that costs nothing but when one is gone, and whoever
        were the one to do it might be gone too."""
        effects: list[Effect] = []
        kept = set(members)
        for member, sight in list(self._seen.items()):
            if member not in kept and (
                sight.heartbeat.dead or now >= sight.since + 2 * self._timing.takeover
            ):
                del self._seen[member]
                self._asked.pop(member, None)
                if sight.stands:
                    effects.append(Delete(key_of(member), sight.revision))
        return effects
