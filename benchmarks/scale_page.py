"""The part of the page about scale. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .scale_plans import AXES, IDLE_CPU, IDLE_TOPIC, IDLE_TOPICS, KIB, LABELS, Axis
from .tables import table

Points = Sequence[Mapping[str, Any]]


def scale_part(entry: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """Every axis: how it is measured, its picture, why it bends, its figures.

    Args:
        entry: the results.
        pictures: where they are, by `scale-AXIS`.
    """
    parts = [
        "## Scale: what more of everything costs",
        "Every point is a bus in a process of its own, with envelopes of 256 bytes unless something"
        " else is said; NATS keeps its streams in memory, Kafka on disk. CPU is that of our whole"
        " process, both threads of it, by message; the broker's is not counted. The clock runs"
        " from the first message that is handled to the last one. Lines are medians of"
        f" {entry['rounds']} rounds, shades go from the smallest to the largest.",
    ]
    for name, points in entry["axes"].items():
        axis = AXES[name]
        parts += [f"### {axis.title}", axis.about]
        if picture := pictures.get(f"scale-{name}"):
            parts.append(f"![{axis.title}]({picture})")
        if axis.bends:
            parts.append(axis.bends)
        parts.append(_figures(axis, points))
        parts += [
            f"Failed with {point['value']:,}, {LABELS[point['transport']]},"
            f" {len(point['failed'])} times: {point['failed'][0]}"
            for point in points
            if point["failed"]
        ]
    return "\n\n".join(parts)


def scale_laws(entry: Mapping[str, Any]) -> dict[str, bool]:
    """What is promised of an idle bus, and whether it held."""
    points = entry["axes"].get("topics", ())
    most = max((point["value"] for point in points), default=0)
    held = [
        point["figures"]["kib_per_topic"]["median"]
        for point in points
        if point["value"] == most and "kib_per_topic" in point["figures"]
    ]
    laws = {
        "every point can be measured": not any(
            point["failed"] for axis in entry["axes"].values() for point in axis
        )
    }
    if held:
        laws[f"an idle topic takes less than {IDLE_TOPIC / KIB:g} KiB ({most} of them)"] = (
            max(held) < IDLE_TOPIC
        )
    for value in sorted({point["value"] for point in points}):
        if value <= IDLE_TOPICS:
            idle = [p["figures"]["idle_percent"]["median"] for p in points if p["value"] == value]
            laws[f"CPU while idle is below {IDLE_CPU:g} % with {value} topics"] = (
                max(idle) < IDLE_CPU
            )
    return laws


def _figures(axis: Axis, points: Points) -> str:
    transports = [name for name in LABELS if any(point["transport"] == name for point in points)]
    rows = []
    for value in sorted({point["value"] for point in points}):
        by = {point["transport"]: point["figures"] for point in points if point["value"] == value}
        row = [f"{value:,}"]
        for figure in axis.figures:
            for name in transports:
                found = by.get(name, {}).get(figure.name)
                row.append("" if found is None else f"{found['median'] / figure.share:,.4g}")
        rows.append(row)
    headings = [axis.unit]
    for figure in axis.figures:
        headings += [
            f"{figure.label}: {LABELS[name]}" if name == transports[0] else LABELS[name]
            for name in transports
        ]
    return table(headings, rows)
