"""What the command line does with result files: `report` and `compare`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .comparing import compare_files, compared_page
from .evidence import EVIDENCE, is_result, render, result_files
from .noise import TOLERANCE
from .page import page


def report(arguments: Sequence[str]) -> int:
    """Pages and plots of result files; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks report",
        description="Without files: the page, and the plots as PNG and SVG, of every result file"
        " in docs/evidence, beside it. With files and no --into: their pages, printed.",
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="written by --json")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="write pages and plots there")
    given = parser.parse_args(arguments)
    if given.files and given.into is None:
        for file in given.files:
            print(page(_results(parser, file)), end="")
        return 0
    for file in given.files:
        _results(parser, file)
    into = given.into or EVIDENCE
    try:
        written = render(given.files or result_files(EVIDENCE), into)
    except OSError as error:
        parser.error(f"{error.filename or into} cannot be written: {error.strerror}")
    for path in written:
        print(into / path)
    return 0


def compare(arguments: Sequence[str]) -> int:
    """Hold one result file against a later one; returns the exit code: 1 if something got
    worse."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare",
        description="What changed from one result file to another, outside the noise. Ends with"
        " 1 if something got worse, with 2 if the two cannot be compared.",
    )
    parser.add_argument("before", type=Path, metavar="BEFORE")
    parser.add_argument("after", type=Path, metavar="AFTER")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="PART",
        help=f"changes that do not matter ({TOLERANCE:g}: five percent)",
    )
    given = parser.parse_args(arguments)
    if not 0 <= given.tolerance < 1:
        parser.error("--tolerance: a part, 0 to 1")
    before, after = _results(parser, given.before), _results(parser, given.after)
    try:
        found = compare_files(before, after, given.tolerance)
    except ValueError as error:
        parser.error(str(error))
    print(compared_page(found, [str(given.before), str(given.after)]), end="")
    return found.exit_code()


def _results(parser: argparse.ArgumentParser, file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        parser.error(f"{file}: {error}")
    if not is_result(data):
        parser.error(f"{file} holds no results of `python -m benchmarks --json`")
    return data  # type: ignore[no-any-return]
