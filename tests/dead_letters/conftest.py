"""The brokers that dead letters are tested over."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tbus.testing import Harness, MemoryHarness
from tests.brokers.harness import NatsHarness


@pytest.fixture(params=["memory", pytest.param("nats", marks=pytest.mark.broker)])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """Each broker in turn, running until the end of the test."""
    harness: Harness = MemoryHarness()
    if request.param == "nats":
        harness = NatsHarness(request.getfixturevalue("shared_nats_server"))
    async with harness.running():
        yield harness
