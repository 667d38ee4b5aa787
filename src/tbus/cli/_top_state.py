"""What `tbus top` shows: what a broker holds at one moment, and what changed since. Pure.

The broker tells where topics end and how far groups are behind; a rate is how much that moved
between two looks. What a group has settled is what was stored meanwhile, less what its lag
grew by.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs

from .._transport import Holding, PartitionLag

Sort = Literal["name", "lag", "rate"]


@attrs.frozen
class GroupState:
    """A group of a topic.

    Attributes:
        name: the group.
        partitions: how far it is behind in each; None: the broker does not tell.
        rate: messages settled a second, or None where that is not known yet.
        grows: by how many messages its lag grew since the look before.
    """

    name: str
    partitions: tuple[PartitionLag, ...] | None
    rate: float | None = None
    grows: int = 0

    @property
    def lag(self) -> int | None:
        """Messages that are stored and not settled."""
        if self.partitions is None:
            return None
        return sum(one.messages for one in self.partitions)

    @property
    def age(self) -> float | None:
        """Of the oldest of these, in seconds, where that is known."""
        known = [one.age for one in self.partitions or () if one.age is not None]
        return max(known, default=None)

    @property
    def owners(self) -> list[str]:
        """The members that read it now, as far as the broker tells, sorted."""
        return sorted({one.owner for one in self.partitions or () if one.owner is not None})


@attrs.frozen
class TopicState:
    """A topic.

    Attributes:
        name: the topic.
        end: how many places it has used, up to now; None: the broker does not tell.
        groups: that read it.
        rate: messages stored a second, or None where that is not known yet.
    """

    name: str
    end: int | None
    groups: tuple[GroupState, ...]
    rate: float | None = None

    @property
    def lag(self) -> int:
        """Of the group that is most behind."""
        return max((group.lag or 0 for group in self.groups), default=0)


@attrs.frozen
class Snapshot:
    """One look at a broker.

    Attributes:
        time: when, by a clock that only counts seconds.
        topics: sorted by name.
        connections: of this program to the broker.
        round_trip: of a question, in seconds; None: nobody answered.
        error: why nobody answered; the topics are then those of the look before.
    """

    time: float
    topics: tuple[TopicState, ...] = ()
    connections: tuple[Holding, ...] = ()
    round_trip: float | None = None
    error: str | None = None

    def since(self, before: Snapshot | None) -> Snapshot:
        """This look with the rates that it has beside an earlier one."""
        if before is None or self.error is not None or before.time >= self.time:
            return self
        seconds = self.time - before.time
        known = {topic.name: topic for topic in before.topics}
        return attrs.evolve(
            self,
            topics=tuple(
                topic if topic.name not in known else _moved(topic, known[topic.name], seconds)
                for topic in self.topics
            ),
        )

    def sorted_by(self, sort: Sort) -> list[TopicState]:
        """The topics: by name, or those with the largest lag or rate first."""
        if sort == "lag":
            return sorted(self.topics, key=lambda topic: (-topic.lag, topic.name))
        if sort == "rate":
            return sorted(self.topics, key=lambda topic: (-(topic.rate or 0), topic.name))
        return sorted(self.topics, key=lambda topic: topic.name)

    def as_json(self, address: str, now: str) -> dict[str, Any]:
        """Everything, for a program; times in seconds, rates in messages a second."""
        return {
            "time": now,
            "address": address,
            "connected": self.error is None,
            "error": self.error,
            "round_trip": self.round_trip,
            "connections": [
                {"role": one.role, "age": round(one.age, 1)} for one in self.connections
            ],
            "topics": [_topic_json(topic) for topic in self.topics],
        }


def _moved(topic: TopicState, before: TopicState, seconds: float) -> TopicState:
    if topic.end is None or before.end is None:
        return topic
    # One that was removed and made again ends before it did.
    stored = max(0, topic.end - before.end)
    known = {group.name: group for group in before.groups}
    groups = []
    for group in topic.groups:
        was = known.get(group.name)
        if was is not None and group.lag is not None and was.lag is not None:
            grows = group.lag - was.lag
            group = attrs.evolve(group, rate=max(0, stored - grows) / seconds, grows=grows)
        groups.append(group)
    return attrs.evolve(topic, rate=stored / seconds, groups=tuple(groups))


def _topic_json(topic: TopicState) -> dict[str, Any]:
    return {
        "topic": topic.name,
        "end": topic.end,
        "rate": _rounded(topic.rate),
        "groups": [
            {
                "group": group.name,
                "lag": group.lag,
                "age": _rounded(group.age),
                "rate": _rounded(group.rate),
                "partitions": [
                    {
                        "partition": one.partition,
                        "lag": one.messages,
                        "owner": one.owner,
                        "epoch": one.epoch,
                    }
                    for one in group.partitions or ()
                ],
            }
            for group in topic.groups
        ],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
