"""The curves: one picture for each axis, one plot for each figure, a line for each transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .drawing import MISSED, OURS, PEER, new_figure
from .scale_plans import AXES, IDLE_CPU, IDLE_TOPIC, KIB, LABELS, Axis, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

LINES: Mapping[str, tuple[str, str, str]] = {
    "memory": (PEER, "^", ":"),
    "nats": (OURS, "o", "-"),
    "kafka": (MISSED, "s", "--"),
}
"""Colour, mark and line of each: any one of them tells them apart."""

TARGETS: Mapping[str, float] = {"kib_per_topic": IDLE_TOPIC / KIB, "idle_percent": IDLE_CPU}

HEIGHT = 2.6
"""Inches of one plot."""

MARGIN = 1.15
"""Part of the first and of the last value that is left beside the curves."""


def draw_axis(name: str, points: Sequence[Mapping[str, Any]]) -> Picture:
    """All figures of one axis."""
    axis = AXES[name]
    picture, plots = new_figure(len(axis.figures), HEIGHT)
    for plot, figure in zip(plots, axis.figures, strict=True):
        _draw(plot, axis, figure, points)
    plots[0].set_title(f"Scale: {axis.title.lower()}")
    plots[0].legend(loc="best", ncols=len(LINES))
    plots[-1].set_xlabel(_plain(axis.unit))
    return picture


def _draw(plot: Axes, axis: Axis, figure: Figure, points: Sequence[Mapping[str, Any]]) -> None:
    for transport, (colour, mark, line) in LINES.items():
        found = [
            (point["value"], point["figures"][figure.name])
            for point in points
            if point["transport"] == transport and figure.name in point["figures"]
        ]
        if not found:
            continue
        at = [value for value, _ in found]
        middle = [spread["median"] / figure.share for _, spread in found]
        plot.fill_between(
            at,
            [spread["min"] / figure.share for _, spread in found],
            [spread["max"] / figure.share for _, spread in found],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        plot.plot(
            at, middle, line, marker=mark, markersize=4.5, color=colour, label=LABELS[transport]
        )
    if (target := TARGETS.get(figure.name)) is not None:
        plot.axhline(target, color="#22262b", linewidth=1, linestyle=(0, (1, 2)))
        plot.annotate(
            f"target: below {target:g}", (1, target), xycoords=plot.get_yaxis_transform(),
            ha="right", va="bottom", color="#22262b", fontsize=8,
        )  # fmt: skip
    plot.set_ylabel(figure.label)
    plot.set_xscale("log")
    plot.set_xticks(axis.values, [_short(value) for value in axis.values])
    plot.xaxis.set_minor_locator(_no_ticks())
    plot.set_xlim(axis.values[0] / MARGIN, axis.values[-1] * MARGIN)
    if figure.log:
        plot.set_yscale("log")
        plot.yaxis.set_major_locator(_round_numbers())
        plot.yaxis.set_minor_locator(_no_ticks())
        plot.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        plot.yaxis.set_minor_formatter(lambda _value, _: "")
    else:
        plot.set_ylim(bottom=min(0.0, plot.get_ylim()[0]))
        plot.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def _round_numbers() -> Any:
    from matplotlib.ticker import LogLocator  # noqa: PLC0415 - as in `drawing`

    return LogLocator(subs=(1, 2, 5))


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator  # noqa: PLC0415 - as in `drawing`

    return NullLocator()


def _short(value: int) -> str:
    for size, letter in ((1_000_000, " M"), (1000, " k")):
        if value >= size and value % size == 0:
            return f"{value // size}{letter}"
    return str(value)


def _plain(words: str) -> str:
    return words.replace("`", "")
