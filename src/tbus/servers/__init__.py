"""Brokers that a program starts, owns and stops itself."""

from ._nats import NatsServer, open_nats_server

__all__ = ["NatsServer", "open_nats_server"]
