"""All commands under one name, and what becomes of their errors."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from .._errors import TbusError
from ._bench_command import bench
from ._dead import dead
from ._demo_command import demo
from ._doctor import doctor
from ._escape import escaped
from ._pub_sub import pub, sub
from ._standard import fill_in
from ._top_command import top
from ._topics import lag, topics

_LOG_LINES = 3


def _version() -> str:
    try:
        return importlib.metadata.version("tbus")
    except importlib.metadata.PackageNotFoundError:
        return "(run from its source, not installed)"


class _Commands(click.Group):
    """Commands whose reader may go (`tbus sub orders | head`): click itself would make 1 of it,
    which stands for a failure."""

    def invoke(self, ctx: click.Context) -> object:
        """Run what was named; gives its exit code."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return _reader_gone()


def _reader_gone() -> int:
    # What is still buffered would fail again while Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 called wrongly, 130 ended by Ctrl-C.",
)
@click.version_option(_version(), prog_name="tbus", message="%(prog)s %(version)s")
def app() -> None:
    """An event bus over NATS JetStream, Kafka and memory.

    Begin with `tbus demo`: it needs nothing but this package.
    """


for _command in (demo, pub, sub, topics, lag, top, dead, bench, doctor):
    app.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit code. An error is one line on stderr."""
    fill_in()
    try:
        with warnings.catch_warnings(), _telling_of_trouble_itself():
            # Commands return their exit code, and click hands it on.
            code = app.main(list(arguments), prog_name="tbus", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return _reader_gone()
    except (TbusError, OSError) as error:
        first, *rest = str(error).splitlines() or [type(error).__name__]
        # What follows is the end of a server's log.
        lines = [f"tbus: {escaped(first)}", *(f"  {escaped(line)}" for line in rest[-_LOG_LINES:])]
        click.echo("\n".join(lines), err=True)
        return 1


@contextmanager
def _telling_of_trouble_itself() -> Iterator[None]:
    """Commands show what goes wrong in words of their own: it need not stand in their midst once
    more, as a log of events that nobody set up."""
    log, nowhere = logging.getLogger("tbus.events"), logging.NullHandler()
    log.addHandler(nowhere)
    try:
        yield
    finally:
        log.removeHandler(nowhere)
