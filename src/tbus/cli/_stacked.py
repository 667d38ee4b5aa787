"""What is a row of a table, for a terminal that is too narrow for one."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text


def stacked(name: Text, facts: Iterable[Text], width: int, indent: int) -> list[Text]:
    """A line with the name, and below it, indented, as many lines as the facts take. Whoever
    prints them cuts what alone is longer than a line."""
    lines = [name]
    for fact in facts:
        line = lines[-1]
        if line is name or line.cell_len + len(", ") + fact.cell_len > width:
            lines.append(Text(" " * indent) + fact)
        else:
            line.append(", ")
            line.append_text(fact)
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines
