"""What many cycles leave: nothing, and a leak is seen."""

import mmap
import os

import pytest

from benchmarks import holdings, leak_runs, leaks, stress
from benchmarks.leak_page import FIGURES, leaks_laws, leaks_part
from benchmarks.leak_plans import LEAKS
from benchmarks.leak_runs import measure_leaks
from benchmarks.leaks import cycles
from benchmarks.workload import Job

SIZE = 1 << 22


@pytest.fixture(params=["memory", "nats"])
def url(request):
    if request.param == "memory":
        return "memory://"
    return request.getfixturevalue("shared_nats_server").url


async def test_cycles_end_exactly_where_they_began(url, topic):
    found = await cycles(Job(url, topic, 5))
    assert found["difference"] == ""
    assert found["different"] == 0
    for held in found["residue"].values():
        assert held == {"tasks": 0, "threads": 0, "files": 0, "processes": 0}


async def test_tasks_do_not_grow_with_messages(url, topic, monkeypatch):
    monkeypatch.setattr(holdings, "MESSAGES", (100, 1000))
    monkeypatch.setattr(holdings, "LOOKS", 5)
    counted = await holdings.tasks(Job(url, topic, 10))
    assert counted["after 1,000"] == counted["after 100"] == counted["5 subscribed"]
    assert counted["5 subscribed"]["outside"] == counted["1 subscribed"]["outside"] + 4


async def test_what_a_cycle_leaves_is_seen_and_counted(monkeypatch, topic):
    left: list[int] = []

    async def leaking(job):
        left.extend(os.pipe())

    monkeypatch.setattr(leaks, "cycle", leaking)
    try:
        found = await cycles(Job("memory://", topic, 10))
    finally:
        for descriptor in left:
            os.close(descriptor)
    assert found["different"] == 10
    assert found["residue"]["1"]["files"] == 2
    assert found["residue"]["10"]["files"] == 20
    assert "pipe:" in found["difference"]


async def test_memory_that_is_kept_is_seen(monkeypatch, topic):
    kept = []

    async def keeping(job):
        pages = mmap.mmap(-1, SIZE)  # not of the heap, which may have so much to spare
        pages.write(b"x" * SIZE)
        kept.append((pages, [object() for _ in range(1000)]))

    monkeypatch.setattr(leaks, "cycle", keeping)
    found = await cycles(Job("memory://", topic, 6))
    assert found["different"] == 0
    assert found["blocks"]["per_cycle"] == pytest.approx(1000, rel=0.1)
    assert found["memory"]["per_cycle"] == pytest.approx(SIZE, rel=0.2)


@pytest.fixture(scope="module")
def entry():
    held = {"tasks": 0, "threads": 0, "files": 0, "processes": 0}
    memory = {"every": 1, "values": [1], "warm": 1, "last": 1, "per_cycle": 5.0, "error": 2.0}
    counted = {"open": 3, "1 subscribed": 4, "5 subscribed": 8, "after 100": 8, "after 10,000": 8}
    backend = {
        "tasks": {at: {"outside": n, "census": n} for at, n in counted.items()},
        "cycles": 1000, "different": 0, "difference": "", "before": held, "after": held,
        "residue": {"1": held, "100": held, "1000": held}, "memory": memory, "blocks": memory,
    }  # fmt: skip
    once = {"median": 9, "min": 9, "max": 9}
    run = {
        "medium": "memory", "count": 10_000,
        "figures": {
            "unique": {"median": 1, "min": 1, "max": 1},
            "tasks": dict.fromkeys(("start", "open", "peak", "end"), once),
        },
    }  # fmt: skip
    return {"subscriptions": 5, "backends": {"memory": backend}, "traffic": [run]}


def test_every_leak_of_the_original_has_a_row_with_its_tests_and_its_figure(entry):
    rows = leaks_part(entry).splitlines()
    assert {leak.name for leak in LEAKS} == FIGURES.keys()
    for leak in LEAKS:
        row = next(row for row in rows if row.startswith(f"| {leak.leaked} "))
        assert all(f"`{name}`" in row for name in leak.tests)
        assert FIGURES[leak.name](entry) in row


@pytest.mark.parametrize(
    ("law", "change"),
    [
        ("every cycle ends exactly", lambda b: b.update(different=1)),
        ("one task for each", lambda b: b["tasks"].update({"5 subscribed": two(9)})),
        ("as many tasks after", lambda b: b["tasks"].update({"after 10,000": two(9)})),
        ("the bus's own census", lambda b: b["tasks"]["open"].update(census=2)),
        ("memory is flat", lambda b: b.update(memory={"per_cycle": 101.0, "error": 30.0})),
    ],
)
def test_a_broken_law_of_leaks_is_told(entry, law, change):
    assert all(leaks_laws(entry).values())
    backend = {**entry["backends"]["memory"]}
    backend["tasks"] = {at: {**found} for at, found in backend["tasks"].items()}
    change(backend)
    broken = leaks_laws({**entry, "backends": {"memory": backend}})
    assert next(name for name, held in broken.items() if not held).startswith(law)


def two(count):
    return {"outside": count, "census": count}


async def test_a_short_run_measures_cycles_tasks_and_traffic(monkeypatch):
    monkeypatch.setattr(leak_runs, "TRAFFIC", (100, 300))
    kept = []

    async def keep(found):
        kept.append(len(found["traffic"]))

    found = await measure_leaks({"memory": "memory://"}, ["memory"], 3, keep)
    assert found["backends"]["memory"]["cycles"] == 3
    assert kept[0] == 0
    assert kept[-1] == 2
    assert leaks_part(found)


def test_nothing_is_said_of_what_too_few_cycles_or_no_traffic_tell(entry):
    backend = {**entry["backends"]["memory"], "cycles": 99, "tasks": {"1 subscribed": two(4)}}
    backend["tasks"] |= {"5 subscribed": two(8), "after 100": two(8)}
    laws = leaks_laws({**entry, "backends": {"memory": backend}, "traffic": []})
    assert list(laws) == [
        "every cycle ends exactly where it began",
        "one task for each further topic",
        "the bus's own census counts the same",
    ]


@pytest.mark.parametrize(
    "command",
    [
        "leaks --cycles 0", "leaks --cycles -3", "pressure --rounds 0", "scale --rounds 0",
        "pressure --messages 5,0", "soak pressure --messages 0", "leaks --cycles many",
    ],
)  # fmt: skip
def test_no_cycles_rounds_or_messages_at_all_are_refused(command, capsys):
    with pytest.raises(SystemExit) as refused:
        stress.main(command.split())
    assert refused.value.code == 2
    assert "is not a whole number from 1 on" in capsys.readouterr().err


async def test_no_more_cycles_run_than_are_asked_for(monkeypatch):
    asked = {}

    async def count(name, job, limit):
        asked[job.url] = job.count
        return {}

    async def nothing(*arguments, **_):
        return {"runs": []}

    async def keep(found):
        pass

    monkeypatch.setattr(leak_runs, "in_a_process", count)
    monkeypatch.setattr(leak_runs, "measure_pressure", nothing)
    names = ["memory", "kafka+embedded"]
    for cycles_asked, wanted in ((1, [1, 1]), (100, [100, 3])):
        await measure_leaks({name: name for name in names}, names, cycles_asked, keep)
        assert [asked[name] for name in names] == wanted
