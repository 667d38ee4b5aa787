"""The block in which a child process is looked after, whatever server it is."""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import attrs

from .._errors import BusError, ConfigurationError
from ._child import OwnedChild


@attrs.define(eq=False)
class Tended:
    """A child in its block.

    Attributes:
        child: the process.
        patience: seconds that it is given to end after SIGTERM. None is given to one that
            never became ready: it has nothing to finish.
    """

    child: OwnedChild
    patience: float = 0.0


@asynccontextmanager
async def tend(child: OwnedChild, name: str) -> AsyncIterator[Tended]:
    """Read its log and wait for its end while the block runs; then stop it.

    What the block raises comes out as it is, not in a group, once the child has ended.

    Raises:
        BusError: it could not be killed.
    """
    tended = Tended(child)
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as watchers:
            watchers.start_soon(child.read_log)
            watchers.start_soon(child.watch)
            try:
                yield tended
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 - raised again below
                # Kept until the task group, which would wrap it, has ended.
                failure = error
            watchers.cancel_scope.cancel()
    finally:
        await child.stop(tended.patience)  # noqa: ASYNC102 - it shields and bounds itself
    try:
        if failure is not None:
            raise failure
    finally:
        del failure
    if child.returncode is None:
        raise BusError(f"the {name} with pid {child.pid} could not be killed")


def check_options(name: str, **seconds: float) -> None:
    """Refuse what no server can be started with.

    Raises:
        ConfigurationError: a time is not one, or the system is not POSIX.
    """
    if sys.platform == "win32":
        raise ConfigurationError(
            f"an embedded server needs a POSIX system: run a {name} on its own and"
            " connect to it by its address"
        )
    for field, value in seconds.items():
        if not (value > 0 and math.isfinite(value)):
            raise ConfigurationError("give seconds, more than 0", field=field, value=value)


def failed_start(name: str, problem: str, child: OwnedChild) -> BusError:
    """The error of a server that did not start, with the end of its log."""
    return BusError(f"the embedded {name} did not start: {problem}. {told(child)}")


def told(child: OwnedChild) -> str:
    """The end of its log, as the end of an error's message."""
    lines = "".join(f"\n  {line}" for line in child.last_lines) or " nothing"
    return f"It wrote:{lines}"


def status(returncode: int) -> str:
    """How it ended, in words."""
    return f"status {returncode}" if returncode >= 0 else f"signal {-returncode}"
