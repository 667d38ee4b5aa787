"""`tbus bench`: what it publishes, what it sees, what it leaves behind, and how it looks."""

from __future__ import annotations

import io
import json
import signal
import socket

import attrs
import pytest
from rich.text import Text

from tbus.cli._bench_events import Events, Latency, Meter, Observer, Throughput
from tbus.cli._bench_report import Report
from tbus.cli._bench_view import STEPS, View
from tests.cli.kit import send, started
from tests.cli.test_demo_view import Terminal, make_console

SMALL = ("bench", "--seconds", "0.05", "--publishers", "4", "--keys", "7")

LATENCY = Latency(100, 0.001, 0.0025, 0.0123)
GOOD = Report(
    address="nats://127.0.0.1:4222",
    settings={},
    versions={},
    round_trip=LATENCY,
    publish=Throughput(6000, 0.1, LATENCY),
    pipelined=Throughput(9000, 0.1),
    consume=Throughput(9000, 0.125),
    one_by_one=LATENCY,
    loaded=LATENCY,
    load=20_000.0,
)

# --- what is published, and who checks it ------------------------------------------------


@pytest.mark.parametrize(("size", "keys"), [(200, 1), (256, 1000), (1000, 3)])
def test_every_event_has_the_size_that_was_asked_for(size, keys):
    events = Events(size, keys)
    assert {len(next(events).encode()) for _ in range(2500)} == {size}


def test_keys_come_in_turn_and_an_event_knows_its_number():
    events = Events(256, 3)
    found = [next(events) for _ in range(7)]
    assert [event.aggregate_id for event in found[:4]] == ["key-0", "key-1", "key-2", "key-0"]
    assert [event.event_version for event in found] == [1, 1, 1, 2, 2, 2, 3]
    assert [events.number(event) for event in found] == list(range(7))


def test_the_observer_tells_what_comes_again_from_what_comes_too_early():
    observer = Observer()
    for key, version in [("a", 1), ("b", 1), ("a", 1), ("a", 3), ("a", 2), ("b", 2)]:
        observer.see(key, version)
    assert (observer.handled, observer.distinct) == (6, 4)
    assert (observer.repeated, observer.overtaken) == (2, 1)


def test_percentiles_are_of_what_was_measured():
    found = Latency.of([number / 1000 for number in range(100, 0, -1)])
    assert found == Latency(100, 0.051, 0.1, 0.1)
    assert Latency.of([]) is None


def test_a_rate_is_of_the_last_second():
    meter = Meter(0)
    meter.count = 100
    assert meter.rate(0.5) == 200
    assert meter.rate(1.0) == 100
    meter.count = 150
    assert meter.rate(2.0) == 50


# --- runs --------------------------------------------------------------------------------


def test_a_run_in_memory_measures_everything_and_ends_with_0(call):
    code, out, err = call(*SMALL, "--backend", "memory", "--json")
    found = json.loads(out)
    assert (code, err, found["faults"]) == (0, "", [])
    for name in ("publish", "pipelined", "consume"):
        assert found[name]["rate"] > 0
    for name in ("round_trip", "one_by_one", "loaded"):
        assert 0 <= found[name]["p50"] <= found[name]["p99"] <= found[name]["max"]
    assert found["consume"]["events"] == found["pipelined"]["events"]
    assert (found["missing"], found["repeated"], found["overtaken"]) == (0, 0, 0)
    assert found["settings"]["keys"] == 7
    assert found["versions"]["trio"]


def test_for_people_it_prints_a_row_for_each_measurement(call):
    code, out, _ = call(*SMALL, "--backend", "memory")
    assert code == 0
    assert "publish, 4 at once" in out
    assert "nothing is left behind" in out
    assert "\x1b" not in out


