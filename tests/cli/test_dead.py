"""`dead list`, `show`, `redrive` against a real nats-server."""

from __future__ import annotations

import io
import json
import re
import time
from typing import Any

import pytest
import trio
from rich.console import Console

from tbus import DeadLettered, Envelope, Message, Retry, TopicOptions, open_bus
from tbus.cli._dead import _table
from tbus.testing.conformance._kit import watching
from tests.dead_letters.test_reading import letters_of

EVENT = Envelope.new("order-1", "OrderPlaced", {"total": 42})
BODIES: list[tuple[Envelope | bytes, str | None]] = [
    (EVENT, None),
    (b"plain", "k2"),
    (b"\xff\x1b[2J", "k3"),
]


async def fail(message: Message) -> None:
    raise ValueError(f"no \x1b[31m{message.key}\nfor\u202e me")


async def make_letters(url: str) -> None:
    async with open_bus(url, source="tests") as bus, watching(bus) as watch:
        await bus.subscribe("orders", fail, group="billing", retry=Retry(attempts=2, initial=0.0))
        for body, key in BODIES:
            await bus.publish("orders", body, key=key, headers=[("A", "1"), ("A", "\x1b2")])
        await watch.wait(DeadLettered, len(BODIES))


@pytest.fixture
def orders(nats_server, monkeypatch):
    """A server on which three messages of `orders` are dead letters."""
    monkeypatch.setenv("TBUS_URL", nats_server.url)
    trio.run(make_letters, nats_server.url)
    return nats_server


@pytest.fixture
def dead(call, orders, monkeypatch):
    """Run a command of `tbus dead`."""
    monkeypatch.setenv("TBUS_URL", orders.url)

    def called(*arguments: str) -> tuple[int, str, str]:
        # `call` takes the variable away.
        code, out, err = call("dead", *arguments, "--url", orders.url)
        return code, out, err

    return called


def lines_of(text: str) -> list[dict[str, Any]]:
    assert text.replace("\n", "").isprintable()
    return [json.loads(line) for line in text.splitlines()]


def test_list_has_a_line_for_each_letter_with_control_characters_shown(dead):
    code, out, err = dead("list", "orders")
    assert (code, err) == (0, "")
    first, second, third = out.splitlines()
    assert out.replace("\n", "").isprintable()
    assert "  0:1  dead-" in first
    assert r"  billing  order-1  2  -  ValueError: no \x1b[31morder-1\nfor\u202e me" in first
    assert "  billing  k2  2  -  ValueError" in second
    assert "  0:3  dead-" in third


def test_list_as_json_has_an_object_for_each_with_all_that_is_known(dead):
    code, out, _ = dead("list", "orders", "--json")
    first, second, third = lines_of(out)
    assert code == 0
    assert first["event"]["payload"] == {"total": 42}
    assert (second["body"], second["key"]) == ("plain", "k2")
    assert third["body_base64"] == "/xtbMko="
    assert second["position"] == {"partition": 0, "offset": 2}
    assert second["headers"] == [["A", "1"], ["A", "\x1b2"]]
    assert (second["group"], second["attempts"], second["source"]) == ("billing", 2, "tests")
    assert second["error"] == "no \x1b[31mk2\nfor\u202e me"
    assert (second["redriven"], second["last_redriven"]) == (0, None)


def test_list_says_when_there_are_more(dead):
    code, out, err = dead("list", "orders", "--limit", "2")
    assert (code, out.count("\n")) == (0, 2)
    assert "more than 2" in err
    assert dead("list", "orders", "--limit", "3")[2] == ""


def test_list_of_a_topic_or_group_without_letters_is_empty_and_makes_nothing(dead, call, orders):
    call("pub", "bills", "hello", "--url", orders.url)
    assert dead("list", "bills") == (0, "", "")
    assert dead("list", "orders", "--group", "shipping") == (0, "", "")
    assert call("topics", "--url", orders.url)[1] == "bills\norders\norders.dead\n"


def test_on_a_terminal_each_letter_is_one_line_however_narrow(orders):
    async def read():
        async with open_bus(orders.url) as bus:
            return await letters_of(bus, "orders")

    letters = trio.run(read)
    for width in (60, 80, 200):
        file = io.StringIO()
        Console(file=file, width=width, force_terminal=False).print(_table(letters))
        head, *lines = file.getvalue().splitlines()
        assert head.split()[:3] == ["failed", "(UTC)", "place"]
        assert len(lines) == 3
        assert all(len(line) <= width and line.rstrip().isprintable() for line in lines)


