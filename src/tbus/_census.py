"""What a bus holds now."""

from __future__ import annotations

from collections import Counter

import attrs

from ._transport import Holding


@attrs.frozen
class Census:
    """Every task, thread, connection, process and lease that a bus holds.

    Attributes:
        holdings: one entry for each.
    """

    holdings: tuple[Holding, ...]

    def count(self, kind: str | None = None) -> int:
        """How many there are, of one kind or of all."""
        return sum(1 for holding in self.holdings if kind in (None, holding.kind))

    def roles(self) -> Counter[str]:
        """How many there are of each role."""
        return Counter(holding.role for holding in self.holdings)

    def __str__(self) -> str:
        lines = [
            f"{h.kind:<10} {h.role:<20} {h.topic or '-':<20} {h.waits_for or '-':<20}"
            f" {h.age:8.1f} s"
            for h in self.holdings
        ]
        return "\n".join(lines) or "nothing"
