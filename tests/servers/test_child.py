"""An owned child process: both ways to guard it, both ways to wait for it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tbus._errors import ConfigurationError
from tbus.servers import _child
from tbus.servers._child import Guard, OwnedChild


@pytest.fixture(params=["signal", "pipe"])
def guard(request: pytest.FixtureRequest) -> Guard:
    return "signal" if request.param == "signal" else "pipe"


@pytest.fixture(params=["pidfd", "poll"])
def waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "poll":
        monkeypatch.setattr(_child, "_open_pidfd", lambda pid: None)


@asynccontextmanager
async def open_child(
    script: str, guard: Guard | None = None, patience: float = 5.0
) -> AsyncIterator[OwnedChild]:
    """A shell that runs `script`, entered once it has written a line."""
    child = OwnedChild(["/bin/sh", "-c", script], guard=guard)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.read_log)
            nursery.start_soon(child.watch)
            with trio.fail_after(5):
                while not child.last_lines:  # noqa: ASYNC110 - bytes tell no task here
                    await trio.sleep(0.001)
            yield child
            nursery.cancel_scope.cancel()
    finally:
        await child.stop(patience)  # noqa: ASYNC102 - it shields itself


def children() -> set[int]:
    """The child processes of this one, zombies among them."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def wait_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        assert poller.poll(5000), f"process {pid} lives"
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("waiting")
async def test_a_child_ends_by_sigterm_and_leaves_nothing(guard: Guard) -> None:
    others = children()
    before = sorted(os.listdir("/proc/self/fd"))
    async with open_child("echo ready; exec sleep 1000", guard) as child:
        assert child.returncode is None
    assert child.returncode == -signal.SIGTERM
    assert children() == others
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("waiting")
async def test_a_child_that_ends_by_itself_is_known_with_its_last_words(guard: Guard) -> None:
    async with open_child("echo ready; echo done; exit 7", guard) as child:
        with trio.fail_after(5):
            assert await child.wait_exit() == 7
        assert child.last_lines == ("ready", "done")


@pytest.mark.usefixtures("waiting")
async def test_a_child_deaf_to_sigterm_is_killed_after_its_time(guard: Guard) -> None:
    async with open_child("trap '' TERM; echo ready; sleep 1000", guard, patience=0.2) as child:
        start = trio.current_time()
    assert 0.2 <= trio.current_time() - start < 2
    assert child.returncode == -signal.SIGKILL


@pytest.mark.usefixtures("waiting")
async def test_cancellation_takes_nothing_from_the_childs_time_to_end() -> None:
    script = "trap 'sleep 0.1; echo bye; exit 0' TERM; echo ready; sleep 1000 & wait"
    with trio.CancelScope() as scope:
        async with open_child(script) as child:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert child.returncode == 0
    assert child.last_lines[-1] == "bye"


async def test_its_own_children_go_with_it() -> None:
    async with open_child("sleep 1000 & echo $!; exit 0") as child:
        await child.wait_exit()
        wait_gone(int(child.last_lines[0]))


async def test_a_child_that_writes_more_than_a_pipe_holds_is_not_held_up() -> None:
    async with open_child("echo ready; seq 200000; exit 0") as child:
        with trio.fail_after(5):
            assert await child.wait_exit() == 0
        assert child.last_lines[-1] == "200000"


@pytest.mark.usefixtures("waiting")
async def test_last_words_that_nobody_has_read_are_read_at_the_end() -> None:
    child = OwnedChild(["/bin/echo", "last words"])
    try:
        with trio.fail_after(5):
            await child.watch()
        assert child.last_lines == ("last words",)
    finally:
        await child.stop(5.0)  # noqa: ASYNC102 - it shields itself


async def test_the_end_of_the_log_does_not_wait_for_the_end_of_the_child() -> None:
    async with open_child("echo ready; exec sleep 1000 >&- 2>&-") as child:
        pass
    assert child.returncode == -signal.SIGTERM


async def test_what_the_program_has_blocked_is_not_blocked_in_the_child() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        async with open_child("echo ready; exec sleep 1000") as child:
            pass
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert child.returncode == -signal.SIGTERM


def test_an_interpreter_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ConfigurationError, match="Python interpreter"):
        OwnedChild(["/bin/true"])


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


PROGRAM = """
    import sys, time
    from tbus.servers._child import OwnedChild

    child = OwnedChild(["/bin/sh", "-c", "echo ready; exec sleep 1000"], guard=sys.argv[1])
    while not child.last_lines:
        child._read_some()
        time.sleep(0.001)
    print(child.pid, flush=True)
    time.sleep(1000)
"""


def test_a_child_dies_with_a_killed_program(guard: Guard) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), guard],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        assert os.path.exists(f"/proc/{pid}")
        program.kill()
        program.wait()
    wait_gone(pid)


async def test_the_guard_keeps_nothing_open_and_goes_with_the_child(tmp_path: Path) -> None:
    with (tmp_path / "kept").open("w") as kept:
        child = OwnedChild(["/bin/sleep", "1000"], keep=[kept.fileno()], guard="pipe")
    try:
        with trio.fail_after(5):
            while not (guards := children_of(child.pid)):  # noqa: ASYNC110 - it tells nobody
                await trio.sleep(0.001)
            while len(os.listdir(f"/proc/{guards[0]}/fd")) > 3:  # noqa: ASYNC110
                await trio.sleep(0.001)
    finally:
        await child.stop(5.0)  # noqa: ASYNC102 - it shields itself
    wait_gone(guards[0])


def test_a_launch_for_a_program_that_is_gone_does_not_start_the_server() -> None:
    launcher = _child.__file__.replace("_child.py", "_launch.py")
    result = subprocess.run(
        [sys.executable, "-I", "-S", launcher, "signal", "1", "/bin/echo", "started"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert result.returncode == 1
    assert "is gone" in result.stderr
    assert "started" not in result.stdout
