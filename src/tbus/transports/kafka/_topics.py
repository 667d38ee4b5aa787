"""Topics: found, made, compared, changed and removed. Lives in the clients' loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import TopicPartition

from ..._config import KafkaOptions
from ..._errors import ConfigurationError, TransportLost
from ..._events import Event, TopicMade
from ..._topic import Strategy, TopicOptions, differences
from ._errors import LOST, describe, translated

IMMUTABLE = ("partitions", "replicas")
"""What only a new topic can change. (Partitions can be added, which moves keys: never by us.)"""

PROMPT = 0.05
"""Seconds between looks at a topic that was made or removed just now."""

SPREAD_WAIT = 5.0
"""Seconds within which every broker of a cluster has heard of a new topic."""

OTHERS_ASKED = 3
"""Brokers that are asked for a topic of which the first one has not heard."""

OTHERS_WAIT = 0.5
"""Seconds that each of them has to answer."""

UNKNOWN_TOPIC = kafka.UnknownTopicOrPartitionError.errno

SOURCE_TOPIC = 1
"""Of a configuration value: set for this topic. Source: Kafka protocol, DescribeConfigs."""


def to_configs(topic: str, options: TopicOptions) -> dict[str, str]:
    """A topic's settings as Kafka names them.

    Raises:
        ConfigurationError: Kafka cannot keep what an option promises.
    """
    for field in ("max_bytes", "max_messages"):
        value = getattr(options, field)
        if value is not None:
            raise ConfigurationError(
                f"Kafka cannot refuse what goes beyond a limit of topic {topic!r}: it would remove"
                " the oldest messages instead, read or not. Leave it None and bound the topic by"
                " retention_time (of a preset: attrs.evolve(preset, max_bytes=None,"
                " max_messages=None))",
                field=field,
                value=value,
            )
    if options.storage != "file":
        raise ConfigurationError(
            "Kafka keeps every topic on disk", field="storage", value=options.storage
        )
    kind, _, level = options.compression.partition(":")
    if kind == "s2":
        raise ConfigurationError(
            "Kafka has none, gzip, snappy, lz4 and zstd", field="compression", value=kind
        )
    configs = {
        "retention.ms": "-1"
        if options.retention_time is None
        else str(max(1, round(options.retention_time * 1000))),
        # What a publisher has compressed stays so; one that has not is not asked to.
        "compression.type": "producer" if kind == "none" else kind,
        "cleanup.policy": "delete",
    }
    if level:
        configs[f"compression.{kind}.level"] = level
    return configs


def to_options(partitions: int, replicas: int, configs: dict[str, str]) -> TopicOptions:
    """What the broker has, as options. Description and duplicate window are not Kafka's: they
    are what nobody asked otherwise."""
    retention = int(configs.get("retention.ms", "-1"))
    kind = configs.get("compression.type", "producer")
    kind = "none" if kind in ("producer", "uncompressed") else kind
    level = configs.get(f"compression.{kind}.level")
    limit = int(configs.get("retention.bytes", "-1"))
    return TopicOptions(
        partitions=partitions,
        replicas=replicas,
        retention_time=None if retention < 0 else max(retention, 1) / 1000,
        max_bytes=None if limit < 0 else max(1, limit),
        compression=kind if level is None or kind == "none" else f"{kind}:{level}",
        duplicate_window=0.0,
    )


class Topics:
    """What is known of topics, and the questions about them.

    Args:
        admin: the client to ask by.
    """

    def __init__(
        self, admin: AIOKafkaAdminClient, options: KafkaOptions, emit: Callable[[Event], None]
    ) -> None:
        self._admin = admin
        self._options = options
        self._emit = emit
        self._partitions: dict[str, int] = {}

    def partitions(self, topic: str) -> int | None:
        """How many the topic had when it was last looked at."""
        return self._partitions.get(topic)

    def forget(self, topic: str) -> None:
        """It may be gone, or another one."""
        self._partitions.pop(topic, None)

    async def look(self, topics: Iterable[str]) -> dict[str, int | None]:
        """How many partitions each has now; None: it does not exist.

        Raises:
            KafkaError, OSError, TimeoutError: nobody answered.
        """
        wanted = list(topics)
        found: dict[str, int | None] = dict.fromkeys(wanted)
        for entry in await self._describe(wanted):
            topic = entry["topic"]
            error = kafka.for_code(entry["error_code"])
            if error is kafka.NoError:
                if all(part["leader"] >= 0 for part in entry["partitions"]):
                    self._partitions[topic] = len(entry["partitions"])
                found[topic] = len(entry["partitions"])
            elif error is kafka.UnknownTopicOrPartitionError:
                self.forget(topic)
            else:
                raise error(topic)
        return found

    async def leaders(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The broker that leads each partition now.

        Raises:
            KafkaError, OSError, TimeoutError: some partition has none, or nobody answered.
        """
        wanted = set(partitions)
        found: dict[TopicPartition, int] = {}
        for entry in await self._describe(sorted({part.topic for part in wanted})):
            if entry["error_code"]:
                raise kafka.for_code(entry["error_code"])(entry["topic"])
            for told in entry["partitions"]:
                part = TopicPartition(entry["topic"], told["partition"])
                if part in wanted and told["leader"] >= 0:
                    found[part] = told["leader"]
        if found.keys() != wanted:
            raise kafka.LeaderNotAvailableError(str(sorted(wanted - found.keys())))
        return found

    async def ensure(self, topic: str) -> int:
        """The topic's number of partitions; made if it does not exist, and ready when this
        returns."""
        known = self._partitions.get(topic)
        if known is not None:
            return known
        try:
            if (await self.look([topic]))[topic] is None:
                await self._make(
                    topic,
                    self._options.partitions or -1,
                    self._options.replicas or -1,
                    {},
                )
                self._emit(TopicMade(topic))
            return await self._wait_ready(topic)
        except (kafka.KafkaError, *LOST) as error:
            raise translated(f"look up topic {topic!r}", error) from error

    async def get(self, topic: str) -> TopicOptions | None:
        """What the broker has, or None."""
        try:
            described = (await self._describe([topic]))[0]
            error = kafka.for_code(described["error_code"])
            if error is kafka.UnknownTopicOrPartitionError:
                self.forget(topic)
                return None
            if error is not kafka.NoError:
                raise error(topic)
            configs = await self._configs(topic)
        except kafka.UnknownTopicOrPartitionError:
            return None  # removed between the two questions
        except (kafka.KafkaError, *LOST) as error:
            raise translated(f"look up topic {topic!r}", error) from error
        partitions = described["partitions"]
        replicas = max(len(partition["replicas"]) for partition in partitions)
        values = {name: value for name, (value, _) in configs.items()}
        for level in ("gzip", "lz4", "zstd"):
            if configs.get(f"compression.{level}.level", ("", 0))[1] != SOURCE_TOPIC:
                values.pop(f"compression.{level}.level", None)  # nobody chose it
        return to_options(len(partitions), replicas, values)

    async def configure(
        self, topic: str, options: TopicOptions, strategy: Strategy
    ) -> TopicOptions:
        """Make the topic, or make it match, as the strategy says."""
        configs = to_configs(topic, options)
        found = await self.get(topic)
        if found is None:
            if strategy == "skip":
                return options
            if strategy == "validate_only":
                raise ConfigurationError(
                    f"topic {topic!r} does not exist, and validate_only does not make it",
                    field="topic",
                    value=topic,
                )
            try:
                await self._make(topic, options.partitions, options.replicas, configs)
                self._emit(TopicMade(topic))
                await self._wait_ready(topic)
            except (kafka.KafkaError, *LOST) as error:
                raise translated(f"make topic {topic!r}", error) from error
        else:
            wanted = to_options(options.partitions, options.replicas, configs)
            differing = differences(wanted, found)
            if differing and strategy not in ("create_only", "skip"):
                frozen = [d for d in differing if d.field in IMMUTABLE]
                if frozen or strategy == "validate_only":
                    raise ConfigurationError(
                        f"topic {topic!r} is not as asked for:"
                        f" {'; '.join(map(str, frozen or differing))}"
                        + (f". {_how_to_change(frozen[0].field)}" if frozen else ""),
                        field="topic",
                        value=topic,
                    )
                await self._change(topic, configs)
        # Another broker may answer now, which has not heard of the topic yet.
        for _ in range(round(SPREAD_WAIT / PROMPT)):
            result = await self.get(topic)
            if result is not None:
                return result
            await asyncio.sleep(PROMPT)
        raise TransportLost(f"topic {topic!r} was removed while it was being configured")

    async def list(self) -> list[str]:
        """The topics of the cluster, without Kafka's own."""
        try:
            return sorted(
                topic for topic in await self._admin.list_topics() if not topic.startswith("__")
            )
        except (kafka.KafkaError, *LOST) as error:
            raise translated("list topics", error) from error

    async def remove(self, topic: str) -> bool:
        """Remove a topic; when this returns True, it can be made again."""
        self.forget(topic)
        try:
            answer = await self._admin.delete_topics([topic])
            _, code = answer.topic_error_codes[0][:2]
            error = kafka.for_code(code)
            if error is kafka.UnknownTopicOrPartitionError:
                return False
            if error is not kafka.NoError:
                raise error(topic)
            while (await self.look([topic]))[topic] is not None:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(PROMPT)
        except (kafka.KafkaError, *LOST) as error:
            raise translated(f"remove topic {topic!r}", error) from error
        return True

    async def _describe(self, topics: Sequence[str]) -> Sequence[Any]:
        """Ask some broker. What that does not know others are asked for: one that was away, or
        is slow, has not heard of every topic, and is sure that it does not exist."""
        nodes = [broker.nodeId for broker in self._admin._client.cluster.brokers()]
        if not nodes:
            raise kafka.NodeNotReadyError("no broker is known")
        first, *others = random.sample(nodes, min(len(nodes), 1 + OTHERS_ASKED))
        found = await self._ask_node(first, topics)
        for node in others:
            unknown = [entry["topic"] for entry in found if entry["error_code"] == UNKNOWN_TOPIC]
            if not unknown:
                break
            try:
                async with asyncio.timeout(OTHERS_WAIT):
                    known = {entry["topic"]: entry for entry in await self._ask_node(node, unknown)}
            except (kafka.KafkaError, *LOST):
                continue
            found = [known.get(entry["topic"], entry) for entry in found]
        return found

    async def _ask_node(self, node: int, topics: Sequence[str]) -> Sequence[Any]:
        """Ask one broker. The client's own question has a broker that makes topics by itself
        make those that it is asked about."""
        request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
        answer = await self._admin._client.send(node, request)
        # As the client would say it, but for what nobody wants to know: in a quarter of the time.
        return [
            {
                "error_code": code,
                "topic": topic,
                "partitions": [
                    {"partition": number, "leader": leader, "replicas": replicas}
                    for _, number, leader, replicas, *_ in partitions
                ],
            }
            for code, topic, *_, partitions in answer.topics
        ]

    async def _wait_ready(self, topic: str) -> int:
        """Wait until every partition has a leader; the caller bounds the time."""
        while True:
            await self.look([topic])
            partitions = self._partitions.get(topic)
            if partitions is not None:
                return partitions
            await asyncio.sleep(PROMPT)

    async def _make(
        self, topic: str, partitions: int, replicas: int, configs: dict[str, str]
    ) -> None:
        request = NewTopic(topic, 1, 1, topic_configs=configs)
        # -1 is the broker's own default, which the constructor does not let through.
        request.num_partitions, request.replication_factor = partitions, replicas
        answer = await self._admin.create_topics([request])
        _, code, *text = answer.topic_errors[0]
        error = kafka.for_code(code)
        if error in (kafka.NoError, kafka.TopicAlreadyExistsError):
            return  # or somebody else made it just now
        reason = str(text[0]) if text and text[0] else describe(error())
        if issubclass(error, kafka.RetriableError) or error.retriable:
            raise error(reason)
        raise ConfigurationError(
            f"the broker does not make topic {topic!r}: {reason}", field="topic", value=topic
        )

    async def _configs(self, topic: str) -> dict[str, tuple[str, int]]:
        """Every setting of the topic: its value, and where that comes from."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        answer = (await self._admin.describe_configs([resource]))[0]
        code, reason, _, _, entries = answer.resources[0]
        error = kafka.for_code(code)
        if error is not kafka.NoError:
            raise error(reason)
        return {entry[0]: (entry[1], entry[3]) for entry in entries}

    async def _change(self, topic: str, configs: dict[str, str]) -> None:
        try:
            # The request replaces everything that was ever set for the topic.
            kept = {
                name: value
                for name, (value, source) in (await self._configs(topic)).items()
                if source == SOURCE_TOPIC
            }
            resource = ConfigResource(ConfigResourceType.TOPIC, topic, {**kept, **configs})
            answer = (await self._admin.alter_configs([resource]))[0]
            code, reason = answer.resources[0][:2]
            error = kafka.for_code(code)
            if error is not kafka.NoError:
                raise ConfigurationError(
                    f"the broker does not change topic {topic!r}: {reason}",
                    field="topic",
                    value=topic,
                )
        except (kafka.KafkaError, *LOST) as error:
            raise translated(f"change topic {topic!r}", error) from error


def _how_to_change(field: str) -> str:
    if field == "partitions":
        return (
            "Other partitions mean that keys move, and that their order breaks: drain the topic,"
            " or make a new one"
        )
    return "Replicas are moved with Kafka's own tools (kafka-reassign-partitions)"
