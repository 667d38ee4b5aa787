"""A soak on a screen: how long it has run, and the course of every figure.

On a terminal one frame is drawn anew; in a file there is a line now and then.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .soak_record import NEVER, Record, clock, figure

SPARKS = "▁▂▃▄▅▆▇█"

WIDTH = 24
"""Characters of a course."""

LINE_EVERY = 10.0
"""Seconds between two lines, where there is no terminal."""


class SoakView:
    """Shows a record while it grows; a context manager.

    Args:
        console: where.
        title: of what is done.
        seconds: how long that will take.
    """

    def __init__(self, console: Console, title: str, seconds: float, record: Record) -> None:
        self._console = console
        self._title = title
        self._seconds = seconds
        self._record = record
        self._began = time.monotonic()
        self._said = -LINE_EVERY
        self._live: Live | None = None

    def __enter__(self) -> SoakView:
        if self._console.is_terminal:
            self._live = Live(self.frame(), console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self.frame(), refresh=True)
            self._live.stop()

    def redraw(self) -> None:
        """Show how far it is."""
        if self._live is not None:
            self._live.update(self.frame(), refresh=True)
        elif self._record.at and self.elapsed() - self._said >= LINE_EVERY:
            self._said = self.elapsed()
            self._console.print(self.line(), soft_wrap=True)

    def elapsed(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._began

    def line(self) -> str:
        """All figures' last values, in one line."""
        last = ", ".join(
            f"{name} {figure(self._record.values(name)[-1])}" for name in self._record.courses
        )
        return f"{clock(self.elapsed())}  round {self._record.rounds:,}: {last}"

    def frame(self) -> RenderableType:
        """What is drawn."""
        elapsed = self.elapsed()
        sums = ", ".join(f"{figure(n)} {name}" for name, n in self._record.sums.items())
        head = Text.assemble(
            (f"  {self._title}\n", "bold"),
            f"  {clock(elapsed)} of {clock(self._seconds)}, {self._record.rounds:,} rounds",
            f", {sums}" if sums else "",
        )
        bar = ProgressBar(total=self._seconds, completed=min(elapsed, self._seconds), width=60)
        table = Table(box=None, padding=(0, 2))
        table.add_column("", justify="left")
        for name in ("last", "median", "least", "most", "± / hour"):
            table.add_column(name, justify="right")
        table.add_column("course", justify="left")
        for name, found in self._record.summary().items():
            bad = name in NEVER and found["max"] > 0
            rise = f"{found['per_hour']:+,.2f}" if "per_hour" in found else ""
            table.add_row(
                name,
                *(figure(found[of]) for of in ("last", "median", "min", "max")),
                rise,
                sparks(self._record.values(name)),
                style="bold red" if bad else None,
            )
        return Group(head, bar, table)


def sparks(values: Sequence[float], width: int = WIDTH) -> str:
    """The course of some values as one line of blocks, the last on the right."""
    count = min(width, len(values))
    if not count:
        return ""
    edges = [round(number * len(values) / count) for number in range(count + 1)]
    means = [sum(values[begin:end]) / (end - begin) for begin, end in pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return SPARKS[0] * count
    return "".join(
        SPARKS[min(len(SPARKS) - 1, int((mean - low) / (high - low) * len(SPARKS)))]
        for mean in means
    )
