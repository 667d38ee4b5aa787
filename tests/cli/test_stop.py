"""Signals end a command gracefully, and the exit code says which."""

from __future__ import annotations

import signal

import pytest
import trio

from tbus.cli._stop import Stop, run_command


def test_a_command_that_ends_by_itself_has_its_own_exit_code():
    async def command(_: Stop) -> int:
        return 3

    assert run_command(command) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_cancels_the_inner_scope_only(number):
    steps: list[str] = []

    async def command(stop: Stop) -> int:
        with stop.scope():
            signal.raise_signal(number)
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        steps.append("drained")
        return 0

    assert run_command(command) == 128 + number
    assert steps == ["drained"]


def test_a_second_signal_cancels_all():
    steps: list[str] = []

    async def command(stop: Stop) -> int:
        with stop.scope():
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
        signal.raise_signal(signal.SIGINT)
        try:
            await trio.sleep_forever()
        finally:
            steps.append("cancelled")

    assert run_command(command) == 130
    assert steps == ["cancelled"]


def test_a_signal_before_there_is_an_inner_scope_cancels_all():
    async def command(_: Stop) -> int:
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep_forever()
        return 0

    assert run_command(command) == 143


def test_a_failure_after_a_signal_is_still_a_failure():
    async def command(stop: Stop) -> int:
        with stop.scope():
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
        return 1

    assert run_command(command) == 1


def test_what_a_command_raises_leaves_as_itself():
    async def command(_: Stop) -> int:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run_command(command)
