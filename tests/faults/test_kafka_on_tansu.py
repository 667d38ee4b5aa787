"""What a bus does on Tansu, which stands in for Kafka where there is no Java: what that can serve
is right, and what it cannot is refused, and never a wrong answer."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from tbus import ConfigurationError, TopicOptions, open_bus
from tbus._message import Position
from tbus.servers._tansu import find_tansu
from tbus.testing import take_census
from tbus.testing.conformance._kit import Seen, publish_pairs, publish_text

URL = "kafka+embedded://"


@pytest.fixture(autouse=True)
def _no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_tansu() is None:
        if os.environ.get("TBUS_REQUIRE_BROKERS") == "1" or os.environ.get("CI") == "true":
            pytest.fail("a broker that must be here is missing: no Tansu", pytrace=False)
        pytest.skip("no Tansu")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


async def test_a_group_handles_each_key_in_order_and_goes_on_where_it_stood(topic):
    seen, again = Seen(), Seen()
    with trio.fail_after(40):
        before = take_census()
        async with open_bus(URL, kafka={"session_timeout": 2.0}) as bus:
            await bus.configure_topic(topic, TopicOptions(partitions=3))
            subscription = await bus.subscribe(topic, seen, group=topic)
            pairs = [(key, letter) for letter in "abcdef" for key in ("1", "2", "3", "4")]
            await publish_pairs(bus, topic, pairs)
            await seen.wait(len(pairs))
            await subscription.close()
            await publish_text(bus, topic, "xyz", key="5")
            await bus.subscribe(topic, again, group=topic)
            await again.wait(3)
        left = take_census().beyond(before)
    assert seen.by_key() == dict.fromkeys(("1", "2", "3", "4"), "abcdef")
    assert again.text == "xyz"
    assert not left


async def test_a_reader_without_a_group_sees_everything(topic):
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(URL) as bus:
            await publish_text(bus, topic, "abc")
            await bus.subscribe(topic, seen, start="earliest")
            await publish_text(bus, topic, "def")
            await seen.wait(6)
    assert seen.text == "abcdef"


async def test_where_a_topic_ends_is_not_told_but_refused(topic):
    with trio.fail_after(20):
        async with open_bus(URL) as bus:
            await publish_text(bus, topic, "abc")
            with pytest.raises(ConfigurationError, match=r"Tansu, which cannot count.*Java 17"):
                await bus.lag(topic, topic)


@pytest.mark.parametrize(
    "start", ["latest", Position(0, 1), datetime(2026, 1, 1, tzinfo=UTC)], ids=repr
)
@pytest.mark.parametrize("grouped", [True, False])
async def test_another_place_than_the_beginning_is_refused(topic, grouped, start):
    """It takes every time for the topic's beginning."""
    group = topic if grouped else None
    with trio.fail_after(20):
        async with open_bus(URL) as bus:
            await publish_text(bus, topic, "abc")
            with pytest.raises(ConfigurationError, match=r"Tansu, which cannot start.*Java 17"):
                await bus.subscribe(topic, Seen(), group=group, start=start)


async def test_partitions_are_not_changed(topic):
    with trio.fail_after(20):
        async with open_bus(URL) as bus:
            await bus.configure_topic(topic, TopicOptions(partitions=2))
            with pytest.raises(ConfigurationError, match="partitions"):
                await bus.configure_topic(topic, TopicOptions(partitions=3))
