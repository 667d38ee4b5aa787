"""A soak, recorded and shown; Ctrl-C ends it early, and what there is by then is reported."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import Any

import trio
from rich.console import Console

from tbus.cli._beside import running_beside

from .soak import Figures, Soak, soak
from .soak_record import Record
from .soak_view import SoakView
from .workload import Failed

REDRAW_EVERY = 0.5
"""Seconds."""


async def watch_soak(plan: Soak, url: str) -> dict[str, Any]:
    """One entry for the results.

    Args:
        plan: what is done.
        url: where the broker is.

    Raises:
        Failed: a round did, or there was none.
    """
    record = Record()
    began = time.monotonic()

    def tell(figures: Figures) -> None:
        record.add(time.monotonic() - began, figures)

    screen = SoakView(Console(stderr=True), plan.title, plan.seconds, record)
    with screen as view, trio.CancelScope() as scope:
        async with running_beside(partial(_watch, view, scope), "view of the soak"):
            await soak(plan, url, tell)
    if not record.rounds:
        raise Failed("not one round was finished")
    return record.entry(plan.title, plan.what)


async def _watch(view: SoakView, scope: trio.CancelScope) -> None:
    """Draw it anew now and then, and end it at an interrupt."""
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        while True:
            view.redraw()
            with trio.move_on_after(REDRAW_EVERY):
                async for _ in signals:
                    scope.cancel()
                    break
