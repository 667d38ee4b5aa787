"""The last lines that a server wrote: bounded, printable, and without its secrets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

_LINES = 20
_LINE_BYTES = 500


class LastLines:
    """Takes a log in pieces of any size and keeps its end.

    Args:
        hide: texts that are not to be seen in it.
    """

    def __init__(self, hide: Iterable[str] = ()) -> None:
        self._hide = tuple(hide)
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._partial = b""

    def feed(self, data: bytes) -> None:
        """Take what was written next."""
        *complete, partial = (self._partial + data).split(b"\n")
        for line in complete[-_LINES:]:
            self._add(line)
        # A line longer than this is cut when it is shown. More of it is kept here, so
        # that a secret that lies across the cut is still known for what it is.
        self._partial = partial[: 4 * _LINE_BYTES]

    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first; one that was not ended counts as a line."""
        if not self._partial.strip():
            return tuple(self._lines)
        return (*self._lines, self._shown(self._partial))[-_LINES:]

    def _add(self, line: bytes) -> None:
        if line.strip():
            self._lines.append(self._shown(line))

    def _shown(self, line: bytes) -> str:
        text = line.decode(errors="replace").rstrip()
        for secret in self._hide:
            text = text.replace(secret, "***")
        # What a server logs may come from a client: no escape sequence reaches a terminal.
        return "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode()
            for char in text[:_LINE_BYTES]
        )
