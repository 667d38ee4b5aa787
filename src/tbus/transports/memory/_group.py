"""Who reads what: a group, its share of each partition, and its members.

The laws of this room:

* A group has one `Share` of each partition, which outlives every member.
* In an ordered group a share has one owner, and the members own equally many. An owner is
  replaced only when nothing of the share is in flight with it, when it has left, or when
  it was not heard of, or did not settle, for its `ack_wait`. Then it has lost what it
  held: its settlements no longer count.
* In a shared group all members read from every share. What one of them leaves unsettled
  goes to the others.
* Reading is pulled: nothing is handed to a member that did not ask. So there is nothing to
  take back from a member that is slow.

Nothing here waits or looks at a clock: `Member.wake` and `Member.later` are the ways out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from ..._events import PartitionsAssigned, PartitionsRevoked
from ..._message import Delivery
from ..._transport import Emit, FeedRequest, Verdict
from ._log import PartitionLog
from ._share import Loss, Reader, Share

Later = Callable[[float, Callable[[], object]], object]
"""Run something in so many seconds."""


class Member(Reader):
    """One feed, as its group sees it.

    Args:
        group: joins it by `Group.join`.
        request: of the feed.
        emit: is told which partitions come and go.
        later: runs something after so many seconds.

    Attributes:
        ack_wait: seconds for which it may be silent and keep what it holds.
    """

    __slots__ = (
        "_emit",
        "_gained",
        "_topic",
        "_turn",
        "ack_wait",
        "group",
        "has_expired",
        "is_asking",
        "is_linked",
        "is_stopped",
        "later",
        "unheard",
        "unnoted",
    )

    def __init__(
        self,
        group: Group,
        request: FeedRequest,
        emit: Emit,
        wake: Callable[[], None],
        later: Later,
    ) -> None:
        super().__init__(request.max_in_flight, request.max_in_flight_bytes, wake)
        self.group = group
        self.ack_wait = request.ack_wait
        self.later = later
        self._topic = request.topic
        self._emit = emit
        self._gained: list[Share] = []  # and not told yet
        self._turn = 0
        self.unheard: dict[Delivery, Verdict] = {}  # settled while the connection was cut
        self.unnoted: dict[Delivery, int] = {}  # and failed so often
        self.is_asking = False  # waits, or was woken and has not read yet
        self.is_stopped = False
        self.is_linked = True
        self.has_expired = False

    def find_loss(self) -> Loss | None:
        """What retention took before this member could read it."""
        for share in self._readable():
            loss = share.find_loss()
            if loss is not None:
                return loss
        return None

    def read(self, at_most: int, before: float) -> list[Delivery]:
        """The next messages within the credit, fairly from all its partitions."""
        batch: list[Delivery] = []
        self.is_blocked = False
        shares = self._readable()
        self._turn += 1
        for index in range(len(shares)):
            share = shares[(index + self._turn) % len(shares)]
            room = min(self.room(), at_most - len(batch))
            if room <= 0:
                self.is_blocked = True
                break
            if self.group.is_shared:
                # Leave their part to the others that ask: a burst is for all of them.
                asking = 1 + self.group.count_asking(self)
                room = min(room, -(-share.count_unread() // asking))
            share.read(self, room, before, batch)
        return batch

    def has_more(self) -> bool:
        """Whether there is something to read, credit or not."""
        return any(share.has_more() for share in self._readable())

    def _readable(self) -> list[Share]:
        shares = self.group.shares
        if self.group.is_shared:
            return shares
        return [share for share in shares if share.owner is self and share.target is self]

    def settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Take a settlement; one of something it does not hold is ignored."""
        if not self.is_linked:
            if delivery in self.held:
                self.unheard.setdefault(delivery, verdict)
            return
        share = self.held.pop(delivery, None)
        if share is None:
            return
        self.held_bytes -= delivery.size
        share.settled(delivery, verdict)
        if self.is_blocked and self.is_waiting:
            self.wake()

    def note_attempts(self, delivery: Delivery, attempts: int) -> None:
        """Take how often handling has failed; that of something it does not hold is ignored."""
        share = self.held.get(delivery)
        if share is None:
            return
        if self.is_linked:
            share.note_attempts(delivery, attempts)
        else:
            self.unnoted[delivery] = attempts

    def surrender(self, share: Share | None = None) -> None:
        """Lose what it holds of a share, or everything: the group has it back."""
        for delivery, of in list(self.held.items()):
            if share is None or of is share:
                del self.held[delivery]
                self.held_bytes -= delivery.size
                self.unheard.pop(delivery, None)
                self.unnoted.pop(delivery, None)
                of.released(delivery)

    def owns(self, share: Share) -> None:
        """A share is its own from now on."""
        self._gained.append(share)
        if not self.group.is_sharing_out:
            self.tell_gained()

    def owned(self, share: Share, *, lost: bool) -> None:
        """A share that was its own is another's."""
        name = self.group.name
        if name is not None and self in self.group.members:
            self._emit(PartitionsRevoked(self._topic, name, (share.log.partition,), lost))

    def tell_gained(self) -> None:
        """Tell of the partitions gained, those of one epoch together."""
        name = self.group.name
        gained, self._gained = self._gained, []
        if name is None:
            return  # nobody else could have them
        for epoch in sorted({share.epoch for share in gained}):
            numbers = tuple(share.log.partition for share in gained if share.epoch == epoch)
            self._emit(PartitionsAssigned(self._topic, name, numbers, epoch))

    def stop(self) -> None:
        """Read no more; its partitions go to others as soon as it has settled what it holds."""
        if not self.is_stopped:
            self.is_stopped = True
            self.group.rebalance()

    def leave(self) -> None:
        """Give everything back and be a member no more."""
        if self in self.group.members:
            self.group.members.remove(self)
            self.is_linked = False
            self.is_stopped = True
            self.surrender()
            self.group.rebalance()

    def cut(self) -> None:
        """The group hears nothing of it any more."""
        if not self.is_linked:
            return
        self.is_linked = False
        self.unheard = {}
        mark = self.unheard  # tells this cut from a later one

        def expire() -> None:
            if not self.is_linked and self.unheard is mark:
                self.has_expired = True
                self.group.rebalance()

        self.later(self.ack_wait, expire)

    def relink(self) -> None:
        """It is heard again: what it settled meanwhile counts, if it is still its own."""
        if self.is_linked or self not in self.group.members:
            return
        self.is_linked = True
        self.has_expired = False
        unheard, self.unheard = self.unheard, {}
        unnoted, self.unnoted = self.unnoted, {}
        for delivery, attempts in unnoted.items():
            self.note_attempts(delivery, attempts)
        for delivery, verdict in unheard.items():
            self.settle(delivery, verdict)
        self.group.rebalance()
        for share in self.group.shares:
            if share.owner is self:
                share.reset(
                    frozenset(
                        delivery.position.offset
                        for delivery, of in self.held.items()
                        if of is share
                    )
                )
        if self.is_waiting:
            self.wake()


