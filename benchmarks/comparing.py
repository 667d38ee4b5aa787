"""`compare A B`: what became of every figure from one result file to another. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from statistics import median
from typing import Any

import attrs

from .noise import ALPHA, Change, judge
from .page import laws_of
from .series import Series, series_of
from .tables import table

SAME_MACHINE = ("processor", "cores", "system", "python")
"""What must be equal for figures in events a second, or seconds, to be held against each other."""

RULE = (
    "A figure is called better or worse where both hold: Mann and Whitney's exact two-sided rank"
    " test of the rounds gives p <= {alpha:g} (five rounds in each file can; four cannot), and"
    " the median of all ratios of a round after to a round before is more than {tolerance:.0%} from"
    " 1. In brackets stand the ratios that the test does not rule out. Where a peer ran, its"
    " ratio to tbus is judged and the plain figure only told: the machine's own speed is not in"
    " the ratio. Figures judged: {judged}; chance alone would get some {expected:.1f} of them past"
    " the test."
)


@attrs.frozen
class Row:
    """One figure in both files.

    Attributes:
        series: as it is after.
        before: its median before.
        after: and after.
        change: by the rule.
        judged: whether a change for the worse fails the comparison.
    """

    series: Series
    before: float
    after: float
    change: Change
    judged: bool


@attrs.frozen
class Comparing:
    """Two result files, held against each other.

    Attributes:
        rows: of the figures that are in both.
        machines: what differs between the machines: name, before, after.
        broken: laws that held before and do not now: no matter of noise.
        mended: the other way round.
        only: figures that are in one of them alone.
        work: benchmarks that did another amount of work, and so are left out.
        tolerance: the part that does not matter.
    """

    rows: tuple[Row, ...]
    machines: tuple[tuple[str, str, str], ...]
    broken: tuple[str, ...]
    mended: tuple[str, ...]
    only: tuple[str, ...]
    work: tuple[str, ...]
    tolerance: float

    @property
    def worse(self) -> list[Row]:
        """What got worse, outside the noise."""
        return [row for row in self.rows if row.judged and row.change.verdict == "worse"]

    def exit_code(self) -> int:
        """1 if something got worse; else 0."""
        return 1 if self.worse or self.broken else 0


def compare_files(
    before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float
) -> Comparing:
    """Hold a result file against a later one.

    Raises:
        ValueError: they have no figure in common, or none of the same amount of work.
    """
    was, now = series_of(before), series_of(after)
    machines = _differences(before["machine"], after["machine"])
    alike = not any(name in SAME_MACHINE for name, _, _ in machines)
    work = _other_work(before["results"], after["results"])
    both = [place for place in now if place in was and place[0] not in work]
    laws = laws_of(before["results"]), laws_of(after["results"])
    if not both and not laws[0].keys() & laws[1].keys():
        if work:
            raise ValueError(
                "the two files can only be compared if they did the same amount of work: "
                + "; ".join(_counts(name, before["results"], after["results"]) for name in work)
            )
        raise ValueError("the two files have no figure in common")
    rows = []
    for place in both:
        one = now[place]
        rows.append(
            Row(
                one,
                median(was[place].values),
                median(one.values),
                judge(was[place].values, one.values, one.better, tolerance=tolerance),
                one.kind == "ratio" or (one.kind == "figure" and alike),
            )
        )
    only = _alone(was.keys() ^ now.keys(), was.keys() & now.keys(), [*was, *now])
    return Comparing(
        tuple(rows),
        machines,
        _turned(*laws, to=False),
        _turned(*laws, to=True),
        tuple(only),
        tuple(work),
        tolerance,
    )


def _turned(
    before: Mapping[tuple[str, str], bool], after: Mapping[tuple[str, str], bool], *, to: bool
) -> tuple[str, ...]:
    """Laws that are so now and were not before."""
    return tuple(
        f"{name}: {law}"
        for (name, law), met in after.items()
        if met is to and before.get((name, law), to) is not to
    )


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[tuple[str, str, str], ...]:
    flat = [{**machine, **machine.get("packages", {})} for machine in (before, after)]
    names = [name for name in {**flat[0], **flat[1]} if name not in ("packages", "when")]
    return tuple(
        (name, str(flat[0].get(name)), str(flat[1].get(name)))
        for name in names
        if flat[0].get(name) != flat[1].get(name)
    )


def _alone(
    alone: Set[tuple[str, str]], both: Set[tuple[str, str]], order: Sequence[tuple[str, str]]
) -> list[str]:
    """What is in one file only: a benchmark by its name, if no figure of it is in both."""
    shared = {benchmark for benchmark, _ in both}
    found = [
        f"{benchmark}, {figure}" if benchmark in shared else benchmark
        for benchmark, figure in order
        if (benchmark, figure) in alone
    ]
    return list(dict.fromkeys(found))


def _other_work(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        name
        for name, entry in after.items()
        if name in before and entry.get("count") != before[name].get("count")
    ]


def _counts(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    was, now = (
        f"{entry[name]['count']:,} events" if "count" in entry[name] else "an unknown number"
        for entry in (before, after)
    )
    return f"{name} {was} before, {now} after"


# --- as text -----------------------------------------------------------------------------


def compared_page(found: Comparing, names: Sequence[str]) -> str:
    """What was found, Markdown: what got worse or better first, then all.

    Args:
        found: the comparison.
        names: of the two files.
    """
    judged = [row for row in found.rows if row.judged]
    parts = [f"# {names[0]} -> {names[1]}"]
    if found.machines:
        parts.append(table(["differs", "before", "after"], found.machines))
    if any(name in SAME_MACHINE for name, _, _ in found.machines):
        parts.append("Not the same machine: figures without a peer are told and not judged.")
    parts += [f"{name} did another amount of work in the two: left out." for name in found.work]
    parts += [f"**Broken: {law}**" for law in found.broken]
    parts += [f"Mended: {law}" for law in found.mended]
    for verdict, title in (("worse", "Worse"), ("better", "Better")):
        rows = [row for row in judged if row.change.verdict == verdict]
        if rows:
            parts += [f"## {title}", _table(rows)]
    benchmarks = list(dict.fromkeys(row.series.benchmark for row in found.rows))
    for benchmark in benchmarks:
        rows = [row for row in found.rows if row.series.benchmark == benchmark]
        told = [row for row in rows if row.series.kind != "peer"]
        parts += [f"## {benchmark}", _table(told)]
        if drift := _drift([row for row in rows if row.series.kind == "peer"]):
            parts.append(drift)
    chance = sum(row.change.verdict != "cannot tell" for row in judged) * ALPHA
    parts.append(
        RULE.format(alpha=ALPHA, tolerance=found.tolerance, judged=len(judged), expected=chance)
    )
    if found.only:
        parts.append("In one of the files alone: " + "; ".join(found.only) + ".")
    parts.append(_verdict(found, judged))
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row]) -> str:
    return table(
        ["figure", "before", "after", "after / before", "p", ""],
        [
            [
                row.series.name,
                _figure(row.before, row.series.unit),
                _figure(row.after, row.series.unit),
                _ratio(row.change),
                f"{row.change.p:.3f}",
                row.change.verdict if row.judged else f"({row.change.verdict}; told only)",
            ]
            for row in rows
        ],
    )


def _figure(value: float, unit: str) -> str:
    digits = 2 if unit == "x" or abs(value) < 100 else 0
    return f"{value:,.{digits}f} {unit}"


def _ratio(change: Change) -> str:
    if change.ratio is None:
        return "-"
    return f"{change.ratio:.2f} ({change.low:.2f}-{change.high:.2f})"


def _drift(peers: Sequence[Row]) -> str:
    """What the machine did meanwhile, as far as the peers show it."""
    found = [row.change.ratio for row in peers if row.change.ratio is not None]
    if not found:
        return ""
    return (
        f"The peers themselves: {median(found):.2f} x what they were"
        f" ({min(found):.2f}-{max(found):.2f})."
    )


def _verdict(found: Comparing, judged: Sequence[Row]) -> str:
    unknown = sum(row.change.verdict == "cannot tell" for row in judged)
    better = sum(row.change.verdict == "better" for row in judged)
    said = f"{len(found.worse)} worse, {better} better, {len(judged)} judged"
    if found.broken:
        said = f"{len(found.broken)} laws broken, {said}"
    if unknown:
        said += f"; {unknown} with too few rounds to tell"
    return f"**{said}.**"
