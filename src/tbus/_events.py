"""What can happen in the life of a bus, as values for `Bus.open_events`."""

from __future__ import annotations

from typing import ClassVar

import attrs


@attrs.frozen
class Event:
    """The base of all lifecycle events.

    Attributes:
        is_trouble: whether somebody should look. Where nobody reads the events, these go to the
            log `tbus.events` as warnings.
    """

    is_trouble: ClassVar[bool] = False


@attrs.frozen
class Connected(Event):
    """The bus is connected to its broker, for the first time or again.

    Attributes:
        address: of the broker, without secrets.
        attempts: how many it took.
    """

    address: str
    attempts: int = 1


@attrs.frozen
class ConnectionLost(Event):
    """The connection broke. What is published now waits, within its deadline."""

    is_trouble: ClassVar[bool] = True

    address: str
    reason: str


@attrs.frozen
class Reconnecting(Event):
    """The next attempt to connect comes in `delay` seconds."""

    attempt: int
    delay: float
    reason: str


@attrs.frozen
class FeedReset(Event):
    """A subscription went back to the first message that was not settled, to keep the
    order after a cut; what is in flight or finished is not handled again."""

    topic: str
    group: str | None
    reason: str


@attrs.frozen
class TopicMade(Event):
    """A topic was made, because it was used and did not exist, or was gone after a restart
    of a broker that kept it in memory."""

    topic: str
    again: bool = False


@attrs.frozen
class MessageRetried(Event):
    """A handler failed, and will run again for the same message.

    Attributes:
        attempt: the one that failed.
        delay: seconds until the next.
        error: type and text of what it raised.
    """

    is_trouble: ClassVar[bool] = True

    topic: str
    group: str | None
    key: str | None
    position: str
    attempt: int
    delay: float
    error: str


@attrs.frozen
class BatchRetried(Event):
    """A handler failed for a whole list of messages, and will run for all of them again.

    Attributes:
        position: of the first of them.
        messages: how many they are.
        attempt: the highest of theirs that failed.
        delay: seconds until the next.
        alone: from then on each of them is handled alone.
        error: type and text of what the handler raised.
    """

    is_trouble: ClassVar[bool] = True

    topic: str
    group: str | None
    position: str
    messages: int
    attempt: int
    delay: float
    alone: bool
    error: str


@attrs.frozen
class DeadLettered(Event):
    """A message was stored in a dead-letter topic, and then settled."""

    is_trouble: ClassVar[bool] = True

    topic: str
    group: str | None
    key: str | None
    position: str
    dead_letter: str
    attempts: int
    reason: str


@attrs.frozen
class Discarded(Event):
    """A handler raised `Discard`: the message was settled without being handled."""

    topic: str
    group: str | None
    key: str | None
    position: str
    reason: str


@attrs.frozen
class NotHandled(Event):
    """With `delivery="at_most_once"`, a message that was settled already was not handled: its
    handler raised, ran out of time or was cancelled.

    Attributes:
        error: type and text of what it raised.
    """

    is_trouble: ClassVar[bool] = True

    topic: str
    group: str | None
    key: str | None
    position: str
    error: str


@attrs.frozen
class Stalled(Event):
    """A message can neither succeed nor be dead-lettered: it holds its key, nothing is
    skipped, and it is tried again after `delay` seconds.

    Attributes:
        age: seconds since it first failed in this process.
    """

    is_trouble: ClassVar[bool] = True

    topic: str
    group: str | None
    key: str | None
    position: str
    attempts: int
    age: float
    delay: float
    reason: str


@attrs.frozen
class KeyBacklog(Event):
    """One key holds half of what a subscription may have in flight, and will soon hold up
    the others: it is slow, failing, or far too frequent."""

    is_trouble: ClassVar[bool] = True

    topic: str
    group: str | None
    key: str | None
    waiting: int
    max_in_flight: int


@attrs.frozen
class KeyParked(Event):
    """The handler does not get the messages of a key any more, until it is released.

    Attributes:
        waiting: messages of it that are here.
        reason: what its message failed with, or what `Subscription.park` was told.
    """

    is_trouble: ClassVar[bool] = True

    topic: str
    group: str | None
    key: str
    waiting: int
    reason: str


@attrs.frozen
class KeyReleased(Event):
    """The handler gets the messages of a key again: it was released, or another process has
    its partition now.

    Attributes:
        waiting: messages of it that are here.
    """

    topic: str
    group: str | None
    key: str
    waiting: int


@attrs.frozen
class RetentionTook(Event):
    """Messages were removed by retention before the group had read them."""

    is_trouble: ClassVar[bool] = True

    topic: str
    group: str | None
    first: int
    last: int


@attrs.frozen
class PartitionsAssigned(Event):
    """This process reads these partitions for the group from now on.

    Attributes:
        epoch: of its ownership; `Message.epoch` carries it.
    """

    topic: str
    group: str
    partitions: tuple[int, ...]
    epoch: int


@attrs.frozen
class PartitionsRevoked(Event):
    """Others read these partitions for the group from now on.

    Attributes:
        lost: nothing could be drained, for the group had given up on this process already.
    """

    topic: str
    group: str
    partitions: tuple[int, ...]
    lost: bool = False


@attrs.frozen
class MembersChanged(Event):
    """Others have joined or left the group of a subscription, or were taken for dead. Told by
    transports that know it: NATS, with an order.

    Attributes:
        members: all that there are now, sorted; each that has begun anew has another name.
        own: the name of this process's member.
    """

    topic: str
    group: str
    members: tuple[str, ...]
    own: str


@attrs.frozen
class EventsMissed(Event):
    """The reader was too slow: `count` events were left out here."""

    count: int


@attrs.frozen
class Draining(Event):
    """The bus has begun to end."""

    grace: float
