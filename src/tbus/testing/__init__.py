"""For those who test programs on tbus, and for those who write a transport.

`take_census` counts what a process holds, `cancel_at_every_checkpoint` cancels a function wherever
it can be cancelled, `cancel_handler_at_every_checkpoint` a handler. `conformance` holds what every
bus keeps, whatever its broker: a `Harness` of a few methods runs it over any transport.
"""

from __future__ import annotations

from .census import ProcessCensus, take_census
from .checkpoints import cancel_at_every_checkpoint
from .handlers import cancel_handler_at_every_checkpoint
from .harness import Ability, Harness, MemoryHarness

__all__ = [
    "Ability",
    "Harness",
    "MemoryHarness",
    "ProcessCensus",
    "cancel_at_every_checkpoint",
    "cancel_handler_at_every_checkpoint",
    "take_census",
]
