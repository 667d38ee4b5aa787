"""Where the tools are told to look away, a reader is told why."""

from __future__ import annotations

import re
from pathlib import Path

import tbus

LOOK_AWAY = re.compile(r"# noqa: [A-Z0-9, ]+(?P<noqa>.*)|# type: ignore\[[a-z, -]+\](?P<type>.*)")


def test_every_exception_from_a_rule_says_why_on_its_line() -> None:
    source = Path(tbus.__file__).parent
    found = [
        (f"{path.relative_to(source)}:{number}", match["noqa"] or match["type"])
        for path in sorted(source.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (match := LOOK_AWAY.search(line))
    ]
    assert found
    assert [place for place, why in found if not re.match(r"- \w|  # \w", why or "")] == []
