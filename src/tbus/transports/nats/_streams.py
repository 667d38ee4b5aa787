"""Streams: one for each topic, made when it is first used, never so that it loses anything.

Limits retention with an age, `discard=new` (a full stream refuses), no count limit unless
it was asked for. The topic, the number of its partitions and the hash that finds a key's stand in
the stream's metadata, and are compared whenever the stream is looked up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._config import NatsOptions
from ..._errors import ConfigurationError, ConsumerGone, TransportLost
from ..._events import Event, TopicMade
from ..._topic import Difference, Strategy, TopicOptions, differences
from ._errors import (
    MESSAGE_NOT_FOUND,
    STREAM_EXISTS,
    STREAM_NOT_FOUND,
    ApiError,
    NoAnswer,
    NoResponders,
    not_possible,
)
from ._names import group_of_consumer, stream_name
from ._partitions import HASH, partition_subject
from ._session import Session

NANO = 1_000_000_000

IMMUTABLE = ("partitions", "storage")
"""What tbus does not change on a stream that exists: the server cannot move a stream to
other storage, and other partitions would give keys another order."""

Config = dict[str, Any]


def to_config(stream: str, subject: str, topic: str, options: TopicOptions) -> Config:
    """The stream's configuration for a topic."""
    return {
        "name": stream,
        "subjects": [partition_subject(subject, options.partitions, "*")],
        "retention": "limits",
        "discard": "new",
        "storage": options.storage,
        "num_replicas": options.replicas,
        "max_consumers": -1,
        "max_msgs": -1 if options.max_messages is None else options.max_messages,
        "max_bytes": -1 if options.max_bytes is None else options.max_bytes,
        "max_msg_size": -1,
        "max_age": round((options.retention_time or 0) * NANO),
        "duplicate_window": round(
            min(options.duplicate_window, options.retention_time or options.duplicate_window) * NANO
        ),
        "compression": "none" if options.compression == "none" else "s2",
        "description": options.description,
        "allow_direct": True,
        "metadata": {
            "tbus.topic": topic,
            "tbus.partitions": str(options.partitions),
            "tbus.hash": HASH,
        },
    }


def to_options(config: Config) -> TopicOptions:
    """What a stream's configuration means for its topic."""

    def limit(value: int) -> int | None:
        return value if value > 0 else None

    return TopicOptions(
        partitions=int(config.get("metadata", {}).get("tbus.partitions", "1")),
        replicas=config.get("num_replicas", 1),
        storage=config.get("storage", "file"),
        retention_time=config.get("max_age", 0) / NANO or None,
        max_messages=limit(config.get("max_msgs", -1)),
        max_bytes=limit(config.get("max_bytes", -1)),
        compression="none" if config.get("compression", "none") == "none" else "snappy",
        description=config.get("description", ""),
        duplicate_window=config.get("duplicate_window", 0) / NANO,
    )


