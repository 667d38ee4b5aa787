"""The Kafka of the tests can be killed, paused and started again; and what happens where
there is none."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.brokers.kafka import KafkaCluster

ROOT = Path(__file__).parents[1]


def store(bootstrap: str, topic: str, value: bytes, copies: int | None = None) -> None:
    """Write one message that all copies must have; make the topic first if it has `copies`."""

    async def main() -> None:
        if copies is not None:
            admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
            await admin.start()
            answer = await admin.create_topics([NewTopic(topic, 1, copies)])
            assert answer.topic_errors[0][1] == 0, answer
            await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
            await producer.send_and_wait(topic, value)

    anyio.run(main)


def test_the_shared_one_takes_messages_and_is_the_same_for_all(request, shared_kafka, topic):
    store(shared_kafka.bootstrap, topic, b"one", copies=1)
    assert request.getfixturevalue("shared_kafka") == shared_kafka


def test_a_killed_node_is_gone_and_starts_again_on_its_port_and_store(kafka_node, topic):
    pid, bootstrap = kafka_node.pid(), kafka_node.bootstrap
    store(bootstrap, topic, b"one", copies=1)
    kafka_node.kill()
    assert not kafka_node.is_running()
    with pytest.raises(ConnectionRefusedError):
        kafka_node.ask()
    kafka_node.start()
    assert kafka_node.bootstrap == bootstrap
    assert kafka_node.pid() != pid
    # The topic is still there.
    store(bootstrap, topic, b"two")


def test_a_paused_node_takes_connections_and_is_silent_and_can_be_stopped(kafka_node):
    kafka_node.pause()
    with pytest.raises(TimeoutError):
        kafka_node.ask(timeout=0.05)
    kafka_node.resume()
    assert list(kafka_node.ask().brokers) == [1]
    kafka_node.pause()
    kafka_node.stop()
    assert not kafka_node.is_running()


def test_one_that_cannot_start_says_why(tmp_path, kafka_distribution):
    settings = {"broker.heartbeat.interval.ms": "no number"}
    cluster = KafkaCluster(tmp_path, distribution=kafka_distribution, settings=settings)
    with pytest.raises(AssertionError, match="no number"):
        cluster.start()
    assert not cluster.is_running()
    cluster.close()


@pytest.mark.slow
def test_a_cluster_goes_on_without_one_node_whichever_it_is(kafka_cluster, topic):
    bootstrap = kafka_cluster.bootstrap
    assert sorted(kafka_cluster.ask().brokers) == [1, 2, 3]
    store(bootstrap, topic, b"one", copies=3)
    leader = kafka_cluster.ask().controller
    kafka_cluster.kill(leader)
    store(bootstrap, topic, b"two")


@pytest.mark.slow
def test_what_was_killed_and_paused_is_mended_for_the_next_test(kafka_cluster):
    # It follows one that has killed a node.
    assert all(kafka_cluster.is_running(one) for one in kafka_cluster.numbers)
    kafka_cluster.kill(1)
    kafka_cluster.pause(2)
    kafka_cluster.mend()
    for one in kafka_cluster.numbers:
        assert sorted(kafka_cluster.ask(one).brokers) == [1, 2, 3]


def test_it_does_not_outlive_a_test_run_that_is_killed(tmp_path, kafka_distribution):
    program = """
import pathlib, sys
from tests.brokers.kafka import KafkaCluster
cluster = KafkaCluster(pathlib.Path(sys.argv[1]))
cluster.start()
print(cluster.pid(), flush=True)
sys.stdin.read()
"""
    run = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with run:
        assert run.stdout is not None
        server = os.pidfd_open(int(run.stdout.readline()))
        run.kill()
        run.wait()
        # It becomes readable when the process has ended.
        ended, _, _ = select.select([server], [], [], 10)
        if not ended:
            signal.pidfd_send_signal(server, signal.SIGKILL)
        os.close(server)
    assert ended


# --- where there is none -----------------------------------------------------------------

TESTS = """
    import socket

    def reach(broker):
        host, port = broker.bootstrap.split(":")
        socket.create_connection((host, int(port)), 5).close()

    def test_real(shared_kafka):
        reach(shared_kafka)

    def test_own(kafka_node):
        reach(kafka_node)

    def test_either(kafka_or_tansu):
        reach(kafka_or_tansu)
        print("ran on", kafka_or_tansu.kind)
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Run a file of tests with the fixtures of Kafka, where there is no Java."""
    path = ROOT / "src"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(path), str(ROOT)]))
    monkeypatch.setenv("PATH", str(pytester.path))
    for name in ("CI", "TBUS_REQUIRE_BROKERS", "TBUS_TEST_KAFKA", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini(
        """
        [pytest]
        addopts = --strict-markers -p tests.brokers.kafka_fixtures
        trio_mode = true
        filterwarnings = error
        markers =
            broker
        """
    )

    def run_file(text: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)

    return run_file


def test_without_java_what_tansu_can_serve_runs_and_the_rest_is_told(run):
    result = run(TESTS, "-s")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        [
            "kafka: NO JAVA*",
            "*ran on tansu*",
            "NOT TESTED with real Kafka: 2 (no Apache Kafka: no Java 17 or newer *",
            "TESTED on Tansu in place of real Kafka: 1 *",
        ]
    )


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TBUS_REQUIRE_BROKERS", "1")])
def test_where_brokers_must_be_a_missing_kafka_fails(run, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    result = run(TESTS)
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(["a broker that must be here is missing: no Apache Kafka*"])


def test_a_broker_that_is_named_is_used_in_place_of_the_shared_one(run, monkeypatch):
    monkeypatch.setenv("TBUS_TEST_KAFKA", "127.0.0.1:4242")
    result = run("""
        def test_named(shared_kafka, kafka_or_tansu):
            assert shared_kafka.bootstrap == "127.0.0.1:4242"
            assert kafka_or_tansu == shared_kafka
    """)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["kafka: 127.0.0.1:4242, from TBUS_TEST_KAFKA"])


def test_the_log_of_a_broker_is_shown_with_the_failure_of_its_test(run, monkeypatch):
    text = """
        def test_fails(kafka_or_tansu):
            assert False
    """
    result = run(text)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*log of kafka*", "*tcp://127.0.0.1:*"])
