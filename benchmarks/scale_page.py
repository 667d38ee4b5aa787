"""The part of the page about scale. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .scale_plans import AXES, IDLE_CPU, IDLE_TOPIC, KIB, LABELS, Axis
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
        " from the first message that is handled to the last one."
        f" {_lines(entry['rounds'])}",
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


def _lines(rounds: int) -> str:
    if rounds == 1:
        return (
            "Every point was measured once, so the lines have no shade to tell how sure they are."
        )
    return f"Lines are medians of {rounds} rounds, shades go from the smallest to the largest."


def scale_laws(entry: Mapping[str, Any]) -> dict[str, bool]:
    """What is promised of an idle bus, and whether it held: for every number of topics that was
    measured."""
    laws = {
        "every point can be measured": not any(
            point["failed"] for axis in entry["axes"].values() for point in axis
        )
    }
    points = entry["axes"].get("topics", ())
    for transport, label in LABELS.items():
        ours = {
            point["value"]: {name: found["median"] for name, found in point["figures"].items()}
            for point in points
            if point["transport"] == transport and point["figures"]
        }
        for value, figures in ours.items():
            if "kib_per_topic" in figures:
                laws[
                    f"{label}: each of {value} idle topics takes less than {IDLE_TOPIC / KIB:g} KiB"
                ] = figures["kib_per_topic"] < IDLE_TOPIC
        for value, figures in ours.items():
            topics = "1 topic" if value == 1 else f"{value} topics"
            laws[f"{label}: CPU while idle is below {IDLE_CPU:g} % with {topics}"] = (
                figures["idle_percent"] < IDLE_CPU
            )
    return laws | _declared_laws(entry["axes"].get("declared", ()))


def _declared_laws(points: Points) -> dict[str, bool]:
    laws = {}
    for transport, label in LABELS.items():
        kept = {
            point["value"]: point["figures"]["kept"]["median"]
            for point in points
            if point["transport"] == transport and point["figures"]
        }
        if len(kept) > 1:
            least, most = min(kept), max(kept)
            laws[
                f"{label}: each of {most} idle topics that are declared takes less than"
                f" {IDLE_TOPIC / KIB:g} KiB"
            ] = (kept[most] - kept[least]) / (most - least) < IDLE_TOPIC
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
