"""`report`: pages and plots beside their result files."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import GROUPS
from benchmarks.drawing import draw_comparison
from benchmarks.evidence import EVIDENCE, draw_all, is_result, render, result_files
from benchmarks.plans import LATENCY
from benchmarks.reading import report
from tests.benchmarks.test_compare import latency, memory, results

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _fonts(tmp_path_factory):
    """matplotlib keeps the files of its fonts open from the first plot on."""
    draw_all(results(latency=latency(100, 50)), tmp_path_factory.mktemp("fonts"))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nats.json"
    path.write_text(json.dumps(results(latency=latency(100, 50), memory=memory(100))))
    return path


def test_a_result_file_becomes_a_page_with_a_plot_for_each_comparison(tmp_path, file):
    into = tmp_path / "evidence"
    written = {str(path) for path in render([file], into)}
    assert "nats.md" in written
    for name in ("latency", "memory", "targets"):
        for kind in ("png", "svg"):
            assert f"plots/nats/{name}.{kind}" in written
            assert (into / "plots" / "nats" / f"{name}.{kind}").stat().st_size > 1000
        assert f"(plots/nats/{name}.svg)" in (into / "nats.md").read_text()


def test_the_same_figures_make_the_same_bytes(tmp_path, file):
    once, again = tmp_path / "once", tmp_path / "again"
    written = render([file], once)
    assert render([file], again) == written
    assert all((once / path).read_bytes() == (again / path).read_bytes() for path in written)


def test_a_plot_tells_medians_ratios_and_units(tmp_path, file):
    render([file], tmp_path)
    drawn = (tmp_path / "plots" / "nats" / "latency.svg").read_text()
    for text in (
        LATENCY.title,
        "tbus 2.00 x (2.00-2.00)",
        "us, less is better",
        "tbus ... x: median of the ratios of each round",
    ):
        assert f">{text}" in drawn
    targets = (tmp_path / "plots" / "nats" / "targets.svg").read_text()
    assert ">tbus over the peer, in each round: dot the median of these ratios" in targets


@pytest.mark.parametrize("largest", [0.03, 0.4, 1.0, 2.6, 3, 8.4, 17, 260, 4000, 310_000, 2e7])
def test_no_two_ticks_of_a_plot_say_the_same_and_each_says_what_it_is(largest):
    figure = draw_comparison(LATENCY, latency(largest, largest / 2))
    plot = figure.axes[0]
    ticks = plot.xaxis.get_majorticklocs()
    words = [plot.xaxis.get_major_formatter()(value, None) for value in ticks]
    assert [float(one.replace(",", "")) for one in words] == pytest.approx(list(ticks))
    assert len({len(one.partition(".")[2]) for one in words}) == 1


def test_files_that_hold_something_else_are_left_alone(tmp_path, file):
    (tmp_path / "chaos.json").write_text(json.dumps({"events": 1}))
    assert result_files(tmp_path) == [file]
    assert not is_result([1])
    with pytest.raises(SystemExit, match="holds no results"):
        render([tmp_path / "chaos.json"], tmp_path)


def test_the_command_prints_a_page_or_writes_into_a_folder(tmp_path, file, capsys):
    assert report([str(file)]) == 0
    assert "## Memory transport" in capsys.readouterr().out
    assert report([str(file), "--into", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / "nats.md").exists()
    assert "there/nats.md" in capsys.readouterr().out


def test_one_command_measures_everything_that_evidence_tells():
    text = (ROOT / "Makefile").read_text()
    measured = {
        Path(file).name: {one for word in words.split() for one in GROUPS.get(word, (word,))}
        for words, file in re.findall(r"\t\$\(MEASURE\) (.*) --json \$\(EVIDENCE\)/(\S+)", text)
    }
    told = {file.name: json.loads(file.read_text())["results"] for file in result_files(EVIDENCE)}
    assert measured.keys() == told.keys()
    for name, entries in told.items():
        assert entries.keys() <= measured[name], name


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_what_was_measured_before_one_that_fails_has_its_pages(tmp_path):
    ready, said = tmp_path / "ready", tmp_path / "said"
    ready.touch()
    stand_in = tmp_path / "measure"
    stand_in.write_text(f'echo "$1" >>"{said}"; [ "$1" != kafka-handlers ]')
    command = ["make", "-o", ready, "evidence", f"BENCH_READY={ready}", f"MEASURE=sh {stand_in}"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 2
    assert said.read_text().split() == [
        "versus-nats", "report", "kafka-publish", "report", "kafka-handlers", "report",
    ]  # fmt: skip
