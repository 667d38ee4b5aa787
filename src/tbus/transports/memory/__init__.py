"""The broker in this process: the promises of a real one, without a server.

It is no stand-in. What a member of a group got and did not settle comes again, ownership
of a partition passes on with a higher epoch, a full topic refuses, and what can go wrong
on the way to a broker goes wrong on request (`Faults`). Under Trio's `MockClock` its days
pass in milliseconds.
"""

from ._faults import Faults
from ._transport import MemoryTransport, open_memory

__all__ = ["Faults", "MemoryTransport", "open_memory"]
