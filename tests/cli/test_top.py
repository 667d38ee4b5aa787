"""`tbus top`: what it works out of two looks, what it asks a broker, and how it looks."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from datetime import UTC, datetime

import attrs
import pytest
from rich.console import Console

from tbus import Envelope, open_bus
from tbus._transport import Holding, PartitionLag
from tbus.cli._top_look import look, look_again
from tbus.cli._top_state import GroupState, Snapshot, TopicState
from tbus.cli._top_view import Look, Screen, draw
from tests.cli.kit import environment, send, started
from tests.cli.test_demo_view import Terminal, make_console


def group(name: str, *behind: int, owner: str | None = None) -> GroupState:
    return GroupState(
        name,
        tuple(PartitionLag(n, messages, None, owner) for n, messages in enumerate(behind)),
    )


def topic(name: str, end: int | None, *groups: GroupState) -> TopicState:
    return TopicState(name, end, groups)


BEFORE = Snapshot(
    10.0,
    (topic("orders", 100, group("bill", 5, 5), group("ship", 20)), topic("payments", 7)),
    (Holding("connection", "127.0.0.1:4222"),),
    0.0012,
)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# --- two looks ---------------------------------------------------------------------------


def test_rates_are_what_moved_between_two_looks():
    after = attrs.evolve(
        BEFORE,
        time=12.0,
        topics=(topic("orders", 160, group("bill", 0, 0), group("ship", 40)), topic("payments", 7)),
    ).since(BEFORE)
    orders, payments = after.topics
    bill, ship = orders.groups
    assert (orders.rate, payments.rate) == (30, 0)
    assert (bill.rate, bill.grows) == (35, -10)  # 60 came, and it is 10 less behind
    assert (ship.rate, ship.grows) == (20, 20)


def test_what_was_not_there_before_has_no_rate_yet():
    after = attrs.evolve(BEFORE, time=12.0, topics=(topic("new", 5, group("g", 1)),)).since(BEFORE)
    assert after.topics[0].rate is None
    assert after.topics[0].groups[0].rate is None
    assert BEFORE.since(None) is BEFORE


def test_a_topic_that_was_made_again_has_no_negative_rate():
    after = attrs.evolve(BEFORE, time=12.0, topics=(topic("orders", 3, group("ship", 0)),))
    found = after.since(BEFORE).topics[0]
    assert found.rate == 0
    assert found.groups[0].rate is not None
    assert found.groups[0].rate >= 0


def test_what_the_broker_does_not_tell_stays_unknown():
    unknown = Snapshot(12.0, (topic("orders", None, GroupState("bill", None)),))
    found = unknown.since(BEFORE).topics[0]
    assert (found.rate, found.groups[0].lag, found.groups[0].rate) == (None, None, None)


def test_topics_are_sorted_by_name_lag_or_rate():
    topics = (
        attrs.evolve(topic("a", 1, group("g", 1)), rate=5.0),
        attrs.evolve(topic("b", 1, group("g", 9), group("h", 0)), rate=0.0),
        attrs.evolve(topic("c", 1), rate=7.0),
    )
    found = Snapshot(0.0, topics[::-1])
    assert [one.name for one in found.sorted_by("name")] == ["a", "b", "c"]
    assert [one.name for one in found.sorted_by("lag")] == ["b", "a", "c"]
    assert [one.name for one in found.sorted_by("rate")] == ["c", "a", "b"]


def test_owners_are_told_once_each():
    parts = tuple(PartitionLag(n, 0, None, owner) for n, owner in enumerate(["b", "a", None, "b"]))
    assert GroupState("g", parts).owners == ["a", "b"]


# --- a broker ----------------------------------------------------------------------------


async def handle(_: object) -> None:
    pass


async def test_a_look_finds_topics_groups_and_lag_and_rates_with_the_next():
    async with open_bus("memory://top") as bus, open_bus("memory://top") as shop:
        await shop.subscribe("orders", handle, group="ship")
        for number in range(4):
            await shop.publish("orders", Envelope.new("k", "E", {"n": number}))
        await shop.configure_topic("empty")
        first = await look_again(bus, None, ())
        assert [one.name for one in first.topics] == ["empty", "orders"]
        await shop.publish("orders", b"x", key="k")
        second = await look_again(bus, first, ["orders"])
        [found] = second.topics
        assert [one.name for one in found.groups] == ["ship"]
        assert found.rate is not None
        assert found.rate > 0


@pytest.mark.broker
def test_once_over_nats_shows_groups_lag_and_owners_and_changes_nothing(call, nats_server):
    url = ("--url", nats_server.url)
    for number in range(5):
        call("pub", "orders", str(number), *url)
    call("pub", "payments", "x", *url)
    call("sub", "orders", "--group", "bill", "--count", "2", *url)
    with started("sub", "orders", "--group", "ship", *url) as process:
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        code, out, err = call("top", "--once", "--json", *url)
        assert (code, err) == (0, "")
        found = {one["topic"]: one for one in json.loads(out)["topics"]}
        bill, ship = found["orders"]["groups"]
        assert (bill["group"], bill["lag"], ship["group"]) == ("bill", 3, "ship")
        assert bill["partitions"][0]["owner"] is None
        assert ship["partitions"][0]["owner"]
        assert found["orders"]["rate"] == 0
        assert found["payments"]["groups"] == []
        _, out, _ = call("top", "payments", "--once", *url)
        assert "payments" in out
        assert "orders" not in out
        send(process, signal.SIGINT)
        process.communicate(timeout=30)
    assert call("lag", "orders", "bill", *url)[1].startswith("bill is 3 messages behind")
    assert json.loads(call("topics", "--json", *url)[1]) == ["orders", "payments"]


async def test_once_over_kafka_shows_groups_lag_and_owners(shared_kafka, topic, call):
    url = f"kafka://{shared_kafka.bootstrap}"
    async with open_bus(url) as bus:
        await bus.publish(topic, b"x", key="k")
        subscription = await bus.subscribe(topic, handle, group=f"{topic}.g")
        with_owner = await look(bus, [topic])
        await subscription.close()
        await bus.publish(topic, b"y", key="k")
        without = await look(bus, [topic])
        await bus.remove_topic(topic)
    [found] = with_owner.topics
    [one] = found.groups
    assert (found.end, one.name) == (1, f"{topic}.g")
    assert len(one.owners) == 1
    [one] = without.topics[0].groups
    assert one.lag is not None
    assert one.lag >= 1
    assert one.owners == []


async def test_a_broker_that_goes_away_is_told_and_the_last_look_stays(start_nats_server):
    server = start_nats_server()
    async with open_bus(server.url) as bus:
        await bus.publish("orders", b"x")
        first = await look_again(bus, None, ())
        server.kill()
        second = await look_again(bus, first, ())
    assert second.error
    assert second.topics == first.topics


def test_a_broker_that_is_not_there_is_one_line_and_1(call):
    code, out, err = call("top", "--once", "--url", "nats://127.0.0.1:1")
    assert (code, out) == (1, "")
    assert err.startswith("tbus: cannot connect")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("or ders",), "position 2"),
        (("--every", "0"), "--every"),
        (("--sort", "size"), "--sort"),
        (("--url", "nats://host:0"), "port"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_wrong(call, arguments, said):
    code, out, err = call("top", *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_json_is_a_line_for_each_look_until_it_is_told_to_end():
    with started("top", "--json", "--every", "0.1", "--url", "memory://") as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        send(process, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert all(line["connected"] and line["topics"] == [] for line in lines)


IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "tbus", *sys.argv[1:]])
"""


