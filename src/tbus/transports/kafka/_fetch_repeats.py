"""Whether a client would fetch of a broker what it has just fetched, and nothing came.

Then the fetch is repeated where its answer was read. The client would come to the same: by two
tasks, four passes of the loop and a look at each partition through a dozen calls, which was half of
what a hundred idle topics cost. What may change meanwhile, and is looked for: another assignment, a
partition that is paused, resumed, or read from elsewhere, one of which something waits to be taken,
or was taken, and news of who leads what.
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.structs import TopicPartition

from ._fetch_sessions import Topics

_PRIVATE = {"_position", "_paused", "_records", "_subscriptions"}


class Standing:
    """What a client wanted of a broker.

    Args:
        fetcher: the client's.
        cluster: what it knows of who leads what.
        node: the broker.
        topics: what was asked for.
    """

    def __init__(self, fetcher: Any, cluster: Any, node: int, topics: Topics) -> None:
        self._fetcher = fetcher
        self._cluster = cluster
        self._leaders = cluster._partitions
        subscription = fetcher._subscriptions.subscription
        assignment: Any = None if subscription is None else subscription.assignment
        self._assignment = assignment
        asked = {
            TopicPartition(topic, number): offset
            for topic, partitions in topics
            for number, offset, _ in partitions
        }
        self._wanted: list[tuple[Any, int]] = []
        self._unwanted: list[Any] = []
        """What else the broker leads."""
        for part in () if assignment is None else assignment.tps:
            state = assignment.state_value(part)
            if cluster.leader_for_partition(part) != node:
                continue
            if part in asked:
                self._wanted.append((state, asked[part]))
            else:
                self._unwanted.append(state)
        self._is_whole = len(self._wanted) == len(asked)
        self.is_all = not self._unwanted
        """Nothing that the broker leads is left out, so only another assignment could wait for the
        end of the fetch."""

    def holds(self) -> bool:
        """Whether it would want the same now."""
        return (
            self._is_whole
            and not self._fetcher._records
            and self._cluster._partitions is self._leaders
            and self._assignment.active
            and all(state._position == at and not state._paused for state, at in self._wanted)
            and all(state._paused for state in self._unwanted)
        )


def can_tell(client: Any) -> bool:
    """Whether the client has what is looked at here."""
    names = (
        *TopicPartitionState.__init__.__code__.co_names,
        *Fetcher.__init__.__code__.co_names,
    )
    return hasattr(client.cluster, "_partitions") and _PRIVATE.issubset(names)
