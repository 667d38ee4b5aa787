"""One member of a group: what it owns, and what it does about the lease document.

A state machine without I/O. Every input takes `now`, first ends what the lease no longer
covers, then takes in the news, then decides; it returns the effects in the order in which
they are to be performed. One question about the document is open at a time; an answer that
does not come is given up after `Timing.answer`, and whatever was asked may still happen: all
that is written holds whenever it arrives, or is refused.

(A long file: the lease, what is held and the document are one state. What can be told apart
stands elsewhere: `_lease`, `_silence`, `_plan`.)
"""

from __future__ import annotations

from enum import Enum
from itertools import count
from math import inf

import attrs

from .._errors import ConfigurationError, SubscriptionFailed
from .._rules import is_whole
from ._document import (
    DOCUMENT,
    Document,
    Heartbeat,
    decode_document,
    decode_heartbeat,
    encode,
    key_of,
    member_of,
)
from ._effects import (
    Absent,
    Answer,
    Delete,
    Drain,
    Drop,
    Effect,
    Found,
    Get,
    Left,
    Put,
    Stored,
    Take,
)
from ._lease import Lease
from ._plan import NOTHING, Facts, revise
from ._silence import Silence
from ._timing import Timing

EMPTY = Document()


class Stage(Enum):
    """What became of a partition that was taken."""

    OWNED = "owned"
    DRAINING = "draining"
    DROPPED = "dropped"


@attrs.define
class _Holding:
    """A partition that was taken and of which something may still run."""

    epoch: int
    stage: Stage = Stage.OWNED
    mark: str = ""


@attrs.frozen
class _Question:
    """A `Get` or `Put` of the document.

    Attributes:
        until: how long its answer is waited for.
        revision: the one that was known when it was asked, at which a `Put` stores.
        revised: what a `Put` stores; None for a `Get`.
    """

    request: int
    until: float
    revision: int
    revised: Document | None = None


