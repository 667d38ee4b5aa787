"""What stands in the bucket: one lease document for a group, one heartbeat for each member.

Both are JSON. The document, under the key `document`:

    {"v": 1,
     "lease": 1.8,
     "members": ["a-1", "b-1"],
     "leaving": ["b-1"],
     "partitions": [{"owner": "a-1", "target": "a-1", "epoch": 3, "mark": "..."}]}

`owner` may act on the partition while its lease lasts, `target` is whom it is meant for:
where they differ, the owner drains. "" is nobody. Partition `p` is the entry at index `p`.
`lease` is `Timing.lease`, the same for all. A field that has its default may be missing,
except `v`.

A heartbeat, under the key `member.<member>`:

    {"beat": 42, "document": 17, "marks": {"0": [3, "..."]}, "dead": false}

`beat` counts a member's heartbeats; `document` is the revision of the document that it knows;
`marks` holds for each partition that it owns the epoch and the mark. `dead` is set by another
member that took the lease away; nobody ever changes such a heartbeat again, it can only be
removed.
"""

from __future__ import annotations

import msgspec

from .._errors import SubscriptionFailed

VERSION = 1
DOCUMENT = "document"
"""The document's key."""

_PREFIX = "member."


class Partition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who owns a partition, and who shall.

    Attributes:
        owner: the member that may act on it, or "".
        target: the member that it is meant for, or "".
        epoch: counts the owners.
        mark: what the last owner had completed beyond the broker's floor; opaque here.
    """

    owner: str = ""
    target: str = ""
    epoch: int = 0
    mark: str = ""


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """The lease document of one group.

    Attributes:
        members: all that may own something, sorted.
        leaving: those of them that shall get nothing any more.
        partitions: by number.
        lease: the seconds that the members' leases last; 0 before there were any.
        v: the version of this format.
    """

    members: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    partitions: tuple[Partition, ...] = ()
    lease: float = 0.0
    v: int = 0

    def find_owned(self, member: str) -> list[int]:
        """The partitions that a member owns."""
        return [p for p, one in enumerate(self.partitions) if one.owner == member]


class Heartbeat(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member's sign of life, and what must outlive it.

    Attributes:
        beat: its number; 0 where it is not known.
        document: the revision of the document that the member knows.
        marks: epoch and mark of each partition that it owns and has a mark for.
        dead: its lease was taken away, for ever.
    """

    beat: int = 0
    document: int = 0
    marks: dict[int, tuple[int, str]] = {}
    dead: bool = False


_documents = msgspec.json.Decoder(Document)
_heartbeats = msgspec.json.Decoder(Heartbeat)
_encoder = msgspec.json.Encoder()


def key_of(member: str) -> str:
    """Where a member's heartbeat stands."""
    return _PREFIX + member


def member_of(key: str) -> str | None:
    """Whose heartbeat stands there, or None: it is no heartbeat's key."""
    return key[len(_PREFIX) :] if key.startswith(_PREFIX) else None


def encode(value: Document | Heartbeat) -> bytes:
    """As it is stored."""
    return _encoder.encode(value)


def decode_document(data: bytes) -> Document:
    """Read a lease document.

    Raises:
        SubscriptionFailed: it is none, or one of a newer tbus, which must not be changed by
            somebody who does not understand it.
    """
    try:
        document = _documents.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SubscriptionFailed(
            f"the group's lease document cannot be read ({error}): stop all members of the"
            f" group, remove the key {DOCUMENT!r} from its bucket, and start them again"
        ) from error
    if document.v != VERSION:
        raise SubscriptionFailed(
            f"the group's lease document has v={document.v!r} where this tbus knows {VERSION}:"
            " run the same version of tbus in all members of the group"
        )
    return document


def decode_heartbeat(data: bytes) -> Heartbeat:
    """Read a heartbeat. One that cannot be read is a sign of life all the same."""
    try:
        return _heartbeats.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Heartbeat()
