"""What every test gets: the census, real brokers, unique topics.

The census is not asked for. A test after which, its fixtures ended, a thread, a process or
a file is held that was not held before, ends in an error; one whose body leaves a Trio task
fails. See `tests/census.py`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack
from functools import partial, wraps
from inspect import iscoroutinefunction
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

# Before anything imports it: its assertions are as telling as a test's.
pytest.register_assert_rewrite("tbus.testing.conformance", "tests.dead_letters.kit")

from tests import census  # noqa: E402
from tests.brokers.nats import BrokerMissing, NatsServer, find_binary  # noqa: E402
from tests.brokers.proxy import TcpProxy, start_proxy  # noqa: E402

pytest_plugins = ["tests.asyncio_too", "tests.brokers.kafka_fixtures"]

_BROKER_FIXTURES = {"nats_server", "shared_nats_server", "start_nats_server"}
_PASSED = pytest.StashKey[bool]()
_MISSING = pytest.StashKey[dict[str, int]]()


class LeftBehind(AssertionError):
    """Something was left behind."""

    def __init__(self, left: list[str]) -> None:
        super().__init__("left behind:\n" + "\n".join(f"  {line}" for line in left))


# --- census ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _census(request: pytest.FixtureRequest) -> Iterator[None]:
    before = census.count()
    yield
    left = census.count().beyond(before)
    census.end_left_processes(before)
    if not request.node.stash.get(_PASSED, False):
        # The traceback of a failed test keeps what its frames had open.
        left = [line for line in left if not line.startswith("open file")]
    if left:
        raise LeftBehind(left)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    # Before pytest-trio wraps the test in a run of its own.
    if isinstance(item, pytest.Function) and item.get_closest_marker("trio"):
        if (property_test := getattr(item.obj, "hypothesis", None)) is not None:
            if iscoroutinefunction(property_test.inner_test):
                property_test.inner_test = _leaving_no_task(property_test.inner_test)
        elif iscoroutinefunction(item.obj):
            item.obj = _leaving_no_task(item.obj)
    return (yield)


def _leaving_no_task(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(test)
    async def counted(*args: Any, **kwargs: Any) -> None:
        before = census.count_tasks()
        await test(*args, **kwargs)
        if left := census.count_tasks().beyond(before):
            raise LeftBehind(left)

    return counted


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call":
        item.stash[_PASSED] = report.passed
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, NatsServer):
                report.sections.append((f"log of {name}", value.log_text()[-10_000:]))
    return report


# --- brokers -----------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_MISSING] = {}


def pytest_itemcollected(item: pytest.Item) -> None:
    if _BROKER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
        item.add_marker("broker")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for problem, tests in config.stash[_MISSING].items():
        terminalreporter.write_line(f"NOT TESTED with a real broker: {tests} ({problem})", red=True)


def _require_nats(config: pytest.Config) -> str:
    try:
        return find_binary()
    except BrokerMissing as missing:
        if os.environ.get("TBUS_REQUIRE_BROKERS") == "1" or os.environ.get("CI") == "true":
            pytest.fail(f"a broker that must be here is missing: {missing}", pytrace=False)
        tests = config.stash[_MISSING]
        tests[str(missing)] = tests.get(str(missing), 0) + 1
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def _shared_nats_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], NatsServer]]:
    server: NatsServer | None = None

    def start_once(binary: str) -> NatsServer:
        nonlocal server
        if server is None:
            server = NatsServer(tmp_path_factory.mktemp("nats"), binary=binary)
            with census.owned_by_the_harness():
                server.start()
        return server

    yield start_once
    if server is not None:
        server.stop()


@pytest.fixture
def shared_nats_server(
    request: pytest.FixtureRequest, _shared_nats_server: Callable[[str], NatsServer]
) -> NatsServer:
    """One nats-server for the whole run: use topics of your own, and leave it running."""
    return _shared_nats_server(_require_nats(request.config))


@pytest.fixture
def nats_server(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[NatsServer]:
    """A nats-server of this test's own: to kill, suspend, restart."""
    with NatsServer(tmp_path / "nats", binary=_require_nats(request.config)) as server:
        yield server


@pytest.fixture
def start_nats_server(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., NatsServer]]:
    """`server = start_nats_server("-m", "0", config="max_payload: 1024")`: one or more of this
    test's own, with options or lines of configuration, until the end of the test."""
    binary = _require_nats(request.config)
    with ExitStack() as stack:
        numbers = count(1)

        def start(*options: str, config: str = "") -> NatsServer:
            directory = tmp_path / f"nats-{next(numbers)}"
            return stack.enter_context(
                NatsServer(directory, *options, binary=binary, config=config)
            )

        yield start


@pytest.fixture
async def open_tcp_proxy() -> AsyncIterator[Callable[[int], Awaitable[TcpProxy]]]:
    """`proxy = await open_tcp_proxy(port)`: a way to `port` that can be broken, until the end
    of the test."""
    async with trio.open_nursery() as nursery:
        yield partial(start_proxy, nursery)
        nursery.cancel_scope.cancel()


# --- names -------------------------------------------------------------------------------

_numbers = count(1)


@pytest.fixture
def topic() -> str:
    """A topic that no other test of this run uses."""
    return f"topic-{os.getpid()}-{next(_numbers)}"
