"""`compare`: two result files, what changed, and the exit code."""

import copy
import json

import pytest

from benchmarks.comparing import compare_files, compared_page
from benchmarks.nats_ownership import OWNER_IDLE
from benchmarks.plans import LATENCY, MEMORY
from benchmarks.reading import compare
from benchmarks.results import summary
from benchmarks.series import better_of, series_of
from benchmarks.tables import digits_of, shown

MACHINE = {
    "cores": 2, "processor": "a processor", "python": "CPython 3.11", "system": "Linux",
    "packages": {"trio": "1.2.3", "nats-py": "2"}, "commit": "abc1234", "changed_files": 0,
    "load_before": 0.5, "when": "2026-01-01 00:00 UTC",
}  # fmt: skip

STEPS = (1.0, 1.01, 1.02, 1.03, 1.04)
"""Rounds differ a little, else nothing could be told from nothing."""


def latency(ours, theirs):
    return summary(
        LATENCY,
        200,
        {
            "latency_tbus": [{"p50": ours * step, "p99": 900 * step} for step in STEPS],
            "latency_nats_py": [{"p50": theirs * step, "p99": 900 * step} for step in STEPS],
        },
    )


def memory(rate):
    rounds = [{"rate": rate * step} for step in STEPS]
    return summary(MEMORY, 200, {"memory_tbus": rounds, "memory_tbus_checked": rounds})


def results(**entries):
    found = {"machine": MACHINE, "command": "python -m benchmarks", "results": entries}
    return json.loads(json.dumps(found))  # as it comes from a file


def told(found):
    return compared_page(found, ["a.json", "b.json"])


def test_what_did_not_change_is_the_same_and_ends_with_0():
    found = compare_files(results(memory=memory(100)), results(memory=memory(100)), 0.05)
    assert found.exit_code() == 0
    assert "## Worse" not in told(found)
    assert "**0 worse, 0 better, 2 judged.**" in told(found)


def test_a_rate_that_fell_is_worse_and_ends_with_1():
    found = compare_files(results(memory=memory(100)), results(memory=memory(80)), 0.05)
    assert found.exit_code() == 1
    assert "0.80 (" in told(found).partition("## Worse")[2]


def test_a_rate_that_rose_is_better_and_ends_with_0():
    found = compare_files(results(memory=memory(100)), results(memory=memory(130)), 0.05)
    assert (found.exit_code(), "## Better" in told(found)) == (0, True)


def test_a_machine_that_was_slower_for_tbus_and_its_peer_alike_changes_nothing():
    found = compare_files(
        results(latency=latency(100, 50)), results(latency=latency(200, 100)), 0.05
    )
    assert found.exit_code() == 0
    assert "The peers themselves: 1.50 x" in told(found)  # p50 twice, p99 once


def test_a_latency_that_grew_beside_its_peer_is_worse():
    found = compare_files(
        results(latency=latency(100, 50)), results(latency=latency(150, 50)), 0.05
    )
    assert [row.series.name for row in found.worse] == ["p50 over " + LATENCY.contestants[1].label]


def test_on_another_machine_figures_without_a_peer_are_told_and_not_judged():
    after = results(memory=memory(50), latency=latency(150, 50))
    after["machine"]["processor"] = "another one"
    found = compare_files(results(memory=memory(100), latency=latency(100, 50)), after, 0.05)
    assert [row.series.kind for row in found.worse] == ["ratio"]
    assert "Not the same machine" in told(found)


def test_what_differs_between_the_machines_is_told():
    after = copy.deepcopy(results(memory=memory(100)))
    after["machine"]["commit"] = "def5678"
    after["machine"]["packages"]["trio"] = "1.3"
    page = told(compare_files(results(memory=memory(100)), after, 0.05))
    assert "| commit  | abc1234 | def5678 |" in page
    assert "| trio    |   1.2.3 |     1.3 |" in page