class Member:
    """Decides for one member of one group which partitions it owns.

    Args:
        name: no other member of the group ever had it: random, of the letters that a key may
            have. It goes into the bucket as `<name>-<n>`, `n` counting how often this member
            had to begin anew.
        partitions: how many the topic has.
        now: seconds of a monotonic clock that goes on while the process is suspended.
        timing: the same for all members of a group.
        phase: seconds; members of one phase have their heartbeats together.

    Raises:
        ConfigurationError: there is no partition, or no name.
    """

    def __init__(
        self,
        name: str,
        partitions: int,
        now: float,
        timing: Timing | None = None,
        phase: float = 0.0,
    ) -> None:
        if not name:
            raise ConfigurationError("give a name that nobody else has", field="name", value=name)
        if not is_whole(partitions) or partitions < 1:
            raise ConfigurationError(
                "give a whole number, 1 or more", field="partitions", value=partitions
            )
        self.name = name
        self.timing = timing or Timing()
        self._phase = phase
        self.wake_at = now
        """When `wake` is to be called, unless another input comes before."""
        self._partitions = partitions
        self._now = now
        self._requests = count(1)
        self._lives = 0
        self._held: dict[int, _Holding] = {}
        self._released: dict[int, tuple[int, str]] = {}
        self._epochs: dict[int, int] = {}
        self._silence = Silence(self.timing)
        self._leaving = False
        self._left = False
        self._begin_life(now)

    def _begin_life(self, now: float) -> None:
        self._lives += 1
        self.id = f"{self.name}-{self._lives}"
        self._key = key_of(self.id)
        self._lease = Lease(self.timing, now, self._phase)
        self._is_decided = False
        """Nothing but the own lease has changed since everything was looked at."""
        self._look_at = inf
        """When it is to be looked at again all the same."""
        self._own_read = 0
        self._had_lease = False
        self._released.clear()
        self._document = EMPTY
        self._revision = 0
        self._is_stale = True  # there is a newer one, or this one was never read
        self._question: _Question | None = None
        self._unrevised: tuple[Document, Facts] | None = None
        """What was looked at last, and needs no change."""
        # Where a document was and is not any more, whoever stood in it may still act.
        self._make_after = -inf if self._lives == 1 else now + self.timing.takeover

    # Questions of the owner; they change nothing

    def owns(self, now: float, partition: int, epoch: int) -> bool:
        """Whether something of this partition may be started or settled now. To be asked
        immediately before, each time: it is what a process that was suspended learns first."""
        held = self._held.get(partition)
        return (
            held is not None
            and held.epoch == epoch
            and held.stage is not Stage.DROPPED
            and self._lease.holds(now)
        )

    def knows(self, key: str, revision: int) -> bool:
        """Whether something is no news: the own heartbeat, which was answered already. Of one that
        is alone, nearly all is; what is known need not be `noticed`."""
        return key == self._key and revision <= self._lease.revision

    @property
    def lease_until(self) -> float:
        """When the lease ends, unless it is prolonged: for another thread that must not look
        at anything else here. Minus infinity before there was one."""
        return self._lease.until

    @property
    def holdings(self) -> dict[int, tuple[int, Stage]]:
        """Epoch and stage of each partition of which something may still run here."""
        return {number: (held.epoch, held.stage) for number, held in self._held.items()}

    @property
    def document(self) -> Document:
        """The lease document as it was last seen."""
        return self._document

    # Inputs

    def wake(self, now: float) -> list[Effect]:
        """Time has passed: call it at `wake_at`, at the beginning, and after a reconnect."""
        if self._is_settled(now):
            return self._go_on(now)
        return self._act(now, self._enter(now))

    def answered(self, now: float, request: int, answer: Answer) -> list[Effect]:
        """A `Put` or `Get` was answered; late and repeated answers are welcome too.

        Raises:
            SubscriptionFailed: the lease document cannot be read.
        """
        lease = self._lease
        if isinstance(answer, Stored) and lease.owns(request) and self._is_settled(now):
            lease.stored(request, answer.revision)
            return self._go_on(now)
        effects = self._enter(now)
        now = self._now
        if lease.owns(request):
            if isinstance(answer, Stored):
                lease.stored(request, answer.revision)
                if lease.holds(now) and not self._had_lease:
                    # Until now this member heard nothing, and so can say nothing of others.
                    self._is_decided = False
                    self._had_lease = True
                    self._silence.begin_anew(now)
            else:
                lease.refused(request, now)
            return self._act(now, effects)
        self._is_decided = False
        if (member := self._silence.answered(request)) is not None:
            effects += self._answered_about(now, member, answer)
        elif self._question is not None and self._question.request == request:
            effects += self._answered_document(now, self._question, answer)
        elif isinstance(answer, Found | Absent) and request == self._own_read:
            effects += self._read_own(now, answer)
        return self._act(now, effects)

    def noticed(self, now: float, key: str, revision: int, value: bytes | None) -> list[Effect]:
        """A key was changed, as a watch of the bucket tells; None: it was removed. These may
        be late, be lost or come twice.

        Raises:
            SubscriptionFailed: the lease document cannot be read.
        """
        effects = self._enter(now)
        now = self._now
        member = member_of(key)
        is_own = member == self.id
        if is_own and not effects and (value is None or revision <= self._lease.revision):
            return []  # no news: nothing is to be decided that was not before
        self._is_decided = False
        if key == DOCUMENT:
            if value is None:
                self._is_stale = True
            else:
                effects += self._adopt(now, revision, decode_document(value))
        elif is_own:
            if value is not None and revision > self._lease.revision:
                effects += self._read_own(now, Found(revision, value))
        elif member is not None:
            self._saw(now, member, revision, value)
        return self._act(now, effects)

    def drained(self, now: float, partition: int, epoch: int, mark: str) -> list[Effect]:
        """Nothing of a partition runs any more, and what was done is settled. Answers every
        `Drain` and every `Drop`, once.

        Args:
            mark: what is completed beyond the broker's floor.
        """
        effects = self._enter(now)
        self._is_decided = False
        held = self._held.get(partition)
        if held is not None and held.epoch == epoch:
            del self._held[partition]
            self._released[partition] = (epoch, mark)
        return self._act(self._now, effects)

    def lost(self, now: float, partition: int, epoch: int, reason: str) -> list[Effect]:
        """The broker says that somebody else reads the partition (status 423): it is dropped,
        and had again with a higher epoch if the document still says that it is this
        member's."""
        effects = self._enter(now)
        self._is_decided = False
        held = self._held.get(partition)
        if held is not None and held.epoch == epoch and held.stage is not Stage.DROPPED:
            effects += self._drop(partition, reason)
            self._is_stale = True
        return self._act(self._now, effects)

    def leave(self, now: float) -> list[Effect]:
        """Give everything away and go: ends with `Left`."""
        self._leaving = True
        self._is_decided = False
        return self._act(now, self._enter(now))

    def note(self, partition: int, epoch: int, mark: str) -> None:
        """What is completed beyond the broker's floor now: it travels with the next heartbeat,
        so that a successor knows it if this process is killed."""
        held = self._held.get(partition)
        if held is not None and held.epoch == epoch:
            held.mark = mark

    # The order of every input: end what is over, take in the news (above), decide

    def _enter(self, now: float) -> list[Effect]:
        self._now = max(self._now, now)
        if self._lease.holds(self._now):
            return []
        self._had_lease = False
        self._is_decided = False
        return self._drop_all("the lease has run out: no heartbeat was stored in time")

    def _act(self, now: float, effects: list[Effect]) -> list[Effect]:
        now = max(self._now, now)
        if self._left:
            self.wake_at = inf
            return effects
        if self._is_settled(now):
            return effects + self._go_on(now)
        holds = self._lease.holds(now)
        self.wake_at = inf
        if holds:
            effects += self._follow()
        effects += self._keep_alive(now)
        effects += self._look_at_document(now)
        if holds:
            effects += self._look_at_others(now)
        self._look_at = self.wake_at
        # Who leaves, or forgets others that are gone, looks each time.
        self._is_decided = holds and not self._leaving and self._silence.is_tidy(self._others())
        effects += self._try_to_go()
        if self._left:
            return effects
        self.wake_at = min(self._look_at, self._lease.due)
        if holds and self._held:
            self._wake_by(self._lease.until)
        return effects

    def _is_settled(self, now: float) -> bool:
        """Whether all that may be to do is about the own lease, which holds. Of an idle member
        nearly every input finds it so, and there are hundreds of them in a process."""
        return self._is_decided and self._now <= now < self._look_at and self._lease.holds(now)

    def _go_on(self, now: float) -> list[Effect]:
        """What is to be done where all is settled."""
        self._now = now
        effects = self._keep_alive(now)
        lease = self._lease
        due = min(self._look_at, lease.due)
        self.wake_at = min(due, lease.until) if self._held else due
        return effects

    def _wake_by(self, when: float) -> None:
        self.wake_at = min(self.wake_at, when)

    # The own lease

    def _keep_alive(self, now: float) -> list[Effect]:
        lease = self._lease
        if now < lease.due:
            return []
        request = next(self._requests)
        if lease.is_unsure:
            lease.ask(now)
            self._own_read = request
            return [Get(request, self._key)]
        value = encode(self._heartbeat())
        lease.send(now, request)
        return [Put(request, self._key, value, lease.revision)]

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            beat=self._lease.beat,
            document=self._revision,
            marks={
                number: (held.epoch, held.mark) for number, held in self._held.items() if held.mark
            },
        )

    def _read_own(self, now: float, answer: Found | Absent) -> list[Effect]:
        former = self.id
        if isinstance(answer, Found):
            heartbeat = decode_heartbeat(answer.value)
            if not heartbeat.dead and self._lease.found(answer.revision, heartbeat.beat, now):
                return []
        effects = self._end_life(now, "another member has taken the lease away")
        if isinstance(answer, Found):
            # From now on that is somebody else, and dead: there may be nobody else to see it.
            self._saw(now, former, answer.revision, answer.value)
        return effects

    def _end_life(self, now: float, reason: str) -> list[Effect]:
        effects = self._drop_all(reason)
        self._begin_life(now)
        return effects

    # What is owned

    def _drop(self, partition: int, reason: str) -> list[Effect]:
        held = self._held[partition]
        held.stage = Stage.DROPPED
        return [Drop(partition, held.epoch, reason)]

    def _drop_all(self, reason: str) -> list[Effect]:
        effects: list[Effect] = []
        for number, held in self._held.items():
            if held.stage is not Stage.DROPPED:
                effects += self._drop(number, reason)
        return effects

    def _follow(self) -> list[Effect]:
        """Take and drain what the document says, while the lease holds."""
        effects: list[Effect] = []
        for number, entry in enumerate(self._document.partitions):
            held = self._held.get(number)
            wanted = entry.target == self.id and not self._leaving
            if entry.owner != self.id:
                self._released.pop(number, None)
                if held is not None and held.stage is not Stage.DROPPED:
                    effects += self._drop(number, "the lease document names another owner")
            elif held is not None:
                if held.stage is Stage.OWNED and not wanted:
                    held.stage = Stage.DRAINING
                    effects.append(Drain(number, held.epoch))
            elif self._released.get(number, NOTHING)[0] == entry.epoch:
                pass  # the document is to be told
            elif wanted:
                self._released.pop(number, None)
                self._held[number] = _Holding(entry.epoch, mark=entry.mark)
                effects.append(Take(number, entry.epoch, entry.mark))
            else:
                self._released[number] = (entry.epoch, entry.mark)
        return effects

    # The document

    def _adopt(self, now: float, revision: int, document: Document) -> list[Effect]:
        if revision <= self._revision:
            return []
        if document.members and document.lease != self.timing.lease:
            raise SubscriptionFailed(
                f"the group's members have leases of {document.lease:g} s, this one of"
                f" {self.timing.lease:g} s: give all of them the same timing"
            )
        self._is_stale = False
        was_member = self.id in self._document.members
        self._revision = revision
        self._document = document
        for number, entry in enumerate(document.partitions):
            self._epochs[number] = max(self._epochs.get(number, 0), entry.epoch)
        if was_member and self.id not in document.members and not self._leaving:
            return self._end_life(now, "the lease document does not name this member any more")
        return []

    def _answered_document(self, now: float, asked: _Question, answer: Answer) -> list[Effect]:
        self._question = None
        if isinstance(answer, Found):
            # An older one than is known is an answer too: asking again at once is no help.
            self._is_stale = False
            return self._adopt(now, answer.revision, decode_document(answer.value))
        if isinstance(answer, Stored) and asked.revised is not None:
            return self._adopt(now, answer.revision, asked.revised)
        if isinstance(answer, Absent):
            if self._revision > asked.revision:
                return []  # it was made after this was read, and before the answer came
            self._is_stale = False
            if self._document is not EMPTY:
                return self._end_life(now, "the lease document is gone")
            self._revision = answer.revision
        elif self._revision <= asked.revision:
            self._is_stale = True
        return []

    def _look_at_document(self, now: float) -> list[Effect]:
        if self._question is not None:
            if now < self._question.until:
                self._wake_by(self._question.until)
                return []
            self._question = None
            self._is_stale = True
        until = now + self.timing.answer
        if self._is_stale:
            self._question = _Question(next(self._requests), until, self._revision)
            self._wake_by(until)
            return [Get(self._question.request, DOCUMENT)]
        if not self._lease.holds(now):
            return []
        if self._leaving and self.id not in self._document.members:
            return []
        if self._document is EMPTY and now < self._make_after:
            self._wake_by(self._make_after)
            return []
        facts = self._facts()
        if self._unrevised == (self._document, facts):
            return []
        revised = revise(self._document, facts)
        if revised == self._document:
            self._unrevised = (self._document, facts)
            return []
        self._question = _Question(next(self._requests), until, self._revision, revised)
        self._wake_by(until)
        return [Put(self._question.request, DOCUMENT, encode(revised), self._revision)]

    def _facts(self) -> Facts:
        return Facts(
            member=self.id,
            partitions=self._partitions,
            lease=self.timing.lease,
            leaving=self._leaving,
            released=dict(self._released),
            dead=self._silence.find_dead(self._others()),
            epochs=dict(self._epochs),
        )

    def _try_to_go(self) -> list[Effect]:
        """Gone is who leaves, stands in no document and has nothing running."""
        if (
            not self._leaving
            or self._held
            or self._is_stale
            or self._question is not None
            or self.id in self._document.members
        ):
            return []
        self._left = True
        self.wake_at = inf
        effects: list[Effect] = []
        if self._lease.revision:
            effects.append(Delete(self._key, self._lease.revision))
        return [*effects, Left()]

    # The others

    def _others(self) -> list[str]:
        return [member for member in self._document.members if member != self.id]

    def _saw(self, now: float, member: str, revision: int, value: bytes | None) -> None:
        heartbeat = self._silence.saw(now, member, revision, value)
        if heartbeat.document > self._revision:
            self._is_stale = True

    def _answered_about(self, now: float, member: str, answer: Answer) -> list[Effect]:
        if isinstance(answer, Found):
            self._saw(now, member, answer.revision, answer.value)
        elif isinstance(answer, Absent):
            self._saw(now, member, answer.revision, None)
        elif isinstance(answer, Stored):
            self._silence.condemned(now, member, answer.revision)
        else:
            return [self._silence.look_again(now, member, next(self._requests))]
        return []

    def _look_at_others(self, now: float) -> list[Effect]:
        effects, again = self._silence.judge(now, self._others(), self._requests)
        self._wake_by(again)
        return [*effects, *self._silence.sweep(now, self._document.members)]
