"""`tbus top` on a screen: a line about the broker, and a table of topics and groups.

All that comes from the broker is escaped: a name must not move the cursor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import get_args

import attrs
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ._demo_report import figure
from ._escape import escaped
from ._stacked import stacked
from ._top_state import GroupState, Snapshot, Sort, TopicState

KEYS = "q ends   s sorts   p partitions"

_NARROWEST = 72
"""Columns from which a row fits into a line, with some of the owner's name."""

_FRAME_LINES = 5
"""Lines of a screen that are no rows: header, titles, what was left out, keys."""


@attrs.define
class Look:
    """What is to be seen.

    Attributes:
        sort: the order of topics.
        partitions: a row for each partition, too.
    """

    sort: Sort = "name"
    partitions: bool = False


class Screen:
    """Where snapshots are shown.

    Attributes:
        can_move: whether it is a terminal that can move its cursor.
        look: what is to be seen; keys change it.
    """

    def __init__(self, console: Console, address: str, look: Look) -> None:
        self.look = look
        self.can_move = console.file.isatty() and not console.is_dumb_terminal
        self._console = console
        self._address = address
        self._live: Live | None = None
        self._snapshot: Snapshot | None = None

    def print(self, snapshot: Snapshot) -> None:
        """Below what was printed before, as long as it is."""
        drawn = draw(
            snapshot, self._address, self.look, self._console, now=datetime.now(UTC).astimezone()
        )
        self._console.print(drawn)
        self._console.print()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """A screen of its own, which is gone when the block is left."""
        with Live(console=self._console, screen=True, auto_refresh=False) as self._live:
            yield

    def update(self, snapshot: Snapshot) -> None:
        """Instead of what was shown before."""
        self._snapshot = snapshot
        if self._live is not None:
            drawn = draw(
                snapshot,
                self._address,
                self.look,
                self._console,
                height=self._console.height,
                now=datetime.now(UTC).astimezone(),
            )
            self._live.update(drawn, refresh=True)

    def press(self, key: str) -> None:
        """A key was pressed: another order, or more rows."""
        if key == "s":
            sorts = get_args(Sort)
            self.look.sort = sorts[(sorts.index(self.look.sort) + 1) % len(sorts)]
        elif key == "p":
            self.look.partitions = not self.look.partitions
        else:
            return
        if self._snapshot is not None:
            self.update(self._snapshot)


def draw(
    snapshot: Snapshot,
    address: str,
    look: Look,
    console: Console,
    *,
    height: int | None = None,
    now: datetime | None = None,
) -> RenderableType:
    """A snapshot.

    Args:
        snapshot: with its rates.
        address: of the broker, without secrets.
        look: what is to be seen of it.
        console: where; whether it can show more than ASCII.
        height: lines that there are; None: as many as it takes, and no keys are shown.
        now: the time to show.
    """
    rows = _rows(snapshot, look)
    parts: list[RenderableType] = [_header(snapshot, address, console, now)]
    if console.width < _NARROWEST:
        room = used = 0
        while room < len(rows):
            stack = _stack(rows[room], console)
            used += len(stack)
            if height is not None and room and used > height - _FRAME_LINES:
                break
            room += 1
            parts += stack
    else:
        room = len(rows) if height is None else max(1, height - _FRAME_LINES)
        parts.append(_table(rows[:room], console))
    hidden = len(rows) - room
    if not snapshot.topics and snapshot.error is None:
        parts.append(Text("no topics", style="dim"))
    if hidden > 0:
        parts.append(Text(f"and {hidden} more rows: name the topics to see", style="dim"))
    if height is not None:
        parts.append(Text(KEYS, style="dim"))
    return Group(*parts)


def _header(
    snapshot: Snapshot, address: str, console: Console, now: datetime | None
) -> RenderableType:
    groups = sum(len(topic.groups) for topic in snapshot.topics)
    text = Text.assemble(("tbus top", "bold"), "  ", (escaped(address), "cyan"))
    if now is not None:
        text.append(f"  {now:%H:%M:%S}", style="dim")
    state = Text(no_wrap=True, overflow="ellipsis")
    if snapshot.error is not None:
        state.append(f"not connected: {escaped(snapshot.error)}", style="bold red")
    else:
        state.append("connected", style="green")
        if snapshot.round_trip is not None:
            state.append(f", {snapshot.round_trip * 1000:.1f} ms")
        dot = " · " if _unicode(console) else " - "
        counts = [_count(len(snapshot.topics), "topic"), _count(groups, "group")]
        if snapshot.connections:
            counts.append(_count(len(snapshot.connections), "connection"))
        state.append(dot + dot.join(counts))
    text.no_wrap, text.overflow = True, "ellipsis"
    return Group(text, state)


