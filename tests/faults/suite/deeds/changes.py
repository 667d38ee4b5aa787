"""What changes all of a sudden: the password, the time."""

from __future__ import annotations

import random

import trio

from ..grounds import PASSWORD
from ..stage import Stage
from ._moments import moments


async def change_password(stage: Stage) -> None:
    """The broker wants another password for a while; it throws out who gave the old one."""
    async for _ in moments(stage):
        await stage.ground.set_password("another")
        stage.note("wrong password")
        await trio.sleep(random.uniform(1.0, 2.0))
        await stage.ground.set_password(PASSWORD)


async def step_clock(stage: Stage) -> None:
    """The wall clock jumps forth and back by up to a day."""
    assert stage.ground.clock is not None
    async for _ in moments(stage):
        stage.ground.clock.step(random.choice([-86400.0, -3600.0, -2.0, 0.0, 2.0, 3600.0, 86400.0]))
        stage.note("step")