def test_a_benchmark_that_did_another_amount_of_work_is_left_out():
    after = results(memory=memory(50), latency=latency(100, 50))
    after["results"]["memory"]["count"] = 10
    found = compare_files(results(memory=memory(100), latency=latency(100, 50)), after, 0.05)
    assert found.exit_code() == 0
    assert "memory did another amount of work" in told(found)


def test_an_entry_of_any_kind_is_compared_by_the_series_that_it_gives():
    def entry(values):
        return {"series": [{"name": "slope", "unit": "KiB", "better": "less", "values": values}]}

    before = results(anything=entry([1, 2, 3, 4, 5]))
    after = results(anything=entry([11, 12, 13, 14, 15]))
    assert compare_files(before, after, 0.05).exit_code() == 1


def loops(tasks):
    return {topics: {"idle": 4, "loop": tasks[topics], "roles": {}} for topics in ("1", "5", "20")}


def test_a_law_that_held_and_is_broken_now_is_worse_however_few_the_rounds():
    held = results(**{"kafka-loops": loops({"1": 15, "5": 15, "20": 15})})
    broken = results(**{"kafka-loops": loops({"1": 15, "5": 16, "20": 31})})
    found = compare_files(held, broken, 0.05)
    assert found.exit_code() == 1
    assert "**Broken: kafka-loops:" in told(found)
    assert "1 laws broken" in told(found)
    mended = compare_files(broken, held, 0.05)
    assert mended.exit_code() == 0
    assert "Mended: kafka-loops:" in told(mended)
    assert compare_files(broken, broken, 0.05).exit_code() == 0


def test_too_few_rounds_are_told():
    def few(rate):
        rounds = [{"rate": rate}] * 3
        return summary(MEMORY, 200, {"memory_tbus": rounds, "memory_tbus_checked": rounds})

    found = compare_files(results(memory=few(100)), results(memory=few(10)), 0.05)
    assert found.exit_code() == 0
    assert "2 with too few rounds to tell" in told(found)


def test_a_rate_should_be_more_and_a_time_less():
    assert better_of("events/s") == "more"
    assert better_of("us") == better_of("ms") == "less"


def test_what_an_idle_member_sends_should_be_less_and_is_told_with_a_digit():
    [unit] = OWNER_IDLE.figures.values()
    assert better_of(unit) == "less"
    assert shown({"median": 1.3, "min": 1.2, "max": 1.4}, digits_of(unit)) == "1.3 (1.2-1.4)"


def test_a_ratio_is_taken_round_by_round():
    found = series_of(results(latency=latency(100, 50)))
    ratio = found["latency", "p50 over " + LATENCY.contestants[1].label]
    assert ratio.values == pytest.approx([2] * 5)
    assert (ratio.kind, ratio.better) == ("ratio", "less")


@pytest.fixture
def write(tmp_path):
    def written(name, data):
        file = tmp_path / name
        file.write_text(data if isinstance(data, str) else json.dumps(data))
        return str(file)

    return written


def test_the_command_ends_with_1_if_something_got_worse_and_prints_it(write, capsys):
    before = write("a.json", results(memory=memory(100)))
    after = write("b.json", results(memory=memory(80)))
    assert compare([before, after]) == 1
    assert "## Worse" in capsys.readouterr().out
    assert compare([before, after, "--tolerance", "0.5"]) == 0
    assert compare([before, before]) == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("no json", "Expecting value"),
        ({"events": 1}, "holds no results"),
        (results(latency=latency(1, 1)), "no figure in common"),
        (
            results(memory={**memory(100), "count": 4000}),
            "the same amount of work: memory 200 events before, 4,000 events after",
        ),
    ],
)
def test_what_cannot_be_compared_ends_with_2_and_says_why(write, capsys, data, said):
    before = write("a.json", results(memory=memory(100)))
    with pytest.raises(SystemExit) as ended:
        compare([before, write("b.json", data)])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
