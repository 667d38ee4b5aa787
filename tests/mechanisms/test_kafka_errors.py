"""What an error of Kafka's client says about an event, and about a question."""

from __future__ import annotations

import inspect

import pytest
from aiokafka import errors as kafka

from tbus._errors import (
    ConfigurationError,
    ConsumerGone,
    OutcomeUnknown,
    PublishRefused,
    SubscriptionFailed,
    TransportLost,
)
from tbus._transport import Outgoing
from tbus.transports.kafka._errors import describe, outcome_of, translated

EVERY = [
    error
    for _, error in inspect.getmembers(kafka, inspect.isclass)
    if issubclass(error, kafka.KafkaError) and error is not kafka.BrokerResponseError
]

# Answers after which the event may be in the log of the leader, or of some follower; and what the
# client says when it has found no leader to repeat it to, whatever became of an earlier attempt.
# Source: Kafka protocol guide, error codes, and KIP-98 for the numbers of batches.
MAY_BE_STORED = {
    kafka.RequestTimedOutError,
    kafka.NotEnoughReplicasAfterAppendError,
    kafka.OutOfOrderSequenceNumber,
    kafka.UnknownError,
    kafka.NotLeaderForPartitionError,
    kafka.LeaderNotAvailableError,
}


def event(size: int = 3) -> Outgoing:
    return Outgoing("orders", b"x" * size, None, (), "the-id", 1.0, lambda *_: None)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.__name__)
def test_only_an_answer_of_the_broker_that_excludes_it_says_that_an_event_is_not_stored(error):
    result = outcome_of(event(), error())
    local = {kafka.MessageSizeTooLargeError, getattr(kafka, "RecordTooLargeError", None)}
    answered = issubclass(error, kafka.BrokerResponseError) or error in local
    if answered and error not in MAY_BE_STORED:
        assert isinstance(result, PublishRefused)
    else:
        assert isinstance(result, OutcomeUnknown)
        assert result.event_id == "the-id"
    assert "'orders'" in str(result)


@pytest.mark.parametrize("error", [OSError("gone"), TimeoutError(), RuntimeError("what?")], ids=str)
def test_what_is_not_the_client_s_own_error_leaves_an_event_unknown(error):
    assert isinstance(outcome_of(event(), error), OutcomeUnknown)


def test_an_event_that_is_too_large_names_its_size_and_the_setting():
    text = str(outcome_of(event(1234), kafka.MessageSizeTooLargeError()))
    assert "1234 bytes" in text
    assert "max.message.bytes" in text


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (kafka.KafkaConnectionError("x"), TransportLost),
        (kafka.NodeNotReadyError("x"), TransportLost),
        (kafka.RequestTimedOutError(), TransportLost),
        (ConnectionResetError(), TransportLost),
        (TimeoutError(), TransportLost),
        (kafka.UnknownTopicOrPartitionError(), ConsumerGone),
        (kafka.TopicAuthorizationFailedError("t"), SubscriptionFailed),
        (kafka.GroupAuthorizationFailedError("g"), SubscriptionFailed),
        (kafka.InvalidTopicError("t"), ConfigurationError),
        (kafka.InvalidReplicationFactorError(), ConfigurationError),
        (kafka.InconsistentGroupProtocolError(), SubscriptionFailed),
        (kafka.OffsetOutOfRangeError(), SubscriptionFailed),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else one.__name__,
)
def test_a_question_s_failure_becomes_the_bus_s_own_and_says_what_could_not_be_done(error, becomes):
    result = translated("read topic 'orders'", error)
    assert type(result) is becomes
    assert "cannot read topic 'orders'" in str(result)


def test_an_error_of_the_bus_stays_what_it_is():
    error = ConsumerGone("gone")
    assert translated("read", error) is error


def test_a_description_has_name_and_text_once_and_no_number():
    assert describe(kafka.KafkaConnectionError("no route")) == "KafkaConnection: no route"
    text = describe(kafka.UnknownTopicOrPartitionError("orders"))
    assert text.startswith("UnknownTopicOrPartition")
    assert "[Error" not in text
    assert text.count("UnknownTopicOrPartition") == 1
    assert describe(TimeoutError()) == "Timeout"
