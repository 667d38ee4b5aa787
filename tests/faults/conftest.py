"""A nats-server of the test's own, behind a proxy: to cut, suspend and kill."""

from __future__ import annotations

import pytest

from tests.brokers.harness import BreakableKafkaHarness, BreakableNatsHarness
from tests.brokers.kafka import KafkaCluster
from tests.brokers.nats import NatsServer


@pytest.fixture
def harness(nats_server: NatsServer) -> BreakableNatsHarness:
    return BreakableNatsHarness(nats_server)


@pytest.fixture
def kafka(kafka_node: KafkaCluster) -> BreakableKafkaHarness:
    return BreakableKafkaHarness(kafka_node)