def _count(number: int, what: str) -> str:
    return f"{figure(number)} {what}{'' if number == 1 else 's'}"


Row = tuple[TopicState, GroupState | None, int | None]
"""A topic; or a group of it; or a partition of that one."""


def _rows(snapshot: Snapshot, look: Look) -> list[Row]:
    rows: list[Row] = []
    for topic in snapshot.sorted_by(look.sort):
        rows.append((topic, None, None))
        for group in topic.groups:
            rows.append((topic, group, None))
            if look.partitions:
                rows += [(topic, group, number) for number in range(len(group.partitions or ()))]
    return rows


def _table(rows: list[Row], console: Console) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("topic, group", no_wrap=True, overflow="ellipsis", ratio=3, min_width=16)
    table.add_column("lag", justify="right", no_wrap=True, min_width=7)
    table.add_column("oldest", justify="right", no_wrap=True)
    table.add_column("stored/s", justify="right", no_wrap=True)
    table.add_column("settled/s", justify="right", no_wrap=True)
    table.add_column("read by", no_wrap=True, overflow="ellipsis", ratio=2, min_width=10)
    for topic, group, partition in rows:
        if group is None:
            name = Text(escaped(topic.name), style="bold")
            table.add_row(name, "", "", _rate(topic.rate), "", "")
        elif partition is None:
            table.add_row(
                Text(f"  {escaped(group.name)}"),
                _lag(group, console),
                _age(group.age),
                "",
                _rate(group.rate),
                _owners(group),
            )
        else:
            assert group.partitions is not None
            one = group.partitions[partition]
            owner = "-" if one.owner is None else escaped(one.owner)
            epoch = f"epoch {one.epoch}  " if one.epoch else ""
            table.add_row(
                Text(f"    partition {one.partition}", style="dim"),
                Text(figure(one.messages), style="dim"),
                _age(one.age),
                "",
                "",
                Text(epoch + owner, style="dim"),
            )
    return table


def _stack(row: Row, console: Console) -> list[Text]:
    """The same row in lines of its own."""
    topic, group, partition = row
    if group is None:
        name, indent = Text(escaped(topic.name), style="bold"), 2
        facts = [_rate(topic.rate) + " stored/s"]
    elif partition is None:
        name, indent = Text(f"  {escaped(group.name)}"), 4
        lag = _lag(group, console)
        lag.rstrip()
        facts = [Text("lag ") + lag]
        if group.age is not None:
            facts.append(Text("oldest ") + _age(group.age))
        facts += [_rate(group.rate) + " settled/s", Text("read by ") + _owners(group)]
    else:
        assert group.partitions is not None
        one = group.partitions[partition]
        name, indent = Text(f"    partition {one.partition}", style="dim"), 6
        facts = [Text(f"lag {figure(one.messages)}")]
        if one.age is not None:
            facts.append(Text("oldest ") + _age(one.age))
        if one.epoch:
            facts.append(Text(f"epoch {one.epoch}"))
        facts.append(Text(f"read by {'-' if one.owner is None else escaped(one.owner)}"))
    return stacked(name, facts, console.width, indent)


def _rate(rate: float | None) -> Text:
    if rate is None:
        return Text("-", style="dim")
    if rate == 0:
        return Text("0", style="dim")
    return Text(figure(rate) if rate >= 10 else f"{rate:.1f}")


def _lag(group: GroupState, console: Console) -> Text:
    if group.lag is None:
        return Text("unknown", style="dim")
    up, down = ("↑", "↓") if _unicode(console) else ("+", "-")
    if group.grows > 0:
        return Text(f"{figure(group.lag)} {up}", style="bold red")
    if group.lag == 0:
        return Text("0  ", style="green")
    return Text(f"{figure(group.lag)} {down if group.grows < 0 else ' '}", style="yellow")


def _age(age: float | None) -> Text:
    if age is None:
        return Text("")
    if age < 60:
        return Text(f"{age:.1f} s")
    minutes, _ = divmod(int(age), 60)
    return Text(f"{minutes} min" if minutes < 600 else f"{minutes // 60} h")


def _owners(group: GroupState) -> Text:
    owners = group.owners
    if not owners:
        return Text("-", style="dim")
    if len(owners) == 1:
        return Text(escaped(owners[0]))
    owned = sum(one.owner is not None for one in group.partitions or ())
    return Text(f"{len(owners)} members, {owned} partitions")


def _unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")
