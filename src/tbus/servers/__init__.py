"""Brokers that a program starts, owns and stops itself."""

from ._kafka import KafkaServer, open_kafka_server
from ._nats import NatsServer, open_nats_server

__all__ = ["KafkaServer", "NatsServer", "open_kafka_server", "open_nats_server"]