class Group:
    """Feeds that share a topic's messages, or one feed that has them all to itself.

    Args:
        name: None for the one feed.
        is_shared: whether every member reads from every partition.
        starts: each partition, and the offset where the group begins.

    Attributes:
        is_sharing_out: more partitions may change hands before anybody is told of those that
            have come.
    """

    __slots__ = ("is_gone", "is_shared", "is_sharing_out", "members", "name", "shares")

    def __init__(
        self, name: str | None, is_shared: bool, starts: Sequence[tuple[PartitionLog, int]]
    ) -> None:
        self.name = name
        self.is_shared = is_shared
        self.is_gone = False
        self.is_sharing_out = False
        wake_one = self.wake_one if is_shared else None
        self.shares = [Share(log, start, wake_one) for log, start in starts]
        self.members: list[Member] = []

    def join(self, member: Member) -> None:
        """Take in a member, and give it its part of the partitions."""
        self.members.append(member)
        self.rebalance()

    def count_asking(self, but: Member) -> int:
        """How many other members wait for messages, or were woken and have not read yet."""
        return sum(1 for member in self.members if member.is_asking and member is not but)

    def wake_one(self) -> None:
        """Wake the member that waits longest, which goes to the end of the row."""
        for index, member in enumerate(self.members):
            if member.is_waiting and member.is_linked:
                member.wake()
                self.members.append(self.members.pop(index))
                return

    def end(self) -> None:
        """The group was removed: its members find out."""
        self.is_gone = True
        for member in self.members:
            if member.is_waiting:
                member.wake()

    def rebalance(self) -> None:
        """Share the partitions evenly among those who want any, moving as few as possible."""
        wanting = [m for m in self.members if not m.is_stopped and not m.has_expired]
        if self.is_shared:
            if wanting:
                for member in self.members:
                    if member.has_expired:
                        member.surrender()
            return
        self.is_sharing_out = True
        self._share_out(wanting)
        self.is_sharing_out = False
        for member in self.members:
            member.tell_gained()

    def _share_out(self, wanting: list[Member]) -> None:
        for share, target in self._targets(wanting):
            share.target = target
            owner = share.owner
            if owner is target:
                continue
            if owner is None or share.is_idle():
                share.hand_over()
                continue
            assert isinstance(owner, Member)
            if owner.has_expired:
                owner.surrender(share)
                share.hand_over(lost=True)
            else:
                owner.later(owner.ack_wait, _Fence(share, owner, share.epoch))

    def _targets(self, wanting: list[Member]) -> list[tuple[Share, Reader | None]]:
        if not wanting:
            # Nobody takes over: who has it keeps it, unless it left.
            return [
                (share, share.owner if share.owner in self.members else None)
                for share in self.shares
            ]
        parts: dict[Member, list[Share]] = {member: [] for member in wanting}
        loose: list[Share] = []
        for share in self.shares:
            target = share.target
            (parts[target] if isinstance(target, Member) and target in parts else loose).append(
                share
            )
        least, more = divmod(len(self.shares), len(wanting))
        # Who has most keeps most; the sort is stable, so the oldest member comes first.
        for rank, part in enumerate(sorted(parts.values(), key=len, reverse=True)):
            allowed = least + (1 if rank < more else 0)
            while len(part) > allowed:
                loose.append(part.pop())
            while len(part) < allowed:
                part.append(loose.pop(0))
        return [(share, member) for member, part in parts.items() for share in part]


@attrs.frozen
class _Fence:
    """Ends the patience with an owner that should hand over and has not settled."""

    share: Share
    owner: Member
    epoch: int

    def __call__(self) -> None:
        share = self.share
        if (
            share.owner is self.owner
            and share.epoch == self.epoch
            and share.target is not self.owner
        ):
            self.owner.surrender(share)
            share.hand_over(lost=True)
