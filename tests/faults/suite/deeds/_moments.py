"""When things are done."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import trio

from ..stage import Stage


async def moments(stage: Stage) -> AsyncIterator[None]:
    """One every 0.5 to 1.5 s, as long as there is time."""
    while trio.current_time() < stage.until:
        await trio.sleep(random.uniform(0.5, 1.5))
        yield
