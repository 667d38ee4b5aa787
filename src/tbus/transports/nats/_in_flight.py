"""What was handed over and is not settled, and the credit that bounds it.

Credit is never more than `max_in_flight` messages and `max_in_flight_bytes`; each message that is
asked for may take its even share of the bytes. A message that is larger than all of them comes
alone.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator


class InFlight:
    """The messages of one consumer that are in flight.

    Args:
        messages: of them at most.
        size: bytes of them at most.

    Attributes:
        share: bytes that each message which is asked for may take.
        low: so many more must be worth asking for while something is asked for.
    """

    __slots__ = ("_bytes", "_known", "_messages", "_size", "low", "share")

    def __init__(self, messages: int, size: int) -> None:
        self._known: dict[int, tuple[bytes, int]] = {}
        self._bytes = 0
        self.limit(messages, size)

    def limit(self, messages: int, size: int) -> None:
        """How much may be in flight from now on: messages, and bytes."""
        self._messages = messages
        self._size = size
        self.share = max(1, size // messages)
        self.low = max(1, messages // 4)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, position: int) -> bool:
        return position in self._known

    def room(self) -> int:
        """For how many more there is credit; for one at least while there is none."""
        known = len(self._known)
        room = min(self._messages - known, (self._size - self._bytes) // self.share)
        return room if known else max(1, room)

    def add(self, position: int, reply: bytes, size: int) -> None:
        """One was handed over: the subject to settle it by, and its bytes."""
        self._known[position] = (reply, size)
        self._bytes += size

    def renew(self, position: int, reply: bytes) -> bool:
        """One has come again, and is settled by another subject; False if it is not known."""
        known = self._known.get(position)
        if known is None:
            return False
        self._known[position] = (reply, known[1])
        return True

    def pop(self, position: int) -> bytes | None:
        """One is settled: the subject to say so by, or None if it is not known."""
        known = self._known.pop(position, None)
        if known is None:
            return None
        self._bytes -= known[1]
        return known[0]

    def replies(self) -> Iterator[bytes]:
        """The subjects by which they are settled."""
        return (reply for reply, _ in self._known.values())

    def clear(self) -> None:
        """None is."""
        self._known.clear()
        self._bytes = 0
