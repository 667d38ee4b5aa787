"""How a bus is configured: frozen options, checked when they are built, and where they may
come from - a URL, a TOML or YAML file, arguments.

Fields convert text (`"5s"`, `"64MiB"`, `"true"`), so that every source means the same.
Secrets are in no repr and in no error.
"""

from __future__ import annotations

from ._bus_config import BusConfig, PlaintextCredentials
from ._sections import KafkaOptions, MemoryOptions, NatsOptions

__all__ = ["BusConfig", "KafkaOptions", "MemoryOptions", "NatsOptions", "PlaintextCredentials"]
