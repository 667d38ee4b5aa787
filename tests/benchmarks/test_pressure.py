"""The original's workloads, small, and what is counted of them."""

import copy

import pytest

import benchmarks.pressure
from benchmarks.pressure import Ledger, pressure
from benchmarks.pressure_page import pressure_laws, pressure_part
from benchmarks.pressure_plans import LOADS, MEDIA, PUBLISHED, WORKLOADS, keys_of, published
from benchmarks.pressure_runs import measure_pressure, summed
from benchmarks.workload import Failed, Job

COUNT = 300


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("medium", ["memory", "nats-memory", "nats-file"])
async def test_every_message_arrives_once_and_nothing_is_left(request, topic, workload, medium):
    url = "memory://"
    if MEDIA[medium].broker == "nats":
        url = request.getfixturevalue("shared_nats_server").url
    found = await pressure(Job(url, topic, COUNT), workload, medium)
    assert (found["handled"], found["duplicates"], found["violations"]) == (COUNT, 0, 0)
    assert found.get("left", 0) == 0
    assert found["end"]["tasks"] == found["start"]["tasks"]
    assert found["peak"]["tasks"] >= found["open"]["tasks"]
    for latency in ("send_ms", "end_to_end_ms"):
        assert 0 < found[latency]["p50"] <= found[latency]["p99"] <= found[latency]["max"]


def ledger(*seen):
    found = Ledger(6, 2)  # two keys, three versions each
    for number in range(6):
        found.begin(number)
    for key, version in seen:
        found.see_in_order(key, version)
    return found


def test_what_comes_again_is_a_duplicate_and_counts_once():
    found = ledger((0, 1), (1, 1), (0, 1))
    assert (found.unique, found.duplicates, found.violations) == (2, 1, 0)


def test_what_comes_behind_a_later_version_of_its_key_is_a_violation():
    found = ledger((0, 1), (0, 3), (1, 1), (0, 2))
    assert (found.unique, found.duplicates, found.violations) == (4, 0, 1)


def test_the_last_unique_message_ends_a_run_and_no_duplicate_does():
    seen = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    assert not ledger(*seen, (1, 2)).done.is_set()
    assert ledger(*seen, (1, 3)).done.is_set()


def test_aggregates_are_a_tenth_of_the_messages_from_50_to_1000():
    assert [keys_of(n) for n in (1, 500, 2000, 5000, 10_000, 1_000_000)] == [
        50, 50, 200, 500, 1000, 1000,
    ]  # fmt: skip


def test_the_originals_figures_stand_beside_the_same_work_alone():
    assert published(MEDIA["nats-file"], "envelopes", LOADS["Extreme"]) == {
        "rate": 333, "latency_ms": 892, "tasks": 775,
    }  # fmt: skip
    assert published(MEDIA["nats-memory"], "plain", LOADS["Low"]) == {"rate": 445}
    assert published(MEDIA["nats-memory"], "envelopes", LOADS["Low"]) == {}
    assert published(MEDIA["memory"], "plain", LOADS["Low"]) == {}
    assert published(MEDIA["kafka"], "plain", 100_000) == {}
    assert all(len(figures.rate) == len(LOADS) for figures in PUBLISHED.values())


@pytest.fixture
def entry():
    latency = {"p50": 1.0, "p99": 2.0, "max": 3.0}
    moment = {"tasks": 3, "threads": 1, "memory": 1 << 20}
    figures = {
        "handled": 500, "violations": 0, "duplicates": 0, "rate": 7000.0, "publish_rate": 9000.0,
        "send_ms": latency, "end_to_end_ms": latency, "left": 0,
        **dict.fromkeys(("start", "open", "peak", "end"), moment),
    }  # fmt: skip
    return {"rounds": 1, "runs": [summed("envelopes", "nats-file", 500, [figures])]}


def test_a_page_tells_our_figures_beside_the_originals_and_says_whose_they_are(entry):
    text = pressure_part(entry)
    line = next(line for line in text.splitlines() if line.startswith("| NATS, file, Low"))
    assert "7,000" in line
    assert "33 |" in line
    assert "**Published**" in text


def test_a_page_tells_of_medians_only_where_there_are_rounds(entry):
    text = pressure_part(entry)
    assert "Each ran once." in text
    assert "7,000 (" not in text
    run = entry["runs"][0]
    twice = {"rounds": 2, "runs": [{**run, "rounds": run["rounds"] * 2}]}
    assert "Medians of 2 rounds" in pressure_part(twice)
    assert "7,000 (7,000-7,000)" in pressure_part(twice)


@pytest.mark.parametrize(
    ("law", "change"),
    [
        ("every message is handled", lambda run: run["figures"]["unique"].update(min=0.0256)),
        ("none twice", lambda run: run["figures"]["duplicates"].update(max=1)),
        ("each key in order", lambda run: run["figures"]["violations"].update(max=1)),
        ("nothing is left at the broker", lambda run: run["rounds"][0].update(left=1)),
        ("no task is left", lambda run: run["rounds"][0].update(end={"tasks": 4})),
    ],
)
def test_a_broken_law_of_pressure_is_told(entry, law, change):
    assert all(pressure_laws(entry).values())
    broken = copy.deepcopy(entry)
    change(broken["runs"][0])
    assert [name for name, held in pressure_laws(broken).items() if not held] == [law]


async def test_rounds_run_in_processes_and_are_kept_as_they_come():
    kept = []

    async def keep(found):
        kept.append(found["rounds"])

    found = await measure_pressure({"memory": "memory://"}, ["memory"], [100], 1, keep, ["plain"])
    assert kept == [1]  # after each run
    [run] = found["runs"]
    assert run["figures"]["unique"]["min"] == 1
    assert found["series"][0]["values"] == [run["rounds"][0]["rate"]]


def test_nothing_is_said_of_a_broker_that_was_not_there(entry):
    del entry["runs"][0]["rounds"][0]["left"]
    assert "nothing is left at the broker" not in pressure_laws(entry)


async def test_a_run_to_which_nothing_comes_is_given_up_in_so_many_words(topic, monkeypatch):
    async def lose(bus, topic, key, ledger):
        pass

    monkeypatch.setattr(benchmarks.pressure, "_send_plain", lose)
    monkeypatch.setattr(benchmarks.pressure, "STALLED", 0.01)
    with pytest.raises(Failed, match=r"nothing came for 0.01 s: 0 of 300 are there"):
        await pressure(Job("memory://", topic, COUNT), "plain", "memory")
