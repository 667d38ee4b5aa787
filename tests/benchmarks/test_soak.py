"""Any of what presses, for a given time."""

import io
import sys

import pytest
from rich.console import Console

from benchmarks.soak import Figures, Soak, soak
from benchmarks.soak_page import soak_laws, soak_part
from benchmarks.soak_record import Record, clock, figure
from benchmarks.soak_view import SoakView, sparks
from benchmarks.soak_watch import watch_soak
from benchmarks.stress import main
from benchmarks.workload import Failed

ROUND = {"messages": 100, "messages/s": 5000.0, "missing": 0, "violations": 0, "memory, MiB": 50.0}


@pytest.fixture
def record():
    found = Record()
    for number in range(40):
        found.add(10.0 * number, {**ROUND, "memory, MiB": 50 + number / 10})
    return found


def test_a_record_adds_up_what_is_counted_and_keeps_the_course_of_the_rest(record):
    assert record.sums == {"messages": 4000}
    found = record.summary()
    assert (found["memory, MiB"]["first"], found["memory, MiB"]["last"]) == (50, 53.9)
    assert found["messages/s"]["median"] == 5000


def test_the_look_that_is_taken_afterwards_is_no_round(record):
    record.add(400.0, {"left behind": 2})
    entry = record.entry("pressure", "pressure")
    assert entry["rounds"] == 40
    assert not soak_laws(entry)["never: left behind"]
    assert "40 rounds" in soak_part(entry)
    assert "round 40:" in SoakView(Console(), "pressure", 400, record).line()


def test_a_slope_is_by_hour_and_of_the_second_half(record):
    rise = record.summary()["memory, MiB"]
    assert rise["per_hour"] == pytest.approx(36)  # 0.1 in 10 seconds
    early = Record()
    for number in range(40):
        early.add(10.0 * number, {"memory, MiB": min(50 + number, 60)})
    assert early.summary()["memory, MiB"]["per_hour"] == pytest.approx(0)


def test_memory_that_rises_breaks_a_law_once_it_was_watched_long_enough(record):
    entry = record.entry("pressure", "pressure")
    assert [name for name, held in soak_laws(entry).items() if not held] == [
        "memory is flat: at most three standard errors, or 1 MiB an hour"
    ]
    entry["seconds"] = 100
    assert all(soak_laws(entry).values())


@pytest.mark.parametrize("what", ["missing", "violations"])
def test_one_bad_round_breaks_a_law(record, what):
    record.add(400.0, {what: 1})
    assert not soak_laws(record.entry("pressure", "pressure"))[f"never: {what}"]


def test_a_page_tells_the_course_of_every_figure(record):
    text = soak_part(record.entry("pressure, envelopes", "pressure"))
    assert "## Soak: pressure, envelopes" in text
    assert "6:30" in text
    assert "+36.00 ± 0.00" in next(line for line in text.splitlines() if "memory, MiB" in line)


def test_a_course_is_drawn_from_its_least_to_its_most():
    assert sparks([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
    assert sparks([5, 5, 5]) == "▁▁▁"
    assert len(sparks(range(1000))) == 24
    assert sparks([]) == ""


def test_a_screen_shows_every_figure_and_a_file_gets_lines(record):
    out = io.StringIO()
    with SoakView(Console(file=out, width=120), "pressure", 400, record) as view:
        view.redraw()
        view.redraw()
    assert out.getvalue().count("round 40: messages/s 5,000") == 1
    screen = Console(file=io.StringIO(), width=120, record=True)
    screen.print(SoakView(screen, "pressure", 400, record).frame())
    shown = screen.export_text()
    for words in ("pressure", "0:00 of 6:40, 40 rounds, 4,000 messages", "memory, MiB"):
        assert words in shown


def test_times_and_figures_are_readable():
    assert [clock(seconds) for seconds in (5, 65, 3661)] == ["0:05", "1:05", "1:01:01"]
    assert [figure(value) for value in (0, 3.14159, 12345.6)] == ["0", "3.14", "12,346"]


@pytest.mark.parametrize("what", ["pressure", "leaks"])
async def test_a_soak_tells_of_its_rounds_until_its_time_is_over(what):
    told: list[Figures] = []
    plan = Soak(what, 0.2, 200, medium="memory", transport="memory")
    await soak(plan, "memory://", told.append)
    assert told
    assert all(one.get("missing", 0) == one.get("left behind", 0) == 0 for one in told)


def test_the_command_reports_what_was_done(capsys):
    main(["soak", "pressure", "--for", "0.2s", "--medium", "memory", "--messages", "200"])
    out = capsys.readouterr().out
    assert "python -m benchmarks soak pressure --for 0.2s" in out
    assert "## Soak: pressure, envelopes" in out


@pytest.mark.parametrize("words", ["soon", "0", "-1m", "-5", "inf", "nan", "s"])
def test_a_time_that_is_none_is_refused(words, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["soak", "leaks", f"--for={words}"])
    assert refused.value.code == 2
    assert f"--for: {words!r} is no time like 90, 90s, 10m or 2h" in capsys.readouterr().err


async def test_a_soak_whose_process_fails_says_so_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(Failed, match="the process that soaked ended with 1"):
        await watch_soak(Soak("leaks", 0.2, 1, transport="memory"), "memory://")
