"""The command itself, in a process of its own as people run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks.__main__
from benchmarks.__main__ import GROUPS
from benchmarks.result_file import result_file, writing
from benchmarks.results import TITLES
from benchmarks.workload import Failed
from tests.benchmarks.test_compare import MACHINE

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


@pytest.mark.parametrize("command", ["memory --quick", "leaks --cycles 3 --transports memory"])
@pytest.mark.parametrize("file", ["no/such/folder/x.json", "."])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path, command, file
):
    done = run(*command.split(), "--json", str(tmp_path / file))
    assert done.returncode == 2, done.stderr
    assert str(tmp_path / file) in done.stderr
    assert "Traceback" not in done.stderr
    assert "round 1 of" not in done.stderr


def test_pages_that_cannot_be_written_are_refused(tmp_path):
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"machine": MACHINE, "command": "python", "results": {}}))
    for into in (file, file / "below"):
        done = run("report", str(file), "--into", str(into))
        assert done.returncode == 2, done.stderr
        assert str(into) in done.stderr
        assert "Traceback" not in done.stderr


async def test_a_result_file_is_what_it_was_until_everything_is_measured(tmp_path):
    file = result_file(str(tmp_path / "x.json"))
    assert list(tmp_path.iterdir()) == []
    file.write_text("before")
    async with writing(file) as keep:
        await keep({"half": 1})
        assert file.read_text() == "before"
        await keep({"whole": 1})
    assert json.loads(file.read_text()) == {"whole": 1}
    assert list(tmp_path.iterdir()) == [file]


async def test_what_was_measured_before_a_failure_stays_beside_the_file(tmp_path, capsys):
    file = tmp_path / "x.json"
    file.write_text("before")

    async def fail_half_way():
        async with writing(file) as keep:
            await keep({"half": 1})
            raise OSError("the broker is gone")

    with pytest.raises(OSError, match="the broker is gone"):
        await fail_half_way()
    assert file.read_text() == "before"
    assert json.loads((tmp_path / "x.json.part").read_text()) == {"half": 1}
    assert "x.json.part" in capsys.readouterr().err
    assert result_file(str(file)) == file  # and stays there when the next run begins
    assert (tmp_path / "x.json.part").exists()


def test_a_link_to_a_result_file_stays_one(tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "x.json")
    assert result_file(str(link)) == tmp_path / "x.json"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["contestant"], "NAME"),
        (["contestant", "nobody", "t", "1"], "there is no contestant 'nobody'"),
        (["contestant", "memory_tbus", "t", "1"], "TBUS_BENCH_URL is not set"),
        (["contestant", "memory_tbus", "t", "many"], "COUNT"),
        (["soaking"], "PLAN"),
        (["soaking", "{"], "no plan"),
        (["soaking", '{"what": 1}'], "no plan"),
    ],
)
def test_processes_that_are_for_no_person_say_what_they_want(command, said):
    done = run(*command)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_fails_is_told_in_its_own_words_and_no_traceback(monkeypatch):
    async def fail(*_):
        raise Failed("it stood still")

    monkeypatch.setattr(benchmarks.__main__, "measure", fail)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "memory", "--quick"])
    with pytest.raises(SystemExit, match="it stood still"):
        benchmarks.__main__.main()


def test_help_says_of_every_benchmark_what_it_is_about():
    lines = run("--help").stdout.splitlines()
    for name, title in TITLES.items():
        assert f"  {name:<21} {title}" in lines
    for name in GROUPS:
        assert any(line.startswith(f"  {name} ") for line in lines)
