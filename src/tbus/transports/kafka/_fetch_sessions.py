"""What a broker remembers of what a consumer wants of it: so that only what is new is said.

Without that every fetch names every partition, and every answer does: an idle bus spends its time
on saying several times a second, of each of its topics, that nothing has changed. Within a session
a fetch names the partitions whose place has changed and those that are not wanted any more, and an
answer those of which there is news. So what is idle costs nothing, not even while another topic of
the same broker is busy.

Decides only; what is said goes over the wire in `_fetch_requests`. The laws:

1. **Nothing is certain until it is answered.** Whatever becomes of a fetch but an answer without
   error that tells of the same session - it was cut off, failed, came to a broker that does not
   know the session any more - the next one names everything, and ends the session. So nothing that
   a broker may not have heard is ever left out.
2. A session is begun when an answer has brought nothing, by a fetch that is not held. A reader that
   has been given partitions a moment ago, and may be given others, would leave sessions behind at
   the broker, which has 1000; one that is busy needs none.
3. A broker that gives none is asked again with the next fetch for which that holds.
4. Who closes says so, if there is a way to: a broker would keep the session for two minutes.

Source: Kafka's protocol guide, Fetch; KIP-227. What the client knows of the end of a partition is
as old as its last news, and what it throws away of an answer is not told again; here nobody looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

Partitions = Sequence[tuple[int, int, int]]
"""Of each its number, the offset that is wanted and the most bytes."""

Topics = Sequence[tuple[str, Partitions]]

WHOLE = -1
"""In place of an epoch: everything is named, and whatever session there was ends."""
BEGIN = 0
"""So, and a new one begins."""
LAST = 2**31 - 1
"""After it comes 1."""

_NONE = 0
"""In place of a session's number."""


@attrs.frozen(eq=False)
class Asked:
    """What one fetch says.

    Attributes:
        session: its number, or 0.
        epoch: counts the fetches of a session, or `WHOLE` or `BEGIN`.
        named: what is wanted, and the broker does not know.
        forgotten: what is wanted no more: names, and numbers of partitions.
        briefly: it is not to be held: a session is to begin, which was not refused before.
    """

    session: int
    epoch: int
    named: Topics
    forgotten: Sequence[tuple[str, Sequence[int]]] = ()
    briefly: bool = False


class FetchSession:
    """With one broker, of one consumer, which asks nothing before it was answered."""

    def __init__(self) -> None:
        self._number = _NONE
        self._epoch = WHOLE
        """Of the next fetch."""
        self._known: dict[str, Partitions] = {}
        """To the broker, in a session."""
        self._refused = False
        """The broker had none to give when it was asked last."""
        self._over = False

    def ask(self, topics: Topics) -> Asked:
        """What is to be said when this is wanted."""
        epoch, self._epoch = self._epoch, WHOLE
        if epoch == WHOLE:
            return Asked(self._number, epoch, topics)
        if epoch == BEGIN:
            self._known = dict(topics)
            return Asked(self._number, epoch, topics, briefly=not self._refused)
        known = self._known
        changed = [one for one in topics if known.get(one[0]) != one[1]]
        named: list[tuple[str, Partitions]] = []
        gone: list[tuple[str, Sequence[int]]] = []
        if changed or len(topics) < len(known):
            self._known = dict(topics)
            gone = [(topic, _numbers(known[topic])) for topic in known.keys() - self._known.keys()]
        for topic, partitions in changed:
            before = set(known.get(topic, ()))
            if new := [one for one in partitions if one not in before]:
                named.append((topic, new))
            wanted = set(_numbers(partitions))
            if left := [number for number, _, _ in before if number not in wanted]:
                gone.append((topic, left))
        return Asked(self._number, epoch, named, gone)

    def answered(self, asked: Asked, error: int, session: int, *, nothing: bool) -> None:
        """The answer has come.

        Args:
            asked: to what.
            error: its code; 0 if there is none.
            session: of which it tells.
            nothing: it has brought nothing.
        """
        if error or self._over:
            return
        if asked.epoch > BEGIN:
            if session == asked.session:
                self._epoch = 1 if asked.epoch == LAST else asked.epoch + 1
        elif asked.epoch == BEGIN and session != _NONE:
            self._number, self._epoch = session, 1
            self._refused = False
        else:
            self._refused |= asked.epoch == BEGIN
            self._number, self._epoch = _NONE, BEGIN if nothing else WHOLE

    def end(self) -> Asked | None:
        """What is to be said when nothing is wanted any more; None if the broker keeps nothing, as
        far as is known. No other session is begun."""
        number, self._number, self._epoch = self._number, _NONE, WHOLE
        self._over = True
        return None if number == _NONE else Asked(number, WHOLE, ())


def _numbers(partitions: Partitions) -> list[int]:
    return [number for number, _, _ in partitions]
