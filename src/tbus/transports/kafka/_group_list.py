"""What the cluster tells of its groups: who reads what. Lives in the clients' loop."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from ._errors import LOST, translated
from ._offsets import UNKNOWN

CONSUMERS = ("consumer", "")
"""Protocols of groups that read topics; the second is that of groups nobody is in now, on brokers
that forget. Others (Connect's, say) only borrow a group's coordinator."""


class GroupList:
    """Questions about groups, asked once each.

    Args:
        admin: the client to ask by.
    """

    def __init__(self, admin: AIOKafkaAdminClient) -> None:
        self._admin = admin

    async def list(self, topics: Sequence[str]) -> dict[str, list[str]]:
        """The groups that have committed an offset in each topic, sorted.

        Raises:
            TbusError: the cluster does not tell.
        """
        found: dict[str, list[str]] = {topic: [] for topic in topics}
        try:
            listed = await self._admin.list_consumer_groups()
            names = sorted(name for name, protocol, *_ in listed if protocol in CONSUMERS)
            for name in names:
                entries = await self._admin.list_consumer_group_offsets(name)
                read = {part.topic for part, entry in entries.items() if entry.offset != UNKNOWN}
                for topic in found.keys() & read:
                    found[topic].append(name)
        except (kafka.KafkaError, *LOST) as error:
            raise translated("list groups", error) from error
        return found

    async def owners(self, topic: str, group: str) -> dict[int, str]:
        """The member of the group that has each partition of the topic now: none while the
        members agree on who gets what."""
        [answer] = await self._admin.describe_consumer_groups([group])
        owners: dict[int, str] = {}
        for _, _, _, _, _, members, *_ in answer.groups:
            for name, _, _, _, assigned in members:
                if not assigned:
                    continue
                for read, partitions in ConsumerProtocolMemberAssignment.decode(
                    assigned
                ).assignment:
                    if read == topic:
                        owners |= dict.fromkeys(partitions, name)
        return owners
