"""Names of topics and groups, and what a topic is asked to be.

The names are the narrowest that every broker takes as they are: Kafka's alphabet, less the
names that NATS refuses as subjects. Nothing here talks to a broker: `differences` compares
what was asked for with what a transport found, and the transport acts on it.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, get_args

import attrs

from ._errors import ConfigurationError, ConsumerGone, InvalidTopic

MAX_NAME: Final = 200
"""Characters. Kafka takes 249; the rest is left for suffixes such as `.dead`."""

_matches = re.compile(r"(?=.{1,200}\Z)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*").fullmatch
_find_foreign = re.compile(r"[^A-Za-z0-9._-]").search

Strategy = Literal["create_only", "create_or_update", "validate_only", "skip"]
"""What `configure_topic` does where the broker has the topic already, or has it not:

`create_only`: make it if it is missing; leave one that is there as it is.
`create_or_update`: make it, or change what can be changed without losing messages.
`validate_only`: change nothing; a missing or differing topic is an error.
`skip`: change nothing and compare nothing. Of a topic that is missing there is nothing to return
    but what was asked for; whoever uses it first makes it with the backend's defaults.
"""

_STRATEGIES: Final[tuple[str, ...]] = get_args(Strategy)


def check_topic(name: str) -> str:
    """The name itself, if every broker takes it as a topic's.

    Raises:
        InvalidTopic: it is not 1 to 200 of `A-Z a-z 0-9 . _ -`, or a dot stands first,
            last or next to another (NATS refuses those as subjects, and Kafka `.` and
            `..`). The message names the character and its position.
    """
    if isinstance(name, str) and _matches(name):
        return name
    raise _invalid(name, "topic")


def check_group(name: str) -> str:
    """The name itself, if every broker takes it as a consumer group's.

    Raises:
        InvalidTopic: as for a topic's name.
    """
    if isinstance(name, str) and _matches(name):
        return name
    raise _invalid(name, "group")


def no_topic(topic: str) -> ConsumerGone:
    """What to raise where something is asked about a topic that the broker has not."""
    return ConsumerGone(f"there is no topic {topic!r}: publish to it or configure it first")


def check_strategy(name: str) -> Strategy:
    """The name itself, if it is that of a `Strategy`.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(name, str) and name in _STRATEGIES:
        return name  # type: ignore[return-value]  # it is one of them
    raise ConfigurationError(
        f"it must be one of {', '.join(_STRATEGIES)}", field="strategy", value=name
    )


def _invalid(name: object, field: str) -> InvalidTopic:
    if not isinstance(name, str):
        return InvalidTopic(
            f"a name is a str, not {type(name).__name__}", field=field, value=_bounded(name)
        )
    if not name:
        problem = f"a name has 1 to {MAX_NAME} characters, and this one has none"
    elif foreign := _find_foreign(name):
        problem = (
            f"character {foreign[0]!r} at position {foreign.start()} (the first is 0) is not one"
            " of A-Z a-z 0-9 . _ -"
        )
    elif len(name) > MAX_NAME:
        problem = (
            f"a name has 1 to {MAX_NAME} characters, and this one has {len(name)}:"
            f" character {name[MAX_NAME]!r} at position {MAX_NAME} is one too many"
        )
    else:
        # Only an empty token is left: a dot at the start, after another one, or at the end.
        if name[0] == ".":
            position = 0
        elif ".." in name:
            position = name.index("..") + 1
        else:
            position = len(name) - 1
        problem = (
            f"character '.' at position {position} (the first is 0) stands first, last or next"
            " to another: NATS takes no empty part between dots"
        )
    return InvalidTopic(problem, field=field, value=_bounded(name))


