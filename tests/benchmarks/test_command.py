"""The command itself, in a process of its own as people run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


@pytest.mark.slow
def test_a_quick_run_prints_a_page_and_writes_figures_that_make_the_same_page(tmp_path):
    file = tmp_path / "figures.json"
    done = run("memory", "--quick", "--json", str(file))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())["results"]["memory"]
    assert found["rounds"] == 2
    for contestant in found["contestants"].values():
        assert contestant["figures"]["rate"]["min"] > 0
        assert all(figures["violations"] == 0 for figures in contestant["rounds"])
    assert "## Memory transport" in done.stdout
    assert run("report", str(file)).stdout == done.stdout


def test_a_name_that_there_is_not_is_named_with_those_that_there_are():
    done = run("memry")
    assert done.returncode == 2
    assert "there is no 'memry'" in done.stderr
    for name in ("publish", "memory", "kafka-publish", "kafka-kills", "fairness", "tasks"):
        assert name in done.stderr.partition("there are:")[2]
