"""The demo on a screen: a line for each step, a frame while it works, a summary.

Only a terminal that can move its cursor gets the frame, redrawn when `redraw` is called and
never by a thread of its own: the demo counts threads. Where a window changes its width, the
terminal breaks what is drawn into other lines than were counted; so then all is drawn anew.
"""

from __future__ import annotations

import errno
import textwrap
from collections import deque

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ._demo_plan import Plan
from ._demo_report import Report, figure
from ._demo_tally import Tally

WIDEST = 92
"""Columns that are used, however many there are."""

_NAMES = 32
"""Columns of the names in the summary; what is said of them is up to 48 wide."""

_TOOK = 46
"""Columns before the time that a step took."""

_SPARKS = "▁▂▃▄▅▆▇█"


class _Console(Console):
    """One whose reader may go: rich would end the program where it stands, with a code of its
    own, in the midst of whatever has to be cleaned up."""

    def on_broken_pipe(self) -> None:
        """Raise what it was."""
        raise BrokenPipeError(errno.EPIPE, "whoever read this has gone")


def make_console() -> Console:
    """A console for stdout, which heeds NO_COLOR and TERM."""
    return _Console(highlight=False, markup=False, emoji=False)


class View:
    """An audience that looks at a terminal, or reads a file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._tally: Tally
        self._plan: Plan
        self._said: list[RenderableType] = []
        self._rates: deque[float] = deque(maxlen=24)
        self._size = console.size
        self._unicode = console.encoding.lower().startswith("utf")
        self._can_move = console.file.isatty() and not console.is_dumb_terminal

    def head(self, *lines: str) -> None:
        """What this is."""
        first, *rest = lines
        self._print(Text())
        self._print(Text(f"  {first}", style="bold"))
        for line in rest:
            self._print(Text(f"  {line}", style="dim"))
        self._print(Text())

    def say(self, text: str, seconds: float | None = None) -> None:
        """One thing is done, and took so long."""
        took = "" if seconds is None else f" {seconds * 1000:6.0f} ms"
        line = Text.assemble("  ", self._mark(True), f" {text}")
        line.pad_right(max(0, _TOOK - line.cell_len) if took else 0)
        line.append(took, style="dim")
        self._print(line)

    def begin(self, tally: Tally, plan: Plan) -> None:
        """The work begins."""
        self._tally, self._plan = tally, plan
        if self._can_move:
            self._start()

    def redraw(self) -> None:
        """Show how far it is."""
        self._rates.append(self._tally.rate())
        if self._live is None:
            return
        if self._console.size != self._size:
            self.end()
            self._console.clear()
            for line in self._said:
                self._console.print(line)
            self._start()
        else:
            self._live.update(self._frame(), refresh=True)

    def end(self) -> None:
        """The work has ended: the frame goes, the cursor comes back."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def summary(self, report: Report) -> None:
        """What was found out."""
        self._console.print(self._summary(report))

    def _start(self) -> None:
        self._size = self._console.size
        self._live = Live(self._frame(), console=self._console, auto_refresh=False, transient=True)
        self._live.start(refresh=True)

    def _print(self, line: RenderableType) -> None:
        self._said.append(line)
        self._console.print(line)

    def _mark(self, held: bool | None) -> tuple[str, str]:
        marks = "✓✗·" if self._unicode else "+!-"
        if held is None:
            return marks[2], "yellow"
        return (marks[0], "green") if held else (marks[1], "bold red")

    # The frame

    @property
    def _width(self) -> int:
        return min(self._console.width, WIDEST)

    def _frame(self) -> RenderableType:
        tally, planned = self._tally, self._tally.planned
        bars = self._grid()
        done = len(tally.handled)
        self._bar(bars, "published", tally.acknowledged, planned, "cyan")
        self._bar(bars, "handled", done, planned, "green")
        topics = self._grid()
        room = max(0, self._console.height - len(self._said) - 9)
        totals = self._totals()
        shown = self._plan.topics if len(totals) <= room else self._plan.topics[: max(0, room - 1)]
        for topic in shown:
            self._bar(topics, topic, tally.by_topic[topic], totals[topic], "blue")
        if hidden := len(totals) - len(shown):
            topics.add_row(Text(f"and {hidden} more", style="dim"), "", "")
        return (
            Padding(
                Group(Text(), bars, Text(), self._figures(), Text(), topics),
                (0, 2),
            )
            if self._console.height > 12
            else Padding(Group(bars, self._figures()), (0, 2))
        )

    def _totals(self) -> dict[str, int]:
        totals = dict.fromkeys(self._plan.topics, 0)
        for share in self._plan.shares:
            for order in share:
                totals[order.topic] += 1
        return totals

    def _grid(self) -> Table:
        grid = Table.grid(padding=(0, 2, 0, 0), expand=False)
        grid.width = self._width - 4
        grid.add_column(width=min(24, max(10, *map(len, self._plan.topics))), no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True, width=len(figure(self._tally.planned)))
        return grid

    def _bar(self, grid: Table, name: str, done: int, total: int, style: str) -> None:
        grid.add_row(
            Text(name, overflow="ellipsis"),
            ProgressBar(
                total or 1, min(done, total or 1), complete_style=style, finished_style=style
            ),
            figure(done),
        )

    def _figures(self) -> Text:
        tally = self._tally
        rate = self._rates[-1] if self._rates else 0.0
        text = Text.assemble(
            (figure(rate), "bold"), " events/s ", (self._sparks(), "green"),
            "   ", (str(tally.retries), "bold"), " retries",
            "   ", (str(tally.tasks), "bold"), " tasks",
            "   ", (str(tally.running), "bold"), " running",
        )  # fmt: skip
        if tally.violations:
            text.append(f"   {figure(tally.violations)} out of order", style="bold red")
        text.append(f"   {trio.current_time() - tally.started:.1f} s", style="dim")
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def _sparks(self) -> str:
        if not self._unicode:
            return ""
        rates = list(self._rates)[-max(4, min(24, self._width - 64)) :]
        highest = max(rates, default=0.0) or 1.0
        return "".join(_SPARKS[int(rate / highest * (len(_SPARKS) - 1))] for rate in rates)

    # The summary

    def _summary(self, report: Report) -> RenderableType:
        early = "" if report.signal is None else "ended early: "
        head = Text.assemble(
            "  ",
            (f"{early}{figure(report.handled)} events handled in {report.seconds:.1f} s", "bold"),
            "   ",
            # One that breaks at the end of a narrow line breaks whole.
            (f"{figure(report.events_per_second)}\N{NO-BREAK SPACE}events/s", "bold green"),
        )
        lines = [Text(), head, Text()]
        for promise in report.promises():
            style = "bold red" if promise.held is False else ""
            lines += self._row(self._mark(promise.held), promise.text, promise.evidence, style)
        lines.append(Text())
        at_rest = f"{report.peak_tasks}, Trio and client loop; {report.tasks_at_rest} at rest"
        for name, fact in (
            ("retries, in their place", figure(report.retries)),
            ("duplicates", figure(report.duplicates)),
            ("most tasks at once", at_rest),
        ):
            lines += self._row((" ", ""), name, fact)
        return Group(*lines, Text(), self._verdict(report), Text())

    def _row(self, mark: tuple[str, str], name: str, fact: str, style: str = "") -> list[Text]:
        """A name and what is said of it, beside it or below, in lines without an end of spaces."""
        if not self._unicode:
            fact = fact.replace("→", ">")
        column = _NAMES if self._width >= _NAMES + 48 else 6
        facts = textwrap.wrap(fact, max(20, self._width - column)) or [""]
        first = Text.assemble("  ", mark, " ", (name, style))
        if column == _NAMES:
            first.pad_right(column - first.cell_len)
            first.append(facts.pop(0), style=style or "dim")
        return [first, *(Text(" " * column + fact, style=style or "dim") for fact in facts)]

    def _verdict(self, report: Report) -> Text:
        broken = report.broken()
        if broken:
            count = "1 promise" if len(broken) == 1 else f"{len(broken)} promises"
            names = ", ".join(promise.text for promise in broken)
            return Text(f"  {count} broken: {names}", style="bold red")
        if report.signal is not None:
            return Text("  Ended by the user; what was promised held until then.", style="yellow")
        return Text("  Every promise held.", style="bold green")