def _bounded(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= MAX_NAME else value[:MAX_NAME] + "..."
    return f"<{type(value).__name__}>"


def _check_count(least: int, *, optional: bool = False) -> Any:
    def check(_owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value is None and optional:
            return
        if type(value) is not int or value < least:
            raise ConfigurationError(
                f"it must be a whole number of at least {least}" + (" or None" * optional),
                field=attribute.name,
                value=value,
            )

    return check


# NATS counts nanoseconds in 63 bits, which is 292 years.
_LONGEST: Final = 9e9


def _check_retention(_owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not (_is_seconds(value) and value != 0):
        raise ConfigurationError(
            "it must be a number of seconds above 0 (at most 9e9), or None to keep messages for"
            " ever",
            field=attribute.name,
            value=value,
        )


def _check_window(_owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not _is_seconds(value):
        raise ConfigurationError(
            "it must be a number of seconds, 0 or more (at most 9e9)",
            field=attribute.name,
            value=value,
        )


def _is_seconds(value: object) -> bool:
    # The comparison refuses NaN, and integers that no float can hold, too.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST


def _check_text(_owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise ConfigurationError("it must be a str", field=attribute.name, value=value)


_HIGHEST_LEVEL: Final = {"none": 0, "gzip": 9, "snappy": 0, "lz4": 0, "s2": 0, "zstd": 22}


def _check_compression(_owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
    name, colon, level = value.partition(":") if isinstance(value, str) else ("", "", "")
    highest = _HIGHEST_LEVEL.get(name)
    if highest is not None:
        if not colon:
            return
        if re.fullmatch(r"[1-9][0-9]?", level) and int(level) <= highest:
            return
    raise ConfigurationError(
        "it must be none, gzip, snappy, lz4, s2 or zstd, the level after a colon if one is"
        " wanted: gzip:1 to gzip:9, zstd:1 to zstd:22",
        field=attribute.name,
        value=value,
    )


_DAY: Final = 24 * 3600.0
_MIB: Final = 1024 * 1024


@attrs.frozen
class TopicOptions:
    """What a topic is asked to be. Every limit is one at which the topic *refuses* what is
    published (`PublishRefused`): it never drops its oldest messages to make room. Only
    their age removes messages.

    Attributes:
        partitions: how many; messages of one key are in one of them. Never raised behind
            anyone's back: that would move keys.
        replicas: on how many brokers each message is kept.
        storage: `file`, or `memory`, which a restart of the broker empties.
        retention_time: seconds until a message is removed; None keeps it for ever.
        max_bytes: of the topic; None sets no limit.
        max_messages: in the topic; None sets no limit.
        compression: `none`, `gzip`, `snappy`, `lz4`, `s2` or `zstd`; a level goes after a
            colon (`gzip:6`). A broker that has not the one asked for says so.
        description: kept with the topic, for people.
        duplicate_window: seconds for which NATS and memory discard a repeated event id.

    Raises:
        ConfigurationError: a value is out of range; the message names it.
    """

    partitions: int = attrs.field(default=1, validator=_check_count(1))
    replicas: int = attrs.field(default=1, validator=_check_count(1))
    storage: Literal["file", "memory"] = attrs.field(default="file")
    retention_time: float | None = attrs.field(default=7 * _DAY, validator=_check_retention)
    max_bytes: int | None = attrs.field(default=None, validator=_check_count(1, optional=True))
    max_messages: int | None = attrs.field(default=None, validator=_check_count(1, optional=True))
    compression: str = attrs.field(default="none", validator=_check_compression)
    description: str = attrs.field(default="", validator=_check_text)
    duplicate_window: float = attrs.field(default=120.0, validator=_check_window)

    @storage.validator
    def _check_storage(self, attribute: attrs.Attribute[Any], value: object) -> None:
        if value not in ("file", "memory"):
            raise ConfigurationError("it must be file or memory", field=attribute.name, value=value)

    @classmethod
    def high(cls) -> TopicOptions:
        """For what must keep up and must not be lost: 10 partitions, 3 replicas, 7 days,
        1 GiB, a million messages."""
        return cls(10, 3, "file", 7 * _DAY, 1024 * _MIB, 1_000_000)

    @classmethod
    def medium(cls) -> TopicOptions:
        """5 partitions, 3 replicas, 3 days, 500 MiB, 100 000 messages."""
        return cls(5, 3, "file", 3 * _DAY, 500 * _MIB, 100_000)

    @classmethod
    def low(cls) -> TopicOptions:
        """3 partitions, 3 replicas, 1 day, 100 MiB, 10 000 messages."""
        return cls(3, 3, "file", _DAY, 100 * _MIB, 10_000)


@attrs.frozen
class Difference:
    """One field in which a topic is not what was wanted."""

    field: str
    wanted: object
    found: object

    def __str__(self) -> str:
        return f"{self.field}: wanted {self.wanted!r}, found {self.found!r}"


def differences(wanted: TopicOptions, found: TopicOptions) -> tuple[Difference, ...]:
    """Every field in which the two differ, in the order of the fields; none if they agree."""
    if wanted == found:
        return ()
    return tuple(
        Difference(name, mine, theirs)
        for name in _FIELDS
        if (mine := getattr(wanted, name)) != (theirs := getattr(found, name))
    )


_FIELDS: Final = tuple(attribute.name for attribute in attrs.fields(TopicOptions))
