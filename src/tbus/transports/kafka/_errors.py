"""aiokafka's errors as the bus's. The tables decide what is certain: whatever is not known to
mean "not stored" is unknown."""

from __future__ import annotations

from aiokafka import errors as kafka

from ..._errors import (
    ConfigurationError,
    ConsumerGone,
    OutcomeUnknown,
    PublishRefused,
    SubscriptionFailed,
    TbusError,
    TransportLost,
)
from ..._transport import Outgoing

REFUSALS: tuple[type[BaseException], ...] = (
    kafka.BrokerResponseError,
    kafka.MessageSizeTooLargeError,
    kafka.RecordTooLargeError,
)
"""The broker answered, and what it answered is no success."""

NO_REFUSALS: tuple[type[BaseException], ...] = (
    kafka.RequestTimedOutError,
    kafka.NotEnoughReplicasAfterAppendError,
    kafka.OutOfOrderSequenceNumber,
    kafka.UnknownError,
    kafka.NotLeaderForPartitionError,
    kafka.LeaderNotAvailableError,
)
"""Answers that leave open whether the event is stored."""

LOST: tuple[type[BaseException], ...] = (
    kafka.KafkaConnectionError,
    kafka.NodeNotReadyError,
    kafka.RequestTimedOutError,
    kafka.StaleMetadata,
    OSError,
    TimeoutError,
)
"""Nobody answered."""


def describe(error: BaseException) -> str:
    """Name and text of a client's error, without its number."""
    name = type(error).__name__
    text = str(error)
    for prefix in (f"[Error {getattr(error, 'errno', '')}] ", f"{name}: ", name):
        text = text.removeprefix(prefix)
    return f"{name.removesuffix('Error')}{f': {text}' if text else ''}"


def outcome_of(outgoing: Outgoing, error: BaseException) -> TbusError:
    """What became of an event that was sent."""
    topic = outgoing.topic
    if isinstance(error, REFUSALS) and not isinstance(error, NO_REFUSALS):
        if isinstance(error, kafka.MessageSizeTooLargeError | kafka.RecordTooLargeError):
            return PublishRefused(
                f"an event of {len(outgoing.body)} bytes for topic {topic!r} is larger than the"
                " topic's max.message.bytes: send a reference, or raise the limit"
            )
        if isinstance(error, kafka.TopicAuthorizationFailedError):
            return PublishRefused(
                f"the broker does not allow publishing to topic {topic!r}: grant WRITE to this user"
            )
        return PublishRefused(f"the broker refused an event for topic {topic!r}: {describe(error)}")
    return unknown(outgoing, describe(error))


def unknown(outgoing: Outgoing, why: str) -> OutcomeUnknown:
    """The event was sent, and nobody can say whether it is stored."""
    return OutcomeUnknown(
        f"event {outgoing.id} for topic {outgoing.topic!r} was sent, and may be stored or not:"
        f" {why}. Kafka does not recognise a repeat: publish it again, with this id, if handlers"
        " can tell by it that they have seen it",
        event_id=outgoing.id,
    )


def translated(what: str, error: BaseException) -> TbusError:
    """A client's error as the bus's.

    Args:
        what: what could not be done, e.g. "read topic 'orders'".
        error: why.
    """
    if isinstance(error, TbusError):
        return error
    if isinstance(error, LOST):
        return TransportLost(f"cannot {what}: {describe(error)}")
    if isinstance(error, kafka.UnknownTopicOrPartitionError):
        return ConsumerGone(f"cannot {what}: the topic does not exist (any more)")
    if isinstance(
        error,
        kafka.TopicAuthorizationFailedError
        | kafka.GroupAuthorizationFailedError
        | kafka.ClusterAuthorizationFailedError,
    ):
        return SubscriptionFailed(f"cannot {what}: {describe(error)}; grant the right to this user")
    if isinstance(error, kafka.InvalidTopicError | kafka.InvalidReplicationFactorError):
        return ConfigurationError(f"cannot {what}: {describe(error)}")
    return SubscriptionFailed(f"cannot {what}: {describe(error)}")
