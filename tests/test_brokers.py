"""The nats-server of the tests can be killed, suspended and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.brokers.nats import NatsServer, find_binary

ROOT = Path(__file__).parents[1]


def greeting(server: NatsServer, timeout: float = 5.0) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout) as connection:
        return connection.recv(4)


def test_it_answers_as_soon_as_it_is_there(nats_server):
    assert greeting(nats_server) == b"INFO"
    assert nats_server.url == f"nats://127.0.0.1:{nats_server.port}"


def test_the_shared_one_is_the_same_for_all(request, shared_nats_server):
    assert greeting(shared_nats_server) == b"INFO"
    assert request.getfixturevalue("shared_nats_server") is shared_nats_server


@pytest.mark.parametrize("end", [NatsServer.kill, NatsServer.stop])
def test_an_ended_one_is_gone_and_starts_again_on_its_port_and_store(nats_server, end):
    before = nats_server.pid, nats_server.port
    nats_server.store.joinpath("mark").write_text("kept")
    end(nats_server)
    assert not nats_server.is_running()
    with pytest.raises(ConnectionRefusedError):
        greeting(nats_server)
    nats_server.restart()
    assert greeting(nats_server) == b"INFO"
    assert nats_server.port == before[1]
    assert nats_server.pid != before[0]
    assert nats_server.store.joinpath("mark").read_text() == "kept"


def test_a_suspended_one_takes_connections_and_is_silent(nats_server):
    nats_server.suspend()
    with pytest.raises(TimeoutError):
        greeting(nats_server, timeout=0.05)
    nats_server.resume()
    assert greeting(nats_server) == b"INFO"


def test_a_suspended_one_can_be_stopped(nats_server):
    nats_server.suspend()
    nats_server.stop()
    assert not nats_server.is_running()


def test_its_log_goes_on_over_restarts(nats_server):
    nats_server.restart()
    assert nats_server.log_text().count("Server is ready") == 2


def test_it_takes_options_and_lines_of_configuration(start_nats_server):
    server = start_nats_server("--name", "mine", config="max_payload: 4242\n")
    with socket.create_connection(("127.0.0.1", server.port), 5.0) as connection:
        told = json.loads(connection.makefile().readline().removeprefix("INFO "))
    assert told["server_name"] == "mine"
    assert told["max_payload"] == 4242
    assert told["jetstream"] is True


def test_it_reads_other_lines_of_configuration_while_it_runs(start_nats_server):
    server = start_nats_server(config="max_payload: 4242\n")
    server.reconfigure("max_payload: 2121\n")
    with socket.create_connection(("127.0.0.1", server.port), 5.0) as connection:
        told = json.loads(connection.makefile().readline().removeprefix("INFO "))
    assert told["max_payload"] == 2121


def test_one_can_be_without_room_for_files(start_nats_server):
    server = start_nats_server(config="jetstream { max_file_store: 0 }\n")
    [room] = [line for line in server.log_text().splitlines() if "Max Storage:" in line]
    assert room.endswith(" 0 B")


def test_several_can_run_at_once(start_nats_server):
    first, second = start_nats_server(), start_nats_server()
    assert first.port != second.port
    first.kill()
    assert greeting(second) == b"INFO"


def test_one_that_cannot_start_says_why(tmp_path):
    server = NatsServer(tmp_path, "--no-such-option", binary=find_binary())
    with pytest.raises(AssertionError, match="no-such-option"):
        server.start()
    assert not server.is_running()


def test_it_does_not_outlive_a_test_run_that_is_killed(tmp_path):
    find_binary()
    program = """
import pathlib, sys
from tests.brokers.nats import NatsServer
server = NatsServer(pathlib.Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""
    run = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with run:
        assert run.stdout is not None
        server = os.pidfd_open(int(run.stdout.readline()))
        run.kill()
        run.wait()
        # It becomes readable when the process has ended.
        import select

        ended, _, _ = select.select([server], [], [], 10)
        if not ended:
            signal.pidfd_send_signal(server, signal.SIGKILL)
        os.close(server)
    assert ended