class Streams:
    """Makes and finds the streams of topics. Lives in the clients' loop."""

    def __init__(self, options: NatsOptions, emit: Callable[[Event], None]) -> None:
        self.options = options
        self._emit = emit
        self._known: dict[str, TopicOptions] = {}
        self._made: dict[str, str] = {}
        """When the stream was made that was last told of."""
        self._missing: dict[str, TopicOptions] = {}
        """What was known of topics whose stream seems to be gone: they are made again so."""

    @property
    def is_own(self) -> bool:
        """Whether every topic has a stream of its own, in which nothing else stands."""
        return self.options.stream is None

    def stream(self, topic: str) -> str:
        """The name of a topic's stream."""
        return self.options.stream or stream_name(topic)

    def subject(self, topic: str, partition: int | str = "*") -> str:
        """The subject that a partition's events are published to; by default one for all."""
        return partition_subject(self._subject(topic), self.partitions(topic), partition)

    def _subject(self, topic: str) -> str:
        return self.options.subject or topic

    def partitions(self, topic: str) -> int:
        """How many the topic had when it was last looked for."""
        found = self._found(topic)
        return 1 if found is None else found.partitions

    def defaults(self) -> TopicOptions:
        """What a topic is made with when nobody configured it."""
        return TopicOptions(
            storage=self.options.storage,
            replicas=self.options.replicas,
            duplicate_window=self.options.duplicate_window,
        )

    def forget(self, topic: str) -> None:
        """The topic is removed: nothing that was known of it is true any more."""
        self._known.pop(topic, None)
        self._missing.pop(topic, None)

    def miss(self, topic: str) -> None:
        """The stream did not answer: it is looked for again, and made as it was."""
        if topic in self._known:
            self._missing[topic] = self._known.pop(topic)

    def is_known(self, topic: str) -> bool:
        """Whether the stream was there when it was last looked for."""
        return topic in self._known

    def _found(self, topic: str) -> TopicOptions | None:
        """What the topic was when it was last seen."""
        return self._known.get(topic) or self._missing.get(topic)

    async def info(self, session: Session, topic: str) -> Config | None:
        """The stream's configuration and state, or None if there is none."""
        try:
            return await session.api(f"STREAM.INFO.{self.stream(topic)}")
        except ApiError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return None
            raise not_possible(f"cannot look up topic {topic!r}", error) from error

    async def look(self, session: Session, topic: str) -> Config | None:
        """The same, and from then on it is known what the topic is."""
        info = await self.info(session, topic)
        if info is not None:
            self._learn(topic, info)
        return info

    async def ensure(self, session: Session, topic: str) -> Config:
        """The stream of a topic, made if it does not exist; returns its info."""
        before = self._found(topic)
        info = await self.look(session, topic)
        if info is None:
            if self.options.stream is not None:
                raise ConsumerGone(
                    f"the stream {self.options.stream!r} that nats.stream names does not exist"
                )
            info = await self._create(session, topic, before or self.defaults())
            if self._made.get(topic) != info["created"]:
                # Publisher and subscriptions look at the same time, and the server tells
                # each of them that it has made the one stream.
                self._made[topic] = info["created"]
                self._emit(TopicMade(topic, again=before is not None))
            self._learn(topic, info)
        return info

    def _learn(self, topic: str, info: Config) -> None:
        self._check_ours(topic, info["config"])
        self._missing.pop(topic, None)
        self._known[topic] = to_options(info["config"])

    async def configure(
        self, session: Session, topic: str, options: TopicOptions, strategy: Strategy
    ) -> TopicOptions:
        """Make the topic, or make it match, as the strategy says."""
        if options.partitions != 1 and not self.is_own:
            raise ConfigurationError(
                "a stream that nats.stream names has one partition: partitions need a subject each,"
                " which tbus gives to its own streams only",
                field="partitions",
                value=options.partitions,
            )
        info = await self.info(session, topic)
        if info is None:
            if strategy in ("validate_only", "skip"):
                if strategy == "skip":
                    return options
                raise ConfigurationError(
                    f"topic {topic!r} does not exist, and validate_only does not make it",
                    field="topic",
                    value=topic,
                )
            info = await self._create(session, topic, options)
            self._emit(TopicMade(topic))
        else:
            self._check_ours(topic, info["config"])
            found = to_options(info["config"])
            # What the server rounds, or shortens to the age, is no difference.
            wanted = to_options(to_config(self.stream(topic), self._subject(topic), topic, options))
            differing = differences(wanted, found)
            if differing and strategy not in ("create_only", "skip"):
                frozen = [d for d in differing if d.field in IMMUTABLE]
                if frozen or strategy == "validate_only":
                    raise ConfigurationError(
                        f"topic {topic!r} is not as asked for:"
                        f" {'; '.join(map(str, frozen or differing))}" + _explain(frozen),
                        field="topic",
                        value=topic,
                    )
                config = {
                    **info["config"],
                    **to_config(self.stream(topic), self._subject(topic), topic, options),
                }
                info = await self._ask(
                    session,
                    f"STREAM.UPDATE.{self.stream(topic)}",
                    config,
                    f"change topic {topic!r}",
                )
        self._known[topic] = to_options(info["config"])
        return self._known[topic]

    async def groups(self, session: Session, topic: str) -> list[str]:
        """The groups that have a consumer of the topic."""
        names: list[str] = []
        while True:
            call = f"CONSUMER.NAMES.{self.stream(topic)}"
            try:
                answer = await session.api(call, {"offset": len(names)})
            except ApiError as error:
                if error.err_code == STREAM_NOT_FOUND:
                    return []
                raise not_possible(f"cannot list the groups of topic {topic!r}", error) from error
            found = answer.get("consumers") or []
            names += found
            if not found or len(names) >= answer.get("total", 0):
                return sorted({group for group in map(group_of_consumer, names) if group})

    async def list(self, session: Session) -> list[str]:
        """The topics whose streams tbus made."""
        topics: list[str] = []
        offset = 0
        while True:
            answer = await self._ask(session, "STREAM.LIST", {"offset": offset}, "list topics")
            streams = answer.get("streams") or []
            for info in streams:
                topic = info["config"].get("metadata", {}).get("tbus.topic")
                if topic is not None:
                    topics.append(topic)
            offset += len(streams)
            if not streams or offset >= answer.get("total", 0):
                return sorted(topics)

    async def last_sequences(self, session: Session, topic: str) -> dict[int, int]:
        """The sequence of the last message that each partition still holds.

        Not the stream's own last sequence: that one stays when its message goes, and counts
        what stands under other subjects.
        """
        info = await self.info(session, topic)
        partitions = 1 if info is None else to_options(info["config"]).partitions
        found = {
            number: await self._last_sequence(
                session, topic, partition_subject(self._subject(topic), partitions, number)
            )
            for number in range(partitions)
            if info is not None
        }
        return {number: last for number, last in found.items() if last is not None}

    async def _last_sequence(self, session: Session, topic: str, subject: str) -> int | None:
        body = {"last_by_subj": subject}
        try:
            answer = await session.api(f"STREAM.MSG.GET.{self.stream(topic)}", body)
        except ApiError as error:
            if error.err_code in (STREAM_NOT_FOUND, MESSAGE_NOT_FOUND):
                return None
            raise not_possible(f"cannot look up topic {topic!r}", error) from error
        return int(answer["message"]["seq"])

    async def remove(self, session: Session, topic: str) -> bool:
        """Remove a topic and all that it holds."""
        self.forget(topic)
        try:
            await session.api(f"STREAM.DELETE.{self.stream(topic)}")
        except ApiError as error:
            if error.err_code == STREAM_NOT_FOUND:
                return False
            raise not_possible(f"cannot remove topic {topic!r}", error) from error
        finally:
            self.forget(topic)  # somebody may have seen it meanwhile
        return True

    async def _create(self, session: Session, topic: str, options: TopicOptions) -> Config:
        config = to_config(self.stream(topic), self._subject(topic), topic, options)
        try:
            return await session.api(f"STREAM.CREATE.{config['name']}", config, timeout=10.0)
        except ApiError as error:
            if error.err_code != STREAM_EXISTS:
                raise not_possible(f"cannot make topic {topic!r}", error) from error
            problem = error
        found = await self.info(session, topic)  # somebody else made it just now
        if found is None:
            raise not_possible(f"cannot make topic {topic!r}", problem)
        return found

    async def _ask(self, session: Session, call: str, body: object, what: str) -> Config:
        try:
            return await session.api(call, body)
        except ApiError as error:
            raise not_possible(f"cannot {what}", error) from error
        except (NoAnswer, NoResponders) as error:
            raise TransportLost(f"cannot {what}: {error}") from error

    def _check_ours(self, topic: str, config: Config) -> None:
        """A stream of that name may be somebody else's."""
        if self.options.stream is not None:
            return
        metadata = config.get("metadata", {})
        owner = metadata.get("tbus.topic")
        partitions = to_options(config).partitions
        subject = partition_subject(self._subject(topic), partitions, "*")
        if partitions != 1 and metadata.get("tbus.hash") != HASH:
            raise ConfigurationError(
                f"stream {config['name']!r} finds the partition of a key by"
                f" {metadata.get('tbus.hash')!r}, where this tbus knows {HASH!r}: run the version"
                " of tbus that made the topic",
                field="topic",
                value=topic,
            )
        if owner not in (None, topic) or subject not in config.get("subjects", []):
            raise ConfigurationError(
                f"stream {config['name']!r} exists and does not carry this topic (its subjects:"
                f" {', '.join(config.get('subjects', []))}): bind it with nats.stream and"
                " nats.subject, or choose another topic",
                field="topic",
                value=topic,
            )
        if config.get("retention", "limits") != "limits":
            raise ConfigurationError(
                f"stream {config['name']!r} has {config['retention']} retention: it forgets what"
                " one group has read, so other groups would lose messages",
                field="topic",
                value=topic,
            )


def _explain(frozen: list[Difference]) -> str:
    """What to do about a difference that tbus does not change."""
    if any(difference.field == "partitions" for difference in frozen):
        return (
            ". Other partitions would give keys another order: stop the publishers, let every group"
            " read to the end (tbus lag), remove the topic and make it again with the new number"
        )
    return ". This cannot be changed: make a new topic" if frozen else ""
