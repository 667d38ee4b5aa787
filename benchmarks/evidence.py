"""`report`: pages and plots of result files, as they stand in docs/evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .comparisons import COMPARISONS
from .curves import draw_axis
from .drawing import draw_comparison, draw_targets, save
from .page import page

EVIDENCE = Path(__file__).parents[1] / "docs" / "evidence"

PLOTS = "plots"
"""Folder of the plots, beside the pages."""


def is_result(data: object) -> bool:
    """Whether a file holds what this package measured."""
    return isinstance(data, dict) and {"machine", "command", "results"} <= data.keys()


def result_files(folder: Path) -> list[Path]:
    """The result files of a folder, sorted."""
    return [
        file for file in sorted(folder.glob("*.json")) if is_result(json.loads(file.read_text()))
    ]


def render(files: Iterable[Path], into: Path) -> list[Path]:
    """A page for each result file, named like it, and a plot for each comparison in it.

    Returns:
        what was written, relative to `into`.

    Raises:
        SystemExit: a file holds no results, or there is no matplotlib.
        OSError: nothing can be written there.
    """
    into.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for file in files:
        results = json.loads(file.read_text())
        if not is_result(results):
            raise SystemExit(f"{file} holds no results of `python -m benchmarks --json`")
        plots = draw_all(results, into / PLOTS / file.stem)
        pictures = {name: f"{PLOTS}/{file.stem}/{name}.svg" for name in plots}
        target = into / f"{file.stem}.md"
        target.write_text(page(results, pictures))
        written += [target, *(path for paths in plots.values() for path in paths)]
    return [path.relative_to(into) for path in written]


def draw_all(results: Mapping[str, Any], folder: Path) -> dict[str, list[Path]]:
    """Draw every comparison of a result file, and the targets; returns the files by name."""
    entries = results["results"]
    found = [(one, entries[name]) for name, one in COMPARISONS.items() if name in entries]
    plots = {
        comparison.name: save(draw_comparison(comparison, entry), folder / comparison.name)
        for comparison, entry in found
    }
    for name, points in entries.get("scale", {"axes": {}})["axes"].items():
        if points:
            plots[f"scale-{name}"] = save(draw_axis(name, points), folder / f"scale-{name}")
    targets = draw_targets(found)
    if targets is not None:
        plots["targets"] = save(targets, folder / "targets")
    return plots
