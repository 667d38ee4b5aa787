"""The pages of evidence name tests: each of them exists."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
CASES = ROOT / "src" / "tbus" / "testing" / "conformance"

NAMED = re.compile(r"`([^`\s]+)`")

FEWEST_WORDS = 5
"""Of a name that is taken for a test's or a case's. Options have fewer."""


def functions(folder: Path) -> set[str]:
    """Every function of the Python files below a folder."""
    return {
        node.name
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


EXISTING = functions(ROOT / "tests") | functions(CASES)


def is_a_test(name: str) -> bool:
    """Whether a name on a page is meant to be a test's."""
    words = name.removesuffix("...").strip("_").split("_")
    return bool(re.fullmatch(r"[a-z0-9_]+(\.\.\.)?", name)) and (
        (words[0] == "test" and len(words) > 1) or len(words) >= FEWEST_WORDS
    )


def missing(text: str) -> list[str]:
    """Names of tests on a page that are nobody's; one that ends in dots need only begin so."""
    found = []
    for name in dict.fromkeys(NAMED.findall(text)):
        if is_a_test(name):
            known = (
                any(one.startswith(name.removesuffix("...")) for one in EXISTING)
                if name.endswith("...")
                else name in EXISTING
            )
        elif name.startswith("tests/"):
            known = any(ROOT.glob(name))
        else:
            continue
        if not known:
            found.append(name)
    return found


@pytest.mark.parametrize("page", sorted(EVIDENCE.glob("*.md")), ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page):
    assert missing(page.read_text()) == []


def test_every_test_that_the_leak_table_names_exists():
    plans = pytest.importorskip("benchmarks.leak_plans")
    named = [name for leak in plans.LEAKS for name in leak.tests]
    assert named
    assert [name for name in named if name not in EXISTING] == []


def test_a_name_that_is_nobodys_is_found():
    assert missing("`test_no_such_thing` and `a_case_that_nobody_has_written`") == [
        "test_no_such_thing",
        "a_case_that_nobody_has_written",
    ]
    assert missing("`tests/no/such_file.py`") == ["tests/no/such_file.py"]
    assert missing("`nothing_at_all_begins_like_this_...`") == [
        "nothing_at_all_begins_like_this_..."
    ]


def test_options_and_paths_of_other_things_are_no_tests():
    assert missing("`max_in_flight`, `auto_offset_reset`, `python -m benchmarks`") == []


def test_the_page_of_leaks_is_what_its_figures_make():
    file = EVIDENCE / "leaks.json"
    if not file.exists():
        pytest.skip("it has not been measured yet")
    page = pytest.importorskip("benchmarks.page")
    results = json.loads(file.read_text())
    assert (EVIDENCE / "leaks.md").read_text() == page.page(results)
