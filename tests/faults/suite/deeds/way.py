"""The way between the program and its broker."""

from __future__ import annotations

import random

from tests.brokers.proxy import BOTH, TcpProxy

from ..stage import Stage
from ._moments import moments


async def cut(stage: Stage) -> None:
    """Every connection is reset."""
    async for _ in moments(stage):
        if sum([proxy.cut() for proxy in stage.ground.proxies.values()]):
            stage.note("cut")


async def delay(stage: Stage) -> None:
    """Each piece takes up to 0.4 s more, either way, until the next moment."""
    async for _ in moments(stage):
        for proxy in stage.ground.proxies.values():
            proxy.delay(random.choice([0.0, random.uniform(0.05, 0.4)]), random.choice(BOTH))
        stage.note("delay")


async def half_close(stage: Stage) -> None:
    """Every connection ends in one direction, and goes on in the other."""
    async for _ in moments(stage):
        direction = random.choice(BOTH)
        for proxy in stage.ground.proxies.values():
            proxy.half_close(direction)
        stage.note("half-close")


async def trouble(stage: Stage) -> None:
    """Any of the three."""
    async for _ in moments(stage):
        for proxy in stage.ground.proxies.values():
            break_somehow(proxy)
        stage.note("cut, delay or half-close")


def break_somehow(proxy: TcpProxy) -> None:
    """Cut, delay or half-close."""
    proxy.delay(0)
    random.choice(
        [
            proxy.cut,
            lambda: proxy.delay(random.uniform(0.05, 0.4)),
            lambda: proxy.half_close(random.choice(BOTH)),
        ]
    )()
