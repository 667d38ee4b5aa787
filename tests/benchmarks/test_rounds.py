"""Who runs when, and whose figures do not count."""

import os
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from itertools import pairwise, permutations

import pytest
import trio
from attrs import evolve

from benchmarks import rounds
from benchmarks.comparisons import COMPARISONS
from benchmarks.contestants import ON_ASYNCIO, ON_TRIO, faults
from benchmarks.kafka_kills import judge
from benchmarks.kafka_publishing import clocked
from benchmarks.kafka_workload import Timed
from benchmarks.pinned import stay_on_one_processor
from benchmarks.plans import LATENCY
from benchmarks.rounds import in_a_process, in_turn, order_of
from benchmarks.workload import SIZE, Failed, Job, Observer, bodies, envelopes, percentile
from tbus import Envelope


async def test_contestants_run_in_turn_each_round_in_another_order():
    ran = []

    async def measure(name):
        ran.append(name)
        return {"number": len(ran)}

    taken = await in_turn(["a", "b", "c"], 3, measure)
    assert ran == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert [figures["number"] for figures in taken["b"]] == [2, 4, 9]


@pytest.mark.parametrize("count", range(1, 10))
def test_each_contestant_is_first_once_and_after_twice_the_rounds_has_followed_each_as_often(count):
    orders = [order_of(range(count), number) for number in range(2 * count)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    for half in (orders[:count], orders[count:]):
        assert {order[0] for order in half} == set(range(count))
    followed = Counter(pair for order in orders for pair in pairwise(order))
    assert followed == Counter(dict.fromkeys(permutations(range(count), 2), 2))


@pytest.mark.parametrize("count", range(3, 10))
def test_nobody_follows_the_same_one_in_more_than_two_of_five_rounds(count):
    orders = [order_of(range(count), number) for number in range(5)]
    followed = Counter(pair for order in orders for pair in pairwise(order))
    assert max(followed.values()) <= 2


async def test_the_clock_of_publishers_starts_when_the_first_twentieth_is_stored(monkeypatch):
    now = 0.0
    sent = []

    async def send_all(part):
        nonlocal now
        sent.append(part)
        now += 100.0 if len(part) < 100 else 2.0

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    events = list(range(2000))
    assert await clocked(events, send_all) == {"rate": 1900 / 2.0}
    assert [event for part in sent for event in part] == events
    assert [len(part) for part in sent] == [10] * 10 + [1900]


async def test_a_comparison_over_kafka_runs_once_uncounted_and_the_others_do_not(monkeypatch):
    ran = []

    async def count(name, job):
        ran.append((name, job.count))
        return {"rate": len(ran)}

    @asynccontextmanager
    async def topic(*_):
        yield "t"

    monkeypatch.setattr(rounds, "in_a_process", count)
    monkeypatch.setattr(rounds, "open_topic", topic)
    warmed = evolve(LATENCY, partitions=3, contestants=LATENCY.contestants[:1])
    _, taken = await rounds.compare(warmed, "kafka://", 2, 1.0)
    assert ran == [("latency_tbus", 1000), ("latency_tbus", 5000), ("latency_tbus", 5000)]
    assert taken == {"latency_tbus": [{"rate": 2}, {"rate": 3}]}
    ran.clear()
    await rounds.compare(evolve(warmed, partitions=None), "nats://", 1, 1.0)
    assert ran == [("latency_tbus", 5000)]


async def test_a_contestant_that_takes_too_long_is_named_with_its_time():
    with pytest.raises(Failed, match=r"memory_tbus took more than 0.01 s"):
        await in_a_process("memory_tbus", Job("memory://", "t", 1), 0.01)


async def test_a_contestant_that_fails_ends_the_run_and_says_why():
    with pytest.raises(Failed, match=r"nobody failed(.|\n)*there is no contestant 'nobody'"):
        await in_a_process("nobody", Job("memory://", "t", 1))


def test_every_contestant_of_a_plan_exists_and_ours_is_tbus():
    known = {*ON_TRIO, *ON_ASYNCIO}
    for comparison in COMPARISONS.values():
        assert {contestant.name for contestant in comparison.contestants} <= known
        others = ("nats_py", "aiokafka", "confluent", "faststream", "bare")
        assert not any(other in comparison.ours.name for other in others)
        named = {target.against for target in comparison.targets} - {None}
        assert named <= {contestant.name for contestant in comparison.contestants}


ASK_WHERE = """
import asyncio, os, threading
from benchmarks.pinned import pinned

async def contestant(job):
    found = []
    thread = threading.Thread(target=lambda: found.append(len(os.sched_getaffinity(0))))
    thread.start()
    thread.join()
    return {"own": len(os.sched_getaffinity(0)), "thread's": found[0]}

print(asyncio.run(pinned(contestant)(None)))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
async def test_a_pinned_contestant_stays_on_one_processor_with_the_threads_that_it_starts():
    done = await trio.run_process(
        [sys.executable, "-c", ASK_WHERE], cwd=rounds.ROOT, capture_stdout=True
    )
    assert done.stdout.decode().strip() == "{'own': 1, \"thread's\": 1}"


def test_nobody_is_pinned_where_the_system_cannot(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(SystemExit, match="Linux"):
        stay_on_one_processor()


def test_contestants_that_are_slow_get_a_share_of_the_events_and_ours_gets_all():
    for comparison in COMPARISONS.values():
        assert comparison.ours.share == 1
        assert all(0 < contestant.share <= 1 for contestant in comparison.contestants)


def test_repeats_after_a_kill_are_what_both_handled_and_missing_is_what_neither_did():
    before = [(0, 0), (1, 0), (0, 1)]
    after = [(1, 0), (0, 1), (0, 2)]
    assert judge(before, after, 5) == {"handled_before": 3, "repeats": 2, "missing": 1}
    assert judge(before, [(1, 1), (0, 2)], 5)["repeats"] == 0


def test_a_timed_observer_counts_from_the_first_event_and_tells_disorder():
    seen = Timed(Job("kafka://", "t", 3))
    assert [seen.see(*event) for event in (("a", 1), ("b", 1), ("a", 1))] == [False, False, True]
    figures = seen.figures()
    assert (figures["handled"], figures["violations"]) == (3, 1)
    assert figures["rate"] > 0


def test_figures_count_only_if_every_event_was_handled_once_and_in_order():
    good = {
        "rate": 1.0, "handled": 5, "violations": 0, "delivered": 5, "num_pending": 0,
        "num_ack_pending": 0, "num_redelivered": 0,
    }  # fmt: skip
    assert faults(good, 5) == ""
    assert "violations should be 0" in faults({**good, "violations": 1}, 5)
    assert "num_ack_pending should be 0" in faults({**good, "num_ack_pending": 2}, 5)
    assert "num_redelivered should be 0" in faults({**good, "num_redelivered": 1}, 5)
    assert "handled should be 5" in faults({**good, "handled": 6}, 5)
    assert "stored should be 5" in faults({"rate": 1.0, "stored": 4}, 5)


def test_every_event_is_an_envelope_of_exactly_the_size_told():
    found = bodies(2500)
    assert {len(body) for _, body in found} == {SIZE}
    assert all(Envelope.from_bytes(body).event_id == event_id for event_id, body in found[:10])


def test_keys_come_in_turn_each_with_ascending_versions():
    found = [(e.aggregate_id, e.event_version) for e in envelopes(5, keys=2)]
    first, second = found[0][0], found[1][0]
    assert found == [(first, 1), (second, 1), (first, 2), (second, 2), (first, 3)]


def test_an_observer_sees_what_comes_out_of_order_and_what_comes_again():
    seen = Observer(5)
    events = [("a", 1), ("b", 1), ("a", 2), ("a", 1), ("b", 1)]
    assert [seen.see(*event) for event in events] == [False, False, False, False, True]
    assert seen.violations == 2


def test_a_percentile_is_one_of_the_values():
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 0.5) == 51
    assert percentile(values, 0.99) == 100
    assert percentile([7.0], 0.99) == 7
