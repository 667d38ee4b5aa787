"""The programs of the documentation run, and say what they should."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.broker
def test_the_first_program_stores_and_handles_an_event() -> None:
    lines = run("first.py").splitlines()
    assert sorted(lines) == ["order-1 OrderPlaced {'total': 42}", "stored at 0:1"]


def test_pulled_messages_come_in_order() -> None:
    assert run("pulled.py").splitlines() == [
        "0:1 {'total': 1}",
        "0:2 {'total': 2}",
        "0:3 {'total': 3}",
    ]


def test_a_publisher_tells_what_became_of_each_event() -> None:
    assert run("outcomes.py").splitlines() == ["event-1 0:1", "event-2 0:2", "event-3 0:3"]


def test_a_dead_letter_goes_back() -> None:
    failed, handled = run("dead_letters.py").splitlines()
    assert failed == "order-1 failed 2 times: KeyError: 'coffee' (attempt 2 of 2)"
    assert handled == "coffee costs 4"


@pytest.mark.broker
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_service_ends_in_order_when_it_is_told_to(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "signals.py"], stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == "ready; stop it with Ctrl-C\n"
        service.send_signal(number)
        assert service.stdout.read() == "ended\n"
        assert service.wait(10) == 0


@pytest.mark.broker
def test_the_program_of_the_readme_works_as_it_stands(
    tmp_path: Path, shared_nats_server: object
) -> None:
    source = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    url = shared_nats_server.url  # type: ignore[attr-defined]
    program = tmp_path / "readme.py"
    program.write_text(source.replace("nats://127.0.0.1:4222", url))
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "order-1 OrderPlaced {'total': 42}" in done.stdout
    assert "stored at 0:" in done.stdout
