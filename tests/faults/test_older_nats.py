"""Servers before 2.14, which know no `CONSUMER.RESET`, and before 2.11, which keep no order.

`TBUS_TEST_OLDER_NATS` names older nats-servers, separated like the directories of `PATH`: each
of them is run. Without them the newest one is, as if it were 2.13, and as if it were 2.10.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tbus import ConfigurationError, Message, TopicOptions, open_bus
from tbus._events import PartitionsAssigned
from tbus.testing.conformance._kit import Gate, Seen, publish_text, watching
from tbus.transports.nats import _served
from tests.brokers.nats import NatsServer
from tests.brokers.proxy import Direction

NEVER = (99, 0)
"""A version that no server has."""


def find_older() -> Iterator[tuple[str, tuple[int, int]]]:
    """Each older server that there is, with its version."""
    for name in filter(None, os.environ.get("TBUS_TEST_OLDER_NATS", "").split(os.pathsep)):
        binary = shutil.which(name)
        assert binary is not None, f"TBUS_TEST_OLDER_NATS: {name!r} is no program"
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
        major, minor, *_ = said.stdout.rpartition("v")[2].split(".")
        yield binary, (int(major), int(minor))


OLDER = list(find_older())

HERE: list[str | None] = [None]
"""The server that all other tests use, too."""


@pytest.fixture(params=[binary for binary, version in OLDER if version >= (2, 11)] or HERE)
def server_without_reset(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NatsServer]:
    """Real ones, or the newest one with its reset left alone."""
    yield from _start(request, tmp_path, monkeypatch, "server_without_reset")


@pytest.fixture(params=[binary for binary, version in OLDER if version < (2, 11)] or HERE)
def server_without_order(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NatsServer]:
    """The same for servers that are too old."""
    yield from _start(request, tmp_path, monkeypatch, "server_without_order")


def _start(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> Iterator[NatsServer]:
    if request.param is None:
        server: NatsServer = request.getfixturevalue("nats_server")
        if what == "server_without_reset":
            monkeypatch.setattr(_served, "RESET_SINCE", NEVER)
        else:
            monkeypatch.setattr(_served, "ORDER_SINCE", NEVER)
        yield server
        return
    with NatsServer(tmp_path / "older", binary=request.param) as server:
        yield server


async def test_what_was_pulled_and_did_not_arrive_comes_in_its_place_without_a_reset(
    server_without_reset: NatsServer, open_tcp_proxy: Any, topic: str
) -> None:
    seen = Seen()
    proxy = await open_tcp_proxy(server_without_reset.port)
    text = "".join(chr(ord("a") + number % 26) for number in range(200))
    with trio.fail_after(30):
        async with open_bus(server_without_reset.url) as publisher, open_bus(proxy.url) as bus:
            await bus.subscribe(topic, seen, group="g")
            for part in range(4):
                proxy.cut_after(1500, Direction.TO_CLIENT)
                await publish_text(publisher, topic, text[part * 50 : part * 50 + 50])
                await seen.wait(part * 50 + 50)
    assert seen.text == text
    assert proxy.connections_made >= 3


async def test_messages_in_hand_when_the_server_is_killed_are_not_repeated_without_a_reset(
    server_without_reset: NatsServer, topic: str
) -> None:
    gate, seen = Gate(), Seen()

    async def handle(message: Message) -> None:
        await gate(message)
        await seen(message)

    with trio.fail_after(30):
        async with open_bus(server_without_reset.url) as bus:
            await bus.subscribe(topic, handle, group="g")
            await publish_text(bus, topic, "abc", key="one")
            await publish_text(bus, topic, "123", key="two")
            await gate.wait(2)
            server_without_reset.kill()
            server_without_reset.start()
            await publish_text(bus, topic, "def", key="one")
            gate.open()
            await seen.wait(9)
            while (await bus.lag(topic, "g")).messages:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
    assert seen.by_key() == {"one": "abcdef", "two": "123"}


async def test_who_takes_over_from_one_that_was_cut_off_keeps_the_order_without_a_reset(
    server_without_reset: NatsServer, open_tcp_proxy: Any, topic: str
) -> None:
    gate, seen = Gate(), Seen()
    proxy = await open_tcp_proxy(server_without_reset.port)
    with trio.fail_after(40):
        async with (
            open_bus(proxy.url, grace=0) as cut,
            open_bus(server_without_reset.url) as other,
            watching(other) as watch,
        ):
            await other.configure_topic(topic, TopicOptions(partitions=2))
            await cut.subscribe(topic, gate, group="g")
            for key in ("a", "b", "c", "d"):
                await publish_text(other, topic, "123", key=key)
            await gate.wait(4)
            proxy.hold()
            await other.subscribe(topic, seen, group="g")
            await seen.wait(12)
            proxy.release()
            proxy.cut()
            epochs = {event.epoch for event in watch.of(PartitionsAssigned)}
    assert set(seen.by_key().values()) == {"123"}
    assert epochs == {2}


@pytest.mark.parametrize("group", ["g", None])
async def test_a_server_that_is_too_old_for_order_is_named_with_what_to_do(
    server_without_order: NatsServer, topic: str, group: str | None
) -> None:
    seen = Seen()
    with trio.fail_after(20):
        async with open_bus(server_without_order.url) as bus:
            with pytest.raises(ConfigurationError, match=r"nats-server is 2\.\d+.*order='none'"):
                await bus.subscribe(topic, seen, group=group)
            await bus.subscribe(topic, seen, group="g", order="none")
            await bus.publish(topic, b"x")
            await seen.wait(1)
