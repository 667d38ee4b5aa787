"""What a strategy makes of the topic that is there and the one that is wanted."""

from __future__ import annotations

from ..._errors import ConfigurationError
from ..._topic import Strategy, TopicOptions, differences


def reconcile(
    topic: str, found: TopicOptions | None, wanted: TopicOptions, strategy: Strategy
) -> TopicOptions | None:
    """What to make or change the topic to, or None to leave it as it is.

    Raises:
        ConfigurationError: the topic is missing or differs and the strategy is
            `validate_only`, or the number of partitions would have to change.
    """
    if found is None:
        if strategy == "validate_only":
            raise ConfigurationError(
                f"there is no topic {topic!r}, and validate_only makes none; make it first,"
                ' or use strategy="create_or_update"',
                field="topic",
                value=topic,
            )
        return None if strategy == "skip" else wanted
    if strategy in ("skip", "create_only"):
        return None
    differing = differences(wanted, found)
    if not differing:
        return None
    told = "; ".join(map(str, differing))
    if strategy == "validate_only":
        raise ConfigurationError(
            f"topic {topic!r} is not what was asked for: {told};"
            ' validate_only changes nothing, strategy="create_or_update" does',
            field="options",
            value=wanted,
        )
    if wanted.partitions != found.partitions:
        raise ConfigurationError(
            f"topic {topic!r} is not what was asked for: {told}; the number of partitions cannot"
            " change, since keys would change their partition and lose their order:"
            " ask for what there is, or make a new topic",
            field="partitions",
            value=wanted.partitions,
        )
    return wanted
