"""The page that is made of the figures."""

import copy
import json

import pytest

from benchmarks.page import page
from benchmarks.plans import LATENCY
from benchmarks.results import summary

MACHINE = {
    "cores": 2, "processor": "a processor", "python": "CPython 3.11", "system": "Linux",
    "packages": {"trio": "1.2.3"}, "commit": "abc1234", "changed_files": 0, "load_before": 0.5,
    "when": "2026-01-01 00:00 UTC",
}  # fmt: skip

WAYS = {
    f"{way}_{what}": 1.5 for way in ("there", "back") for what in ("p50", "p99", "worst_p99", "max")
}

HELD = {"tasks": 3, "threads": 1, "files": 9, "processes": 0}


def once(value):
    return {"median": value, "min": value, "max": value}


KILLED = {
    "handled_before": once(50), "repeats": once(0), "repeated_ms": once(9), "missing": once(0),
}  # fmt: skip


@pytest.fixture
def results():
    latency = summary(
        LATENCY,
        200,
        {
            "latency_tbus": [{"p50": 150, "p99": 900}] * 3,
            "latency_nats_py": [{"p50": 100, "p99": 300}] * 3,
        },
    )
    cost = {"median": 2.0, "min": 1.0, "max": 3.0}
    row = {
        "busy": "program", "slice_ms": 2.0, "with": WAYS,
        "without": {**WAYS, "there_max": 4321.0, "back_p50": None}, "cost_percent": cost,
    }  # fmt: skip
    counts = {"open": 7, "1 subscribed": 8, "5 subscribed": 12, "after 100": 12}
    nats = {
        "tasks": {at: {"census": n, "outside": n} for at, n in counts.items()},
        "cycles": 100, "before": HELD, "after": HELD, "difference": "",
    }  # fmt: skip
    results = {
        "machine": MACHINE,
        "command": "python -m benchmarks all",
        "results": {
            "latency": latency,
            "fairness": {"probes": 300, "rounds": 3, "rows": [row], "all": {}},
            "tasks": {"subscriptions": 5, "backends": {"nats": nats}},
            "kafka-kills": {
                "count": 100,
                "rounds": 3,
                "contestants": {
                    "kafka_killed_tbus": {**KILLED, "repeats": once(7)},
                    "kafka_killed_aiokafka": {**KILLED, "repeats": once(4321)},
                },
            },
            "kafka-loops": {
                topics: {"idle": 4, "loop": 15, "roles": {}} for topics in ("1", "5", "20")
            },
        },
    }
    return json.loads(json.dumps(results))  # as it comes from a file


def line_with(text, words):
    return next(line for line in text.splitlines() if words in line)


def test_a_page_tells_machine_command_figures_and_ratios(results):
    text = page(results)
    for words in ("a processor", "trio 1.2.3", "commit abc1234;", "python -m benchmarks all"):
        assert words in text
    assert "1.50 (1.50-1.50)" in line_with(text, "| nats-py, `js.publish`")
    assert "4,321.0" in text
    assert "none arrived" in text


def test_a_page_names_the_command_that_measured_it_and_no_other(results):
    results["command"] = "python -m benchmarks scale --rounds 1 --json docs/evidence/scale.json"
    text = page(results)
    assert f"```sh\n{results['command']}\n```" in text
    assert "make bench" not in text  # it measures other things, and writes no page


def test_a_page_says_which_targets_were_reached_and_which_were_not(results):
    text = page(results)
    assert line_with(text, "latency: p50").endswith("1.50 |         reached |")
    assert "**not reached**" in line_with(text, "latency: p99")
    assert "**not reached**" not in line_with(text, "fairness: slowest p99")


def test_a_page_says_that_the_sources_were_changed(results):
    results["machine"]["changed_files"] = 2
    assert "commit abc1234, with 2 changed files" in page(results)


def test_benchmarks_that_did_not_run_are_left_out(results):
    results["results"] = {}
    assert "## " not in page(results)


@pytest.mark.parametrize(
    ("law", "change"),
    [
        ("at most 12", lambda b: b["tasks"]["open"].update(outside=13)),
        ("one more for each", lambda b: b["tasks"]["5 subscribed"].update(outside=13)),
        ("any number of messages", lambda b: b["tasks"]["after 100"].update(outside=13)),
        ("own census", lambda b: b["tasks"]["open"].update(census=6)),
        ("exactly where they began", lambda b: b.update(difference="+ thread 'x'")),
    ],
)
def test_a_broken_law_of_tasks_is_told(results, law, change):
    assert "**not reached**" not in line_with(page(results), law)
    broken = copy.deepcopy(results)
    change(broken["results"]["tasks"]["backends"]["nats"])
    assert "**not reached**" in line_with(page(broken), law)


def test_repeats_after_a_kill_are_told_of_each_consumer(results):
    text = page(results)
    assert "7 (7-7)" in line_with(text, "| tbus on Trio, in key order")
    assert "4,321 (4,321-4,321)" in line_with(text, "| aiokafka, `getmany`, handler, `commit`")


def test_a_message_that_is_missing_after_a_kill_is_told(results):
    assert "**not reached**" not in line_with(page(results), "nothing is missing")
    results["results"]["kafka-kills"]["contestants"]["kafka_killed_tbus"]["missing"]["max"] = 1
    assert "**not reached**" in line_with(page(results), "nothing is missing")


def test_tasks_that_grow_with_a_groups_topics_are_told(results):
    assert "**not reached**" not in line_with(page(results), "any number of topics")
    results["results"]["kafka-loops"]["20"]["loop"] = 16
    assert "**not reached**" in line_with(page(results), "any number of topics")


def test_a_slow_crossing_and_a_dear_cure_are_told(results):
    results["results"]["fairness"]["rows"][0]["with"]["back_p99"] = 20.5
    results["results"]["fairness"]["rows"][0]["cost_percent"]["median"] = 5.5
    text = page(results)
    assert "**not reached**" in line_with(text, "fairness: slowest p99")
    assert "**not reached**" in line_with(text, "fairness: throughput lost")


def test_a_crossing_that_never_arrives_misses_its_target(results):
    results["results"]["fairness"]["rows"][0]["with"]["there_p99"] = None
    assert "**not reached**" in line_with(page(results), "fairness: slowest p99")