def test_it_touches_no_topic_but_its_own_and_removes_those(call, nats_server):
    url = ("--url", nats_server.url)
    call("pub", "orders", "hello", "--key", "k", *url)
    code, out, err = call(*SMALL, "--json", *url)
    assert (code, err, json.loads(out)["left_topics"]) == (0, "", [])
    assert call("topics", *url) == (0, "orders\n", "")
    _, out, _ = call("sub", "orders", "--start", "earliest", "--count", "1", *url)
    assert out.endswith("0:1  k  hello\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.broker
def test_a_signal_ends_it_and_it_leaves_no_topic(call, nats_server, number):
    with started("bench", "--seconds", "30", "--url", nats_server.url) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "round trip" in line:  # what comes next makes the topics, and lasts
                break
        while not call("topics", "--url", nats_server.url)[1]:
            pass
        send(process, number)
        out, err = process.communicate(timeout=40)
    assert (process.returncode, err) == (128 + number, "")
    assert "Ended by the user" in out
    assert call("topics", "--url", nats_server.url) == (0, "", "")


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_signal_before_the_bus_is_open_leaves_no_verdict_on_what_was_not_measured(more):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        with started("bench", "--url", url, *more) as process:
            connection, _ = silent.accept()
            with connection:
                send(process, signal.SIGINT)
                out, err = process.communicate(timeout=40)
    assert (process.returncode, err) == (130, "")
    if more:
        found = json.loads(out)
        assert (found["signal"], found["exit_code"]) == (signal.SIGINT, 130)
    else:
        assert "Ended by the user before anything was measured" in out
        assert "Every event was handled" not in out


def test_a_measurement_without_a_figure_is_a_fault(call):
    code, out, err = call(
        "bench", "--backend", "memory", "--seconds", "0.01", "--publishers", "20000"
    )
    assert (code, err) == (1, "")
    assert "✗ publish, 20000 at once\n" in out
    assert "no figures: publish: give each more --seconds" in out
    assert "Every event was handled" not in out


def test_a_reader_that_has_gone_ends_it_without_a_word():
    with started("bench", "--backend", "memory", "--seconds", "0.3") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
    assert (process.returncode, err) == (128 + signal.SIGPIPE, "")


def test_a_broker_that_is_not_there_is_one_line_and_1(call):
    code, out, err = call("bench", "--json", "--url", "nats://127.0.0.1:1")
    assert (code, out) == (1, "")
    assert err.startswith("tbus: cannot connect")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backend", "memory", "--url", "memory://"), "--backend"),
        (("--backend", "rabbit"), "--backend"),
        (("--size", "10"), "--size"),
        (("--seconds", "0"), "--seconds"),
        (("--seconds", "nan"), "--seconds"),
        (("--publishers", "0"), "--publishers"),
        (("orders",), "unexpected"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_wrong(call, arguments, said):
    code, out, err = call("bench", *arguments)
    assert (code, out) == (2, "")
    assert said in err


# --- reports -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({"missing": 1}, 1),
        ({"overtaken": 1}, 1),
        ({"repeated": 1}, 0),  # at least once is what was promised
        ({"left_topics": ["tbus-bench-1"]}, 1),
        ({"signal": signal.SIGINT}, 130),
        ({"signal": signal.SIGINT, "loaded": None}, 130),
        ({"loaded": None}, 1),
        ({"publish": Throughput(0, 0.1)}, 1),
        ({"consume": Throughput(1, 0.0)}, 1),
        ({"signal": signal.SIGINT, "missing": 1}, 1),
    ],
)
def test_the_exit_code_says_whether_the_figures_count(change, code):
    assert attrs.evolve(GOOD, **change).exit_code() == code
    assert json.loads(json.dumps(attrs.evolve(GOOD, **change).as_json()))["exit_code"] == code


# --- views -------------------------------------------------------------------------------


def draw(view: View, report: Report = GOOD) -> None:
    view.head("tbus bench", "nats://127.0.0.1:4222")
    for step in STEPS:
        meter = Meter(0)
        view.begin(step, meter, 100 if step == "consume" else None)
        meter.count = 50
        view.redraw()
        view.done(step, report)
    view.end()
    view.summary(report)


async def test_a_terminal_gets_a_frame_that_is_gone_at_the_end():
    file = Terminal()
    draw(View(make_console(file), 100))
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h") == 1


async def test_a_file_gets_rows_that_fit_a_terminal_and_not_one_escape_sequence():
    file = io.StringIO()
    draw(View(make_console(file), 100))
    assert "\x1b" not in file.getvalue()
    assert all(len(line) <= 80 for line in file.getvalue().splitlines())
    assert "publish, 100 at once            60 000       1.00       2.50      12.30" in (
        file.getvalue()
    )


async def test_a_fault_is_said_in_words():
    file = io.StringIO()
    draw(View(make_console(file), 100), attrs.evolve(GOOD, missing=3, repeated=2))
    assert "3 events were stored and not handled in time" in file.getvalue()
    assert "2 were delivered more than once" in file.getvalue()
    assert "nothing is left behind" not in file.getvalue()


async def test_an_encoding_without_marks_gets_plain_ones():
    class Latin(io.StringIO):
        encoding = "latin-1"

    file = Latin()
    draw(View(make_console(file), 100))
    file.getvalue().encode("latin-1")


async def test_ending_twice_or_without_a_beginning_is_fine():
    view = View(make_console(Terminal()), 100)
    view.end()
    draw(view)
    view.end()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
async def test_every_figure_is_shown_however_narrow_the_terminal(width):
    file = Terminal()
    draw(View(make_console(file, width), 100))
    shown = Text.from_ansi(file.getvalue()).plain
    for told in ("60 000", "90 000", "72 000", "20 000", "1.00", "2.50", "12.30"):
        assert told in shown
    plain = io.StringIO()
    draw(View(make_console(plain, width), 100))
    rows = plain.getvalue().partition("round trip")[2].partition("Every event")[0]
    assert all(len(line) <= width for line in rows.splitlines())
    assert "…" not in rows
