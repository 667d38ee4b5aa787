"""An event bus for Trio and anyio programs over NATS JetStream, Kafka and memory.

    async with open_bus("nats://127.0.0.1:4222") as bus:
        await bus.subscribe("orders", on_order, group="billing")
        await bus.publish("orders", Envelope.new("order-1", "OrderPlaced", {"total": 42}))

Everything a bus starts lives in nurseries that it owns: leaving the block leaves nothing.
"""

from . import _early  # before all others: it answers Ctrl-C while they are read

# isort: split
from ._bus import Bus, Health
from ._census import Census
from ._config import (
    BusConfig,
    KafkaOptions,
    MemoryOptions,
    NatsOptions,
    PlaintextCredentials,
)
from ._dead_letters import DeadLetter, Redriven
from ._envelope import Envelope
from ._errors import (
    BatchFailed,
    BusClosed,
    BusError,
    ConfigurationError,
    ConsumerGone,
    Discard,
    InvalidEnvelope,
    InvalidTopic,
    MessagesLost,
    OutcomeUnknown,
    PublishFailed,
    PublishRefused,
    Reject,
    RetryAfter,
    SubscriptionFailed,
    TbusError,
    TransportLost,
)
from ._event_stream import EventReader
from ._events import (
    BatchRetried,
    Connected,
    ConnectionLost,
    DeadLettered,
    Discarded,
    Draining,
    Event,
    EventsMissed,
    FeedReset,
    KeyBacklog,
    KeyParked,
    KeyReleased,
    MembersChanged,
    MessageRetried,
    NotHandled,
    PartitionsAssigned,
    PartitionsRevoked,
    Reconnecting,
    RetentionTook,
    Stalled,
    TopicMade,
)
from ._gathering import Batch
from ._graveyard import DeadLetters
from ._message import Message, Position, PublishOutcome, Receipt
from ._messages import Messages, PulledMessage
from ._open import open_bus
from ._pace import AdaptiveRate, Rate
from ._publisher import PipelinedPublisher, PublisherStatistics
from ._quarantine import ParkedKey, Quarantine
from ._retry import Backoff, Retry
from ._subscription import Subscription, SubscriptionStatistics
from ._topic import TopicOptions
from ._transport import Holding, Lag, PartitionLag

__version__ = "0.1.0"

__all__ = [
    "AdaptiveRate",
    "Backoff",
    "Batch",
    "BatchFailed",
    "BatchRetried",
    "Bus",
    "BusClosed",
    "BusConfig",
    "BusError",
    "Census",
    "ConfigurationError",
    "Connected",
    "ConnectionLost",
    "ConsumerGone",
    "DeadLetter",
    "DeadLettered",
    "DeadLetters",
    "Discard",
    "Discarded",
    "Draining",
    "Envelope",
    "Event",
    "EventReader",
    "EventsMissed",
    "FeedReset",
    "Health",
    "Holding",
    "InvalidEnvelope",
    "InvalidTopic",
    "KafkaOptions",
    "KeyBacklog",
    "KeyParked",
    "KeyReleased",
    "Lag",
    "MembersChanged",
    "MemoryOptions",
    "Message",
    "MessageRetried",
    "Messages",
    "MessagesLost",
    "NatsOptions",
    "NotHandled",
    "OutcomeUnknown",
    "ParkedKey",
    "PartitionLag",
    "PartitionsAssigned",
    "PartitionsRevoked",
    "PipelinedPublisher",
    "PlaintextCredentials",
    "Position",
    "PublishFailed",
    "PublishOutcome",
    "PublishRefused",
    "PublisherStatistics",
    "PulledMessage",
    "Quarantine",
    "Rate",
    "Receipt",
    "Reconnecting",
    "Redriven",
    "Reject",
    "RetentionTook",
    "Retry",
    "RetryAfter",
    "Stalled",
    "Subscription",
    "SubscriptionFailed",
    "SubscriptionStatistics",
    "TbusError",
    "TopicMade",
    "TopicOptions",
    "TransportLost",
    "__version__",
    "open_bus",
]

_early.end()
