"""Kafka, by aiokafka in a loop of the bus's own."""

from ._transport import KafkaTransport, open_kafka

__all__ = ["KafkaTransport", "open_kafka"]
