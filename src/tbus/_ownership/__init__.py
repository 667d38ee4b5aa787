"""Who owns which partition of a group, when its members are processes that share a bucket.

One lease document says who owns what; one heartbeat for each member says that it lives. Both
are keys with revisions in a bucket that stores a value only at the revision that the writer
names. Nothing here does I/O or looks at a clock: a `Member` is told the time and what was
read, and answers with what is to be done.

The laws:

1. **One owner.** A member acts on a partition only while the document that it knows names it
   as the owner *and* its own lease lasts (`Member.owns`). Nobody but itself takes it out of
   the document before its lease has run out by every clock.
2. **A lease is counted by its owner from when a heartbeat was sent, by all others from when
   they saw it**, which is later, and for longer. Only spans of a clock's own time are
   measured; times of two machines are never compared. Clocks may run fast or slow by `drift`.
3. **Death is decided by the bucket.** Whoever was silent for long enough is called dead by
   replacing its heartbeat at the revision that was seen all the time. If it lives, that is
   refused; if it is stored, no heartbeat of that member can be stored any more. So nobody's
   old knowledge, lost message or late write can take a lease that holds.
4. **Dead is for ever.** A member that finds itself dead begins anew under another name, so
   nothing that was once written for it can come true again.
5. **Epochs rise** with every `Take` of a partition, even if the same member takes it again.
6. **Drain, settle, release.** What lives is handed over by its owner alone, when nothing of it
   runs any more. What a lost lease leaves running is not taken again here before it has ended.
7. **A member that was suspended finds that out first**: `Member.owns` says no before anything
   is looked at, and the first effects of its next input drop everything.
8. **Few moves.** The document keeps for each partition whom it is meant for. That changes only
   when members come or go: evenly, with the fewest moves there are. An outage of the broker
   moves nothing: a member that was cut off itself counts everybody's silence from the start.
9. **Marks outlive their owner.** They travel in its heartbeats, into the one that calls it
   dead, and from there into the document.

The strategy: each change of the document brings all of it up to date (`_plan`), so a join, a
hand-over or a takeover is one write, and of any number of members that try at once one
succeeds in each round. Heartbeats have keys of their own: they never contend, neither with
each other nor with the document. A heartbeat names the revision of the document that its
member knows, so nobody need poll to find out that it missed a change.

The figures (`Timing`), and why they do:

* A heartbeat every 1.1 s is 0.91 messages a second that a member sends, 1.82 with the answers,
  and no other question while nothing changes; each heartbeat is told to every member.
* A lease of 1.8 s leaves 0.7 s for a heartbeat to be stored: two repeats.
* Clocks that are wrong by 10 % let a lease last 1.8 / 0.9 = 2.0 true seconds. A takeover after
  1.8 * 1.1 / 0.9 + 0.2 = 2.4 s of silence comes after 2.4 / 1.1 = 2.18 true seconds at the
  earliest: 0.18 s of margin, and 0.6 s with right clocks.
* It comes after 2.4 / 0.9 = 2.67 true seconds at the latest. What was killed is owned again
  within 3 s, with 0.33 s for the two writes, the news of them, and the new owner's first pull.
  What was suspended too: that takes no longer, where 6 s are promised.

What cannot be seen: a machine that is paused together with its clock. Its member learns with
its next heartbeat that it is dead; what it did in between carries the old epoch.
"""

from ._document import DOCUMENT, Document, Partition, decode_document
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
    Refused,
    Stored,
    Take,
)
from ._member import Member, Stage
from ._timing import Timing

__all__ = [
    "DOCUMENT",
    "Absent",
    "Answer",
    "Delete",
    "Document",
    "Drain",
    "Drop",
    "Effect",
    "Found",
    "Get",
    "Left",
    "Member",
    "Partition",
    "Put",
    "Refused",
    "Stage",
    "Stored",
    "Take",
    "Timing",
    "decode_document",
]
