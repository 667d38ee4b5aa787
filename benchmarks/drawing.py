"""Plots of what was measured: one style, and files that change only if the figures do.

matplotlib comes with the extra `bench`; nothing else needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .plans import Comparison
from .series import better_of, is_ours
from .tables import digits_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS = "#0b5fa5"
OURS_TOO = "#7fb2dd"
PEER = "#8a8f98"
MISSED = "#c1440e"
"""Colours that differ in brightness too, for eyes and printers that see no others."""

STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#c9ccd1",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titleweight": "bold",
    "axes.labelcolor": "#4a4f57",
    "axes.labelsize": 9,
    "figure.facecolor": "white",
    "font.size": 9,
    "grid.color": "#e7e9ec",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.dpi": 144,
    "svg.fonttype": "none",  # text stays text: a fifth of the size, and it can be searched
    "svg.hashsalt": "tbus",
    "xtick.color": "#4a4f57",
    "ytick.color": "#22262b",
    "ytick.left": False,
}

WIDTH = 9.0
"""Inches."""

MOST_DIGITS = 9
"""Behind the point of a tick."""


def new_figure(rows: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many plots below each other, each so many inches high.

    Raises:
        SystemExit: there is no matplotlib.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - slow, and only this needs it
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SystemExit("plots need matplotlib: pip install 'tbus[bench]'") from error
    mpl.rcParams.update(STYLE)
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]


def save(figure: Figure, base: Path) -> list[Path]:
    """Write `base`.png and `base`.svg; the same figures make the same bytes.

    Returns:
        the files.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    files = [base.with_name(f"{base.name}.{kind}") for kind in ("png", "svg")]
    figure.savefig(files[0], metadata={"Software": None}, pil_kwargs={"optimize": True})
    figure.savefig(files[1], metadata={"Date": None, "Creator": None})
    return files


# --- one comparison ----------------------------------------------------------------------


def draw_comparison(comparison: Comparison, entry: Mapping[str, Any]) -> Figure:
    """Every contestant's rounds and median, and by how much tbus differs."""
    shown = [one for one in comparison.contestants if one.name in entry["contestants"]]
    figure, plots = new_figure(len(comparison.figures), 1.05 + 0.36 * len(shown))
    for plot, (name, unit) in zip(plots, comparison.figures.items(), strict=True):
        _draw_figure(plot, comparison, entry, name, unit)
    return figure


def _draw_figure(
    plot: Axes, comparison: Comparison, entry: Mapping[str, Any], name: str, unit: str
) -> None:
    taken = entry["contestants"]
    shown = [one for one in comparison.contestants if one.name in taken]
    places = range(len(shown), 0, -1)
    ours = comparison.ours.name
    values = [[round_[name] for round_ in taken[one.name]["rounds"]] for one in shown]
    widest = max(max(rounds) for rounds in values)
    digits = digits_of(unit)
    for place, one, rounds in zip(places, shown, values, strict=True):
        middle = taken[one.name]["figures"][name]["median"]
        colour = OURS if one.name == ours else OURS_TOO if is_ours(one.name) else PEER
        plot.barh(place, middle, height=0.62, color=colour)
        plot.plot(
            rounds, [place] * len(rounds), "o", markersize=3.2, color="white",
            markeredgecolor="#22262b", markeredgewidth=0.6,
        )  # fmt: skip
        beside = max(middle, *rounds) + widest * 0.015
        plot.text(beside, place, f"{middle:,.{digits}f}", va="center", color="#22262b")
        if ratio := taken[one.name]["ratios"].get(name):
            _beside(plot, place, f"tbus {_times(ratio)}", "#4a4f57")
    plot.set_yticks(list(places), [_plain(one.label) for one in shown])
    plot.set_xlim(0, widest * 1.2)
    plot.grid(visible=False, axis="y")
    plot.xaxis.set_major_formatter(
        lambda value, _: tick(value, list(plot.xaxis.get_majorticklocs()))
    )
    more = "more is better" if better_of(unit) == "more" else "less is better"
    about = f"{unit}, {more}; bars are medians, dots rounds"
    if any(taken[one.name]["ratios"] for one in shown):
        about += "\ntbus ... x: median of the ratios of each round (smallest-largest)"
    plot.set_xlabel(about)
    named = "" if len(comparison.figures) == 1 else f": {name}"
    plot.set_title(f"{comparison.title}{named}")


def tick(value: float, ticks: Sequence[float]) -> str:
    """The words at a tick, with as many digits as the step between the ticks needs."""
    step = min((b - a for a, b in pairwise(ticks)), default=1.0)
    digits = next(d for d in range(MOST_DIGITS + 1) if d == MOST_DIGITS or _is_whole(step * 10**d))
    return f"{value:,.{digits}f}"


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6 * abs(value)


def _beside(plot: Axes, place: float, text: str, colour: str) -> None:
    """Write to the right of a plot, where no bar can be."""
    plot.text(1.01, place, text, va="center", color=colour, transform=plot.get_yaxis_transform())


def _times(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} x ({ratio['min']:.2f}-{ratio['max']:.2f})"


def _plain(label: str) -> str:
    return label.replace("`", "")


# --- all targets -------------------------------------------------------------------------


def draw_targets(comparisons: Sequence[tuple[Comparison, Mapping[str, Any]]]) -> Figure | None:
    """Every ratio that has a target, beside it; None if there is none."""
    rows: dict[str, tuple[Mapping[str, float], list[Mapping[str, Any]]]] = {}
    for comparison, entry in comparisons:
        labels = {one.name: _plain(one.label) for one in comparison.contestants}
        for target in entry["targets"]:
            if target["against"] is not None:
                ratio = entry["contestants"][target["against"]]["ratios"][target["figure"]]
                what = f"{comparison.name}, {target['figure']}: {labels[target['against']]}"
                rows.setdefault(what, (ratio, []))[1].append(target)
    if not rows:
        return None
    figure, [plot] = new_figure(1, 1.25 + 0.36 * len(rows))
    for place, (ratio, targets) in zip(range(len(rows), 0, -1), rows.values(), strict=True):
        colour = OURS if all(target["met"] for target in targets) else MISSED
        plot.plot([ratio["min"], ratio["max"]], [place, place], "-", color=colour, linewidth=2)
        plot.plot(ratio["median"], place, "o", color=colour, markersize=7)
        wanted = []
        for target in targets:
            plot.plot(
                target["value"], place, "|", color="#22262b", markersize=15, markeredgewidth=2
            )
            wanted.append(f"{'≥' if target['kind'] == 'at least' else '≤'} {target['value']:g}")
        _beside(plot, place, f"{ratio['median']:.2f}  ({', '.join(wanted)})", colour)
    plot.set_xscale("log")
    plot.axvline(1, color="#9aa0a8", linewidth=1)
    plot.xaxis.set_major_formatter(lambda value, _: f"{value:g} x")
    plot.xaxis.set_minor_formatter(lambda _value, _: "")
    plot.set_yticks(range(len(rows), 0, -1), list(rows))
    plot.grid(visible=False, axis="y")
    plot.set_xlabel(
        "tbus over the peer, in each round: dot the median of these ratios,\n"
        "line from the smallest to the largest, tick the target"
    )
    plot.set_title("Ratios and their targets")
    return figure
