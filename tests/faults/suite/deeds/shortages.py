"""No room: on the disk, in the store, in memory."""

from __future__ import annotations

import random

import trio

from tests.brokers.harness import ask
from tests.brokers.nats import NatsServer

from ..grounds import nats_of
from ..stage import Stage
from ..surroundings import fill
from ._moments import moments


async def fill_disk(stage: Stage) -> None:
    """The broker's disk is full for a while; it is started again when there is room."""
    assert stage.ground.disk is not None
    await trio.sleep(1.0)
    ballast = fill(stage.ground.disk)
    stage.note("full disk")
    await trio.sleep_until(stage.until - 2.0)
    ballast.unlink()
    for node in stage.ground.nodes:
        stage.ground.kill(node)
        await stage.ground.start(node)
    await trio.sleep(2.0)


async def fill_store(stage: Stage) -> None:
    """Another stream takes all the room that the server allows itself, and is deleted."""
    server = nats_of(stage.ground).server
    storage = "memory" if "storage" in stage.job.settings["nats"] else "file"
    ballast = {"name": "ballast", "subjects": ["ballast"], "storage": storage}
    async for _ in moments(stage):
        assert "error" not in ask(server, "$JS.API.STREAM.CREATE.ballast", ballast)
        for size in (65536, 1024, 16):
            await fill_stream(server, size)
        stage.note("no room")
        await trio.sleep(random.uniform(1.0, 4.0))  # leases last 1.8 s
        assert ask(server, "$JS.API.STREAM.DELETE.ballast")["success"]


async def fill_stream(server: NatsServer, size: int) -> None:
    """Publish to it until the server refuses."""
    stored = ask(server, "ballast", "x" * size)
    while "error" not in stored:
        await trio.lowlevel.checkpoint()  # the proxy is in this process
        stored = ask(server, "ballast", "x" * size)
