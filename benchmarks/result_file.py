"""The file that `--json` names: looked at before anything is measured, and written whole.

A run takes up to an hour: what there is of it is kept in `FILE.part` meanwhile, in case of an
end, and takes the place of FILE when everything is measured. Until then FILE is what it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

Write = Callable[[Mapping[str, Any]], Awaitable[None]]


def result_file(words: str) -> Path:
    """For a command line: a file that can be written.

    Raises:
        argparse.ArgumentTypeError: it cannot, and why.
    """
    file = Path(words).resolve()  # a link stays one, and what it leads to is written
    if file.exists() and not file.is_file():
        raise argparse.ArgumentTypeError(f"{words} is there, and is no ordinary file")
    part = part_of(file)
    was_there = part.exists()
    try:
        part.open("a").close()
        if not was_there:
            part.unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{words} cannot be written: {error.strerror}") from error
    return file


def part_of(file: Path) -> Path:
    """Where results stand while there are more to come."""
    return file.with_name(f"{file.name}.part")


@asynccontextmanager
async def writing(file: Path | None) -> AsyncIterator[Write]:
    """Results that are there when the block ends; if it fails, they stay beside the file.

    Args:
        file: where; None: nowhere.

    Returns:
        keeps what there is so far; called at least once.
    """
    kept = False

    async def keep(results: Mapping[str, Any]) -> None:
        nonlocal kept
        if file is not None:
            await trio.Path(part_of(file)).write_text(json.dumps(results, indent=1) + "\n")
            kept = True

    try:
        yield keep
    except BaseException:
        if file is not None and kept:
            print(f"what was measured until then: {part_of(file)}", file=sys.stderr, flush=True)
        raise
    if file is not None:
        part_of(file).replace(file)
