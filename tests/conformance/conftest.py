"""The brokers that every conformance case runs over: one fixture, one name for each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tbus.testing import Harness, MemoryHarness
from tests.brokers.harness import KafkaHarness, NatsHarness

MAKERS: dict[str, Callable[[pytest.FixtureRequest], Harness]] = {
    "memory": lambda _: MemoryHarness(),
    "nats": lambda request: NatsHarness(request.getfixturevalue("shared_nats_server")),
    "kafka": lambda request: KafkaHarness(request.getfixturevalue("shared_kafka").bootstrap),
}


@pytest.fixture
def harness(request: pytest.FixtureRequest) -> Harness:
    """A broker under test. Another one joins with a name here, and in `test_conformance`."""
    return MAKERS[request.param](request)
