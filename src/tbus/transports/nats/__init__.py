"""NATS JetStream, over nats-py in the bus's own asyncio loop."""

from ._transport import NatsTransport, open_nats

__all__ = ["NatsTransport", "open_nats"]
