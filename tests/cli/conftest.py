"""How the tests of the commands run them."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator

import pytest

from tbus.cli._app import run


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C, as would all that is started here."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture
def call(capsys, monkeypatch):
    """Run a command in this process; gives its exit code, what it printed, and its errors."""
    monkeypatch.delenv("TBUS_URL", raising=False)

    def called(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = run(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called
