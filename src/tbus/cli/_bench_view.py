"""`tbus bench` on a screen: a row for each measurement, and a frame while it runs.

Only a terminal that can move its cursor gets the frame; it is redrawn when `redraw` is called.
"""

from __future__ import annotations

from collections import deque

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ._bench_events import Latency, Meter
from ._bench_report import Report
from ._demo_report import figure
from ._stacked import stacked

STEPS = {
    "round_trip": "round trip to the broker",
    "publish": "publish, {publishers} at once",
    "pipelined": "publish, pipelined",
    "consume": "consume, in key order",
    "one_by_one": "end to end, one by one",
    "loaded": "end to end, at half load",
}
"""Every measurement in words."""

_NAME, _RATE, _TIME = 26, 12, 11
"""Columns of a row: its name, events a second, and each of three times."""

_ROW = len("  ✓ ") + _NAME + _RATE + 3 * _TIME
"""Columns of a whole row."""

_SPARKS = "▁▂▃▄▅▆▇█"


class View:
    """An audience that looks at a terminal, or reads a file."""

    def __init__(self, console: Console, publishers: int) -> None:
        self._console = console
        self._names = {step: name.format(publishers=publishers) for step, name in STEPS.items()}
        self._live: Live | None = None
        self._step = ""
        self._meter = Meter(0)
        self._expected: float | None = None
        self._begun = 0.0
        self._rates: deque[float] = deque(maxlen=20)
        self._unicode = console.encoding.lower().startswith("utf")
        self._can_move = console.file.isatty() and not console.is_dumb_terminal

    def head(self, *lines: str) -> None:
        """What this is."""
        first, *rest = lines
        self._console.print()
        self._console.print(Text(f"  {first}", style="bold"))
        for line in rest:
            self._console.print(Text(f"  {line}", style="dim"))
        self._console.print()
        if not self._narrow():
            self._print(self._row("", "events/s", *_titles(", ms"), mark=" ", style="dim"))

    # The work, while it goes on

    def begin(self, step: str, meter: Meter, expected: float | None) -> None:
        """A measurement begins."""
        self._step, self._meter, self._expected = step, meter, expected
        self._begun = trio.current_time()
        self._rates.clear()
        if self._can_move and self._live is None:
            self._live = Live(
                self._frame(), console=self._console, auto_refresh=False, transient=True
            )
            self._live.start(refresh=True)

    def done(self, step: str, report: Report) -> None:
        """It has ended: its row."""
        rate, latency = _found(step, report)
        told = figure(rate) if rate else ""
        marks = "✓✗" if self._unicode else "+x"
        mark = marks[step not in report.measured()]
        if self._narrow():
            for line in self._stack(self._names[step], told, _times(latency), mark):
                self._print(line)
        else:
            self._print(self._row(self._names[step], told, *_times(latency), mark=mark))

    def redraw(self) -> None:
        """Show how far it is."""
        if self._live is not None:
            self._live.update(self._frame(), refresh=True)

    def end(self) -> None:
        """The work has ended: the frame goes, the cursor comes back."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def summary(self, report: Report) -> None:
        """Whether the figures count."""
        self._console.print()
        for fault in report.faults():
            self._console.print(Text(f"  {fault}", style="bold red"))
        if not report.faults():
            self._console.print(self._verdict(report))
        if report.repeated:
            self._console.print(
                Text(f"  {figure(report.repeated)} were delivered more than once.", style="yellow")
            )
        self._console.print()

    def _verdict(self, report: Report) -> Text:
        if report.signal is not None:
            when = "" if report.measured() else " before anything was measured"
            said = f"  Ended by the user{when}; nothing is left on the broker."
            return Text(said, style="yellow")
        return Text(
            "  Every event was handled, in the order of its key; nothing is left behind.",
            style="green",
        )

    # Drawing

    def _print(self, line: RenderableType) -> None:
        self._console.print(line, no_wrap=True, overflow="ellipsis")

    def _narrow(self) -> bool:
        return self._console.width < _ROW

    def _stack(self, name: str, rate: str, times: list[str], mark: str) -> list[Text]:
        facts = [Text(f"{rate} events/s", style="bold")] if rate else []
        facts += [Text(f"{title} {time} ms") for title, time in zip(_titles(), times, strict=False)]
        head = Text.assemble("  ", (mark, _colour(mark)), " ", name)
        return stacked(head, facts, self._console.width, indent=6)

    def _row(self, name: str, rate: str, *times: str, mark: str, style: str = "") -> Text:
        row = Text.assemble("  ", (mark, _colour(mark)), " ", (f"{name:<{_NAME}}", style))
        row.append(f"{rate:>{_RATE}}", style=style or "bold")
        for time in times:
            row.append(f"{time:>{_TIME}}", style=style)
        row.rstrip()
        return row

    def _frame(self) -> RenderableType:
        now = trio.current_time()
        rate = self._meter.rate(now)
        self._rates.append(rate)
        if self._narrow():
            name = Text(f"    {self._names.get(self._step, '')}")
            facts = [Text(f"{figure(rate)} /s", style="bold"), Text(f"{now - self._begun:.1f} s")]
            return Group(*stacked(name, facts, self._console.width, indent=6))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=_NAME, no_wrap=True)
        grid.add_column(width=_RATE - 2, justify="right", no_wrap=True)
        grid.add_column(width=22, no_wrap=True)
        grid.add_column(no_wrap=True)
        if self._expected:
            done = min(self._meter.count, self._expected)
            shown: RenderableType = ProgressBar(self._expected, done, width=20)
        else:
            shown = Text(self._sparks(), style="green")
        grid.add_row(
            Text(self._names.get(self._step, "")),
            Text(figure(rate), style="bold"),
            shown,
            Text(f"{now - self._begun:.1f} s", style="dim"),
        )
        return Padding(grid, (0, 2, 0, 4))

    def _sparks(self) -> str:
        if not self._unicode:
            return ""
        highest = max(self._rates, default=0.0) or 1.0
        return "".join(_SPARKS[int(rate / highest * 7)] for rate in self._rates)


def _colour(mark: str) -> str:
    return "red" if mark in "✗x" else "green"


def _titles(unit: str = "") -> list[str]:
    return [f"{title}{unit}" for title in ("p50", "p99", "max")]


def _found(step: str, report: Report) -> tuple[float | None, Latency | None]:
    """Events a second and latency, as far as the step has them."""
    match step:
        case "round_trip":
            return None, report.round_trip
        case "one_by_one":
            return None, report.one_by_one
        case "loaded":
            return report.load, report.loaded
    throughput = getattr(report, step)
    return throughput.rate, throughput.latency


def _times(latency: Latency | None) -> list[str]:
    if latency is None:
        return []
    return [f"{seconds * 1000:.2f}" for seconds in (latency.p50, latency.p99, latency.max)]
