"""The demo on terminals of all kinds: real frames, drawn into a string."""

from __future__ import annotations

import io

import attrs
import pytest
from rich.console import Console

from tbus.cli._demo_plan import make_plan
from tbus.cli._demo_tally import Tally
from tbus.cli._demo_view import View
from tests.census import count
from tests.cli.kit import GOOD


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def make_console(file: io.StringIO, width: int = 80, height: int = 24, **environment: str):
    return Console(
        file=file,
        width=width,
        height=height,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={"TERM": "xterm-256color", **environment},
    )


def draw(view: View, frames: int = 2, topics: int = 5) -> Tally:
    tally = Tally(1000)
    view.head("tbus demo", "1 000 orders")
    view.say("server started", 0.012)
    view.begin(tally, make_plan(events=1000, customers=50, topics=topics, seed=1))
    for _ in range(frames):
        tally.completed("orders.eu", "customer-1", 1, "a")
        view.redraw()
    return tally


async def test_a_terminal_gets_a_frame_that_is_gone_at_the_end():
    file = Terminal()
    view = View(make_console(file))
    draw(view)
    assert "published" in file.getvalue()
    assert "events/s" in file.getvalue()
    assert "\x1b[?25l" in file.getvalue()
    view.end()
    assert file.getvalue().rstrip().endswith("\x1b[2K"), "the frame is not cleared"
    assert file.getvalue().count("\x1b[?25h") == 1, "the cursor does not come back"


async def test_a_file_gets_lines_and_not_one_escape_sequence():
    file = io.StringIO()
    view = View(make_console(file))
    draw(view)
    view.end()
    view.summary(GOOD)
    assert "\x1b" not in file.getvalue()
    assert "published" not in file.getvalue()
    assert "server started" in file.getvalue()
    assert "Every promise held." in file.getvalue()
    assert all(line == line.rstrip() for line in file.getvalue().splitlines())


async def test_a_file_gets_no_frame_even_where_colours_are_forced():
    file = io.StringIO()
    view = View(make_console(file, FORCE_COLOR="1"))
    draw(view)
    view.end()
    assert "published" not in file.getvalue()
    assert "\x1b[?25l" not in file.getvalue()


async def test_a_dumb_terminal_gets_no_frame_and_no_escape_sequence():
    file = Terminal()
    view = View(make_console(file, TERM="dumb"))
    draw(view)
    view.end()
    view.summary(GOOD)
    assert "\x1b" not in file.getvalue()
    assert "published" not in file.getvalue()


async def test_no_color_means_none():
    file = Terminal()
    view = View(make_console(file, NO_COLOR="1"))
    draw(view)
    view.end()
    view.summary(attrs.evolve(GOOD, violations=1))
    for code in range(30, 38):
        assert f"\x1b[{code}m" not in file.getvalue()
        assert f";{code}m" not in file.getvalue()


@pytest.mark.parametrize("size", [(100, 30), (80, 24), (60, 24), (40, 12), (20, 5)])
async def test_no_frame_is_wider_or_higher_than_the_terminal(size):
    width, height = size
    file = Terminal()
    console = make_console(file, width, height)
    view = View(console)
    draw(view, topics=40)
    lines = console.render_lines(view._frame())
    assert max(sum(part.cell_length for part in line) for line in lines) <= width
    assert len(lines) <= height
    view.end()


async def test_a_resize_draws_everything_anew():
    file = Terminal()
    console = make_console(file)
    view = View(console)
    draw(view)
    before = len(file.getvalue())
    console.size = (50, 20)
    view.redraw()
    _, cleared, after = file.getvalue()[before:].partition("\x1b[2J")
    assert cleared, "what the terminal broke into other lines is still there"
    assert after.index("server started") < after.index("published")
    view.redraw()
    assert file.getvalue().count("\x1b[2J") == 1, "cleared again without a reason"
    view.end()


async def test_drawing_starts_no_thread():
    before = count()
    view = View(make_console(Terminal()))
    draw(view)
    assert count().beyond(before) == []
    view.end()


async def test_an_encoding_without_marks_gets_plain_ones():
    class Latin(io.StringIO):
        encoding = "latin-1"

    file = Latin()
    view = View(make_console(file))
    draw(view)
    view.end()
    view.summary(GOOD)
    file.getvalue().encode("latin-1")
    assert "+ nothing left behind" in file.getvalue()


async def test_a_broken_promise_is_said_in_words():
    file = io.StringIO()
    View(make_console(file)).summary(
        attrs.evolve(GOOD, violations=2, examples=("customer-1 had version 2 after 3",))
    )
    assert "✗ order per customer held" in file.getvalue()
    assert "customer-1 had version 2 after 3" in file.getvalue().replace("\n" + " " * 32, " ")
    assert "1 promise broken: order per customer held" in file.getvalue()
    assert "Every promise held" not in file.getvalue()


async def test_ending_twice_or_without_a_beginning_is_fine():
    view = View(make_console(Terminal()))
    view.end()
    draw(view)
    view.end()
    view.end()
