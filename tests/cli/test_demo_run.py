"""The demo as a user runs it: over a real nats-server, in this process and in its own."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tbus.cli._app import run
from tbus.cli._demo_command import GRACE
from tests.cli.kit import send, started, tbus, wait_server

pytestmark = pytest.mark.broker


def ran(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_small_demo_over_its_own_server_holds_every_promise(capsys):
    code, out, err = ran(["demo", "--events", "300", "--customers", "40"], capsys)
    assert (code, err) == (0, "")
    assert "nats-server started" in out
    assert "300 of 300, 100.00 %" in out
    assert "0 violations, 40 customers" in out
    assert "Every promise held." in out


def test_json_is_all_that_a_process_prints():
    result = tbus("demo", "--events", "300", "--topics", "3", "--seed", "7", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["success"] == 1
    assert report["handled"] == report["acknowledged"] == 300
    assert report["violations"] == report["duplicates"] == 0
    assert report["retries"] == 3
    assert report["before"] == report["after"]
    assert report["peak_tasks"] > report["tasks_at_rest"] > report["before"]["tasks"]
    assert report["exit_code"] == 0
    assert all(promise["held"] for promise in report["promises"])


def test_without_key_order_the_observer_sees_violations_and_the_demo_ends_with_1(capsys):
    arguments = ["demo", "--backend", "memory", "--events", "400", "--customers", "4", "--json"]
    assert ran(arguments, capsys)[0] == 0
    code, out, _ = ran([*arguments, "--order", "none"], capsys)
    report = json.loads(out)
    assert code == 1
    assert report["violations"] > 0
    assert [one["text"] for one in report["promises"] if not one["held"]] == [
        "order per customer held"
    ]


def test_on_a_server_that_is_not_its_own_it_leaves_no_topic(nats_server, capsys):
    arguments = ["demo", "--backend", nats_server.url, "--events", "200", "--json"]
    code, out, _ = ran(arguments, capsys)
    assert code == 0, out
    assert json.loads(out)["left_topics"] == []
    assert ran(["topics", "--url", nats_server.url, "--json"], capsys) == (0, "[]\n", "")


def test_a_store_is_kept_and_may_be_used_again(tmp_path: Path, capsys):
    arguments = ["demo", "--events", "100", "--store", str(tmp_path / "store"), "--json"]
    for _ in range(2):
        code, out, _ = ran(arguments, capsys)
        assert code == 0, out
        assert json.loads(out)["handled"] == 100
    assert (tmp_path / "store" / "jetstream").is_dir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_within_its_grace_with_a_summary_and_no_server(number):
    with started("demo", "--events", "50000", "--concurrency", "4") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "subscribed" in line:
                break
        server = wait_server(process)
        before = time.monotonic()
        send(process, number)
        out, err = process.communicate(timeout=40)
        took = time.monotonic() - before
    assert (process.returncode, err) == (128 + number, "")
    assert took < GRACE + 1
    assert "ended early" in out
    assert "nothing left behind" in out
    assert "Ended by the user" in out
    assert not Path(f"/proc/{server}").exists()


def test_a_signal_with_json_ends_with_a_report_of_what_was_done():
    with started("demo", "--events", "200000", "--json") as process:
        server = wait_server(process)
        send(process, signal.SIGINT)
        out, err = process.communicate(timeout=40)
    assert (process.returncode, err) == (130, "")
    assert not Path(f"/proc/{server}").exists()
    if out:  # else it was ended before the bus was open, and had nothing to report
        assert json.loads(out)["signal"] == signal.SIGINT


def test_a_server_that_dies_ends_the_demo_with_one_clear_error():
    with started("demo", "--events", "50000") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "subscribed" in line:
                break
        os.kill(wait_server(process), signal.SIGKILL)
        _, err = process.communicate(timeout=40)
    assert process.returncode == 1
    assert err.startswith("tbus: the bus has failed: the embedded nats-server ended by itself")
    assert "Traceback" not in err