@pytest.mark.parametrize(("key", "code"), [(b"q", 0), (b"\x03", 130)])
def test_a_key_ends_it_and_the_terminal_is_as_it_was(key, code):
    ours, its = pty.openpty()
    before = termios.tcgetattr(its)
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, "top", "--every", "0.1", "--url", "memory://"],
        stdin=its, stdout=its, stderr=its, start_new_session=True,
        env=environment(TERM="xterm-256color"),
    ) as process:  # fmt: skip
        read_until(ours, b"no topics")
        assert termios.tcgetattr(its) != before, "keys wait for the end of a line"
        os.write(ours, key)
        seen = read_until(ours, b"\x1b[?1049l")  # what was on the screen is back
        assert process.wait(timeout=20) == code
    assert termios.tcgetattr(its) == before
    assert b"\x1b[?25h" in seen, "the cursor does not come back"
    os.close(its)
    os.close(ours)


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What a terminal shows until it shows this."""
    seen = b""
    deadline = time.monotonic() + 30
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.5)[0]:
            seen += os.read(terminal, 65536)
    return seen


# --- views -------------------------------------------------------------------------------


def shown(snapshot: Snapshot, look: Look | None = None, width: int = 80, **more) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, markup=False)
    console.print(draw(snapshot, "nats://127.0.0.1:4222", look or Look(), console, **more))
    return file.getvalue()


def line_with(text: str, words: str) -> str:
    return next(line for line in text.splitlines() if words in line)


def test_it_shows_the_broker_topics_groups_lag_and_rates():
    after = attrs.evolve(
        BEFORE, time=12.0, topics=(topic("orders", 2560, group("bill", 0), group("ship", 1234)),)
    )
    text = shown(after.since(BEFORE), now=NOW)
    assert "nats://127.0.0.1:4222  03:04:05" in text
    assert "connected, 1.2 ms · 1 topic · 2 groups · 1 connection" in text
    assert "1 230" in line_with(text, "orders")
    assert "1 234 ↑" in line_with(text, "ship")
    assert line_with(text, "bill").split()[1] == "0"


def test_partitions_and_their_owners_have_rows_of_their_own_when_asked_for():
    state = attrs.evolve(BEFORE, topics=(topic("orders", 9, group("bill", 3, 4, owner="host-1")),))
    assert "partition" not in shown(state)
    assert "host-1" in line_with(shown(state), "bill")
    text = shown(state, Look(partitions=True))
    assert line_with(text, "partition 1").split()[-2:] == ["4", "host-1"]


def test_names_from_the_broker_cannot_move_the_cursor():
    evil = "\x1b[2Jowner\n"
    state = Snapshot(
        0.0,
        (topic("to\x1b]0;pic", 1, group("gr\roup", 1, owner=evil)),),
        error="it said \x1b[31m",
    )
    for look_ in (Look(), Look(partitions=True)):
        text = shown(state, look_, width=200)
        assert "\x1b" not in text
        assert "\r" not in text
        assert "\\x1b[2Jowner\\n" in text


def test_a_lost_broker_is_said_in_words():
    assert "not connected: no answer" in shown(attrs.evolve(BEFORE, error="no answer"))


@pytest.mark.parametrize("size", [(100, 30), (80, 24), (60, 12), (40, 6)])
def test_no_screen_is_wider_or_higher_than_the_terminal(size):
    width, height = size
    topics = tuple(topic(f"orders.{n}", n, group("g", n, owner="o" * 50)) for n in range(50))
    console = make_console(Terminal(), width, height)
    drawn = draw(Snapshot(0.0, topics), "nats://x", Look(), console, height=height)
    lines = console.render_lines(drawn)
    assert max(sum(part.cell_length for part in line) for line in lines) <= width
    assert len(lines) <= height
    assert "more rows" in "".join(part.text for line in lines for part in line)


def test_keys_change_the_order_and_show_partitions():
    file = Terminal()
    screen = Screen(make_console(file), "nats://x", Look())
    with screen.opened():
        screen.update(BEFORE)
        assert "partition 0" not in file.getvalue()
        screen.press("p")
        assert "partition 0" in file.getvalue()
        screen.press("s")
        assert screen.look == Look("lag", partitions=True)
        screen.press("x")
        screen.press("s")
        screen.press("s")
        assert screen.look.sort == "name"
    assert file.getvalue().endswith("\x1b[?25h\x1b[?1049l")


def test_an_encoding_without_arrows_gets_plain_ones():
    class Latin(io.StringIO):
        encoding = "latin-1"

    file = Latin()
    console = make_console(file)
    grown = attrs.evolve(BEFORE, time=12.0, topics=(topic("orders", 160, group("ship", 40)),))
    console.print(draw(grown.since(BEFORE), "nats://x", Look(), console))
    file.getvalue().encode("latin-1")
    assert "40 +" in file.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 71, 72, 80, 120])
@pytest.mark.parametrize("look_", [Look(), Look(partitions=True)])
def test_nothing_that_counts_is_cut_off_however_narrow_the_terminal(width, look_):
    now = attrs.evolve(
        BEFORE,
        time=12.0,
        topics=(topic("orders", 24790, group("bill", 1234567, owner="host-1")),),
    )
    text = shown(now.since(BEFORE), look_, width)
    for told in ("orders", "12 345", "bill", "1 234 567", "stored/s", "settled/s", "host-1"):
        assert told in text
    assert "…" not in text.partition("orders")[2]
    assert all(len(line) <= width for line in text.splitlines())
