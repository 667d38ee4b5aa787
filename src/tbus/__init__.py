"""An event bus for Trio and anyio over NATS JetStream, Kafka and memory."""
from ._bus import Bus, Health, open_bus
from ._census import Census
from ._config import BusConfig
from ._envelope import Envelope
from ._errors import *
from ._message import Delivery, Message, Position, PublishOutcome, Receipt
from ._retry import Retry
from ._topic import TopicOptions
