"""The brokers that every conformance case runs over: one fixture, one name for each."""

from __future__ import annotations

import pytest

from tbus.testing import Harness, MemoryHarness
from tests.brokers.harness import NatsHarness

pytest.register_assert_rewrite("tbus.testing.conformance")


@pytest.fixture(params=["memory", "nats"])
def harness(request: pytest.FixtureRequest) -> Harness:
    """A broker under test. Another one joins with a name and a harness here."""
    if request.param == "memory":
        return MemoryHarness()
    return NatsHarness(request.getfixturevalue("shared_nats_server"))
