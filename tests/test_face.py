"""What `tbus` exports is complete, documented, and free of optional parts."""

from __future__ import annotations

import inspect
import subprocess
import sys

import tbus
from tbus import _errors, _events


def test_everything_named_is_there_and_sorted() -> None:
    assert sorted(tbus.__all__) == tbus.__all__
    assert all(hasattr(tbus, name) for name in tbus.__all__)


def test_every_error_and_every_event_is_exported() -> None:
    for module in (_errors, _events):
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__ == module.__name__:
                assert name in tbus.__all__, name


def test_every_public_name_is_documented() -> None:
    for name in tbus.__all__:
        value = getattr(tbus, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), name
        if inspect.isclass(value):
            for member, function in vars(value).items():
                if inspect.isfunction(function) and not member.startswith("_"):
                    assert (function.__doc__ or "").strip(), f"{name}.{member}"


def test_every_error_has_one_root() -> None:
    told_by_handlers = {"RetryAfter", "Reject", "Discard", "BatchFailed"}
    for name in tbus.__all__:
        value = getattr(tbus, name)
        if inspect.isclass(value) and issubclass(value, Exception):
            if issubclass(value, Warning) or name in told_by_handlers:
                continue
            assert issubclass(value, tbus.TbusError), name


def test_importing_tbus_brings_no_client_and_no_command_line() -> None:
    program = (
        "import sys, tbus;"
        "found = {'nats', 'aiokafka', 'click', 'rich', 'yaml'} & set(sys.modules);"
        "sys.exit(', '.join(found) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
