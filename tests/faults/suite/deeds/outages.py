"""Who dies, ends, or stands still: brokers, and the program."""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Iterator

import trio

from ..stage import Stage
from ._moments import moments


async def kill(stage: Stage) -> None:
    """SIGKILL of one node after another, and a start within half a second."""
    for node in in_turn(stage):
        await trio.sleep(random.uniform(0.5, 1.5))
        stage.ground.kill(node)
        stage.note("kill")
        await trio.sleep(random.uniform(0.0, 0.5))
        await stage.ground.start(node)


async def restart(stage: Stage) -> None:
    """One node after another ends in order, and is started."""
    for node in in_turn(stage):
        await trio.sleep(random.uniform(0.5, 1.5))
        stage.ground.stop(node)
        stage.note("restart")
        await stage.ground.start(node)


async def suspend(stage: Stage) -> None:
    """SIGSTOP of one node after another for up to 2 s."""
    for node in in_turn(stage):
        await trio.sleep(random.uniform(0.3, 0.8))
        stage.ground.suspend(node)
        stage.note("suspension")
        await trio.sleep(random.uniform(0.5, 2.0))
        stage.ground.resume(node)


async def suspend_long(stage: Stage) -> None:
    """SIGSTOP of one node until all who wait for it have given up."""
    await trio.sleep(0.5)
    stage.ground.suspend(stage.ground.nodes[0])
    stage.note("suspension")
    await trio.sleep_until(stage.until)
    stage.ground.resume(stage.ground.nodes[0])


async def kill_all(stage: Stage) -> None:
    """SIGKILL of every node; nobody starts them again."""
    await trio.sleep_until(stage.until)
    for node in stage.ground.nodes:
        stage.ground.kill(node)
    stage.note("kill")
    await trio.sleep(0.3)


async def suspend_all(stage: Stage) -> None:
    """SIGSTOP of every node; they stay so."""
    await trio.sleep_until(stage.until)
    for node in stage.ground.nodes:
        stage.ground.suspend(node)
    stage.note("suspension")
    await trio.sleep(0.3)


async def restart_empty(stage: Stage) -> None:
    """SIGKILL of a broker that keeps everything in memory, when all is handled."""
    async for _ in moments(stage):
        await stage.quiet()
        stage.ground.kill(1)
        stage.note("kill")
        await stage.ground.start(1)
        await stage.program.tell("go")


def in_turn(stage: Stage) -> Iterator[int]:
    """The nodes, in any order: each of them once, and over and over as long as there is time."""
    nodes = random.sample(stage.ground.nodes, len(stage.ground.nodes))
    yield from nodes
    for node in itertools.cycle(nodes):
        if trio.current_time() >= stage.until:
            return
        yield node


async def suspend_program(stage: Stage) -> None:
    """SIGSTOP of the program for longer than any lease or session."""
    await trio.sleep(0.5)
    stage.program.process.send_signal(signal.SIGSTOP)
    stage.note("suspension")
    await trio.sleep_until(stage.until)
    stage.program.process.send_signal(signal.SIGCONT)