def test_show_tells_everything_by_place_or_id(dead):
    code, out, err = dead("show", "orders", "1")
    assert (code, err) == (0, "")
    assert out.replace("\n", "").isprintable()
    assert "original      orders at 0:1, " in out
    assert "source        tests\n" in out
    assert "header        A: 1\nheader        A: \\x1b2\n" in out
    assert f"\n\n{EVENT.encode().decode()}\n\n" in out
    assert "Traceback (most recent call last):\n" in out
    assert out.endswith("ValueError: no \\x1b[31morder-1\nfor\\u202e me\n")
    letter = out.splitlines()[0].split()[1]
    for name in ("0:1", letter, letter[:12]):
        assert dead("show", "orders", name) == (0, out, "")
    [told] = lines_of(dead("show", "orders", letter, "--json")[1])
    assert told["id"] == letter
    assert told["traceback"].endswith("for\u202e me")


def test_redrive_publishes_what_is_named_and_remembers_it(dead, call, orders):
    url = ("--url", orders.url)
    code, out, err = dead("redrive", "orders", "2", "0:1")
    assert (code, err) == (0, "tbus: 2 redriven\n")
    second, first = out.splitlines()
    assert second.endswith("orders at 0:2 is now orders at 0:4")
    assert first.endswith("orders at 0:1 is now orders at 0:5")
    _, out, _ = call("sub", "orders", "--start", "earliest", "--count", "5", "--json", *url)
    *_, again, event = lines_of(out)
    assert (again["body"], again["key"]) == ("plain", "k2")
    assert again["headers"][:2] == [["A", "1"], ["A", "\x1b2"]]
    assert dict(again["headers"])["Tbus-Redriven-Group"] == "billing"
    assert event["event"]["event_id"] == EVENT.event_id
    left = lines_of(dead("list", "orders", "--new", "--json")[1])
    assert [letter["key"] for letter in left] == ["k3"]


def test_redrive_of_all_takes_each_once_until_it_is_asked_again(dead):
    assert dead("redrive", "orders", "2")[0] == 0
    code, out, err = dead("redrive", "orders", "--all")
    assert (code, out.count("\n")) == (0, 2)
    assert err == "tbus: 2 redriven, 1 left: redriven before (see --again)\n"
    assert dead("redrive", "orders", "--all")[:2] == (0, "")
    code, out, err = dead("redrive", "orders", "3")
    assert (code, out) == (1, "")
    assert "redriven before" in err
    code, out, _ = dead("redrive", "orders", "3", "--again", "--json")
    [done] = lines_of(out)
    assert (code, done["offset"], done["duplicate"]) == (0, 7, False)
    assert done["id"].endswith("-2")


def test_redrive_can_go_elsewhere(dead, call, orders):
    code, out, _ = dead("redrive", "orders", "--all", "--to", "repair")
    assert code == 0
    assert [line.rpartition(" now ")[2] for line in out.splitlines()] == [
        "repair at 0:1",
        "repair at 0:2",
        "repair at 0:3",
    ]


def test_redrive_can_be_slowed_down(dead):
    before = time.monotonic()
    assert dead("redrive", "orders", "--all", "--rate", "5")[0] == 0
    assert time.monotonic() - before >= 0.4


def test_a_redrive_that_is_refused_says_what_was_done_and_ends_with_1(dead, orders):
    async def fill() -> None:
        async with open_bus(orders.url) as bus:
            await bus.configure_topic("orders", TopicOptions(max_messages=4))

    trio.run(fill)
    code, out, err = dead("redrive", "orders", "--all")
    assert (code, out.count("\n")) == (1, 1)
    assert err.startswith("tbus: 1 redriven\ntbus: the broker has no room for topic 'orders'")


@pytest.mark.parametrize("command", ["show", "redrive"])
@pytest.mark.parametrize("name", ["99", "1:1", "dead-ffff0000"])
def test_a_letter_that_is_not_there_is_named_and_ends_with_1(dead, command, name):
    assert dead(command, "orders", name) == (
        1,
        "",
        f"tbus: topic orders has no dead letter {name}\n",
    )


def test_the_beginning_of_several_ids_is_refused_and_nothing_redriven(dead, orders, monkeypatch):
    # Of three ids no two need begin alike.
    monkeypatch.setattr("tbus.cli._dead._ID", re.compile("dead-"))
    code, out, err = dead("redrive", "orders", "dead-")
    assert (code, out) == (1, "")
    assert "several" in err
    assert dead("list", "orders", "--new")[1].count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "dead"),
        (("redrive", "orders"), "give LETTERS, or --all"),
        (("redrive", "orders", "17", "--all"), "--all stands for every letter: leave it or 17 out"),
        (("list",), "TOPIC"),
        (("list", "or ders"), "position 2"),
        (("list", "orders", "--limit", "0"), "--limit"),
        (("list", "orders", "--dead-letter", "orders"), "dead_letter"),
        (("list", "orders", "--dead-letter", "x y"), "position"),
        (("show", "orders"), "LETTER"),
        (("show", "orders", "dead-xyz"), "place"),
        (("show", "orders", "dead-1"), "place"),
        (("redrive", "orders", "1", "--to", ""), "1 to 200"),
        (("redrive", "orders", "1", "--rate", "0"), "--rate"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_wrong(call, arguments, said):
    code, out, err = call("dead", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
