"""The demo's plan, its observer and its verdict: no bus, no terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import defaultdict

import attrs
import pytest
import trio
import trio.testing

from tbus import PublishOutcome
from tbus.cli._demo_census import count_children, count_files, take_census
from tbus.cli._demo_plan import make_plan
from tbus.cli._demo_tally import Tally
from tests.cli.kit import GOOD, HELD

# --- plan --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "customers", "topics"), [(1000, 50, 5), (10, 500, 3), (1, 1, 1), (300, 7, 40)]
)
def test_each_customer_has_one_producer_one_topic_and_versions_from_one_on(
    events, customers, topics
):
    plan = make_plan(events=events, customers=customers, topics=topics, seed=3)
    seen = defaultdict(list)
    for number, share in enumerate(plan.shares):
        for order in share:
            seen[order.customer].append((number, order.topic, order.version))
    assert sum(map(len, seen.values())) == events
    assert len(seen) == min(customers, events)
    assert len(set(plan.topics)) == topics
    for orders in seen.values():
        producers, names, versions = zip(*orders, strict=True)
        assert len(set(producers)) == len(set(names)) == 1
        assert versions == tuple(range(1, len(orders) + 1))


def test_every_topic_gets_orders_and_one_in_a_hundred_fails_at_first():
    plan = make_plan(events=10_000, customers=500, topics=5, seed=1)
    orders = plan.orders.values()
    assert {order.topic for order in orders} == set(plan.topics)
    assert sum(order.fails for order in orders) == 100
    assert all(0.001 <= order.wait <= 0.005 for order in orders)


def test_a_seed_stands_for_one_plan():
    def plan(seed):
        return make_plan(events=200, customers=20, topics=2, seed=seed)

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


# --- observer ----------------------------------------------------------------------------


async def test_a_first_completion_whose_version_is_not_above_the_last_is_a_violation():
    tally = Tally(4)
    for number, version in enumerate((1, 3, 2, 3, 4)):
        tally.completed("orders.eu", "customer-1", version, f"id-{number}")
    assert tally.violations == 2
    assert tally.examples == [
        "orders.eu: customer-1 had version 2 after 3",
        "orders.eu: customer-1 had version 3 after 3",
    ]


async def test_customers_and_topics_are_ordered_each_for_itself():
    tally = Tally(3)
    tally.completed("orders.eu", "customer-1", 5, "a")
    tally.completed("orders.us", "customer-1", 1, "b")
    tally.completed("orders.eu", "customer-2", 1, "c")
    assert tally.violations == 0


async def test_an_event_that_completes_again_is_a_duplicate_and_no_violation():
    tally = Tally(2)
    for version in (1, 2, 1):
        tally.completed("orders.eu", "customer-1", version, f"id-{version}")
    assert (tally.duplicates, tally.violations, len(tally.handled)) == (1, 0, 2)


async def test_what_was_sent_and_did_not_fail_is_missing_until_it_is_handled():
    tally = Tally(3)
    tally.sent.update({"a", "b", "c"})
    tally.not_stored(PublishOutcome("c", "orders.eu", error=None))
    assert tally.missing == 2
    tally.completed("orders.eu", "customer-1", 1, "a")
    assert tally.missing == 1


async def test_waiting_for_all_ends_with_the_last_event_that_is_stored(nursery):
    tally = Tally(3)
    tally.sent.update({"a", "b", "c"})
    tally.not_stored(PublishOutcome("c", "orders.eu", error=None))
    tally.completed("orders.eu", "customer-1", 1, "a")
    done = []

    async def wait():
        await tally.wait_all_handled()
        done.append(True)

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not done
    tally.completed("orders.eu", "customer-1", 2, "b")
    await trio.testing.wait_all_tasks_blocked()
    assert done


async def test_the_rate_is_that_of_the_last_second(autojump_clock):
    tally = Tally(100)
    for number in range(40):
        await trio.sleep(0.1)
        if number < 20:
            tally.completed("orders.eu", "customer-1", number + 1, str(number))
        tally.rate()
    assert tally.rate() == 0
    tally.completed("orders.eu", "customer-1", 99, "x")
    await trio.sleep(0.1)
    assert 0.8 < tally.rate() < 1.2


# --- census ------------------------------------------------------------------------------


async def test_the_census_sees_a_task_and_a_thread(nursery):
    before = take_census()
    nursery.start_soon(trio.sleep_forever)
    assert take_census().tasks == before.tasks + 1
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert take_census().threads == before.threads + 1
    stop.set()
    thread.join()
    nursery.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert take_census() == before


def test_the_census_sees_a_file():
    before = count_files()
    assert before is not None
    with open(os.devnull):
        assert count_files() == before + 1
    assert count_files() == before


def test_the_census_sees_a_process_and_what_that_has_started():
    before = count_children(os.getpid())
    assert before is not None
    # The second says a word once it runs, and ends with its input.
    with subprocess.Popen(
        ["sh", "-c", "(echo here; exec cat); true"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"here\n"
        assert count_children(os.getpid()) == before + 2
        shell.stdin.close()
    assert count_children(os.getpid()) == before


# --- verdict -----------------------------------------------------------------------------


def test_a_good_report_breaks_nothing():
    assert GOOD.broken() == ()
    assert GOOD.exit_code() == 0
    assert GOOD.events_per_second == 50
    assert GOOD.success == 1


@pytest.mark.parametrize(
    ("changes", "broken", "shown"),
    [
        ({"violations": 1, "examples": ("2 after 3",)}, "order", "2 after 3"),
        ({"missing": 1, "handled": 99, "handled_acknowledged": 99}, "handled", "99.00 %"),
        ({"acknowledged": 99, "not_stored": 1, "why_not_stored": "full"}, "event ack", "full"),
        ({"acknowledged": 99, "sent": 99}, "every event", "99 of 100"),
        ({"stalled": True}, "handled", "standstill"),
        ({"after": attrs.evolve(HELD, children=1)}, "left", "children 0→1"),
        ({"after": attrs.evolve(HELD, threads=2)}, "left", "threads 1→2"),
        ({"left_topics": ("x.orders.eu",)}, "left", "x.orders.eu"),
    ],
)
def test_a_broken_promise_is_named_and_ends_with_1(changes, broken, shown):
    report = attrs.evolve(GOOD, **changes)
    (promise,) = report.broken()
    assert broken in promise.text
    assert shown in promise.evidence
    assert report.exit_code() == 1


def test_duplicates_and_retries_break_nothing():
    assert attrs.evolve(GOOD, duplicates=3, retries=9).exit_code() == 0


def test_success_is_never_rounded_up_to_all():
    report = attrs.evolve(
        GOOD, events=100_000, acknowledged=100_000, handled_acknowledged=99_999, missing=1
    )
    assert "99.99 %" in report.promises()[1].evidence


def test_ended_early_what_was_not_done_is_open_and_what_broke_is_broken():
    early = attrs.evolve(
        GOOD, acknowledged=50, handled=20, handled_acknowledged=20, missing=80, signal=signal.SIGINT
    )
    assert [promise.held for promise in early.promises()] == [None, None, True, True]
    assert early.exit_code() == 130
    assert attrs.evolve(early, signal=signal.SIGTERM).exit_code() == 143
    assert attrs.evolve(early, violations=1).exit_code() == 1


def test_nothing_done_at_all_divides_by_nothing():
    report = attrs.evolve(
        GOOD, acknowledged=0, handled=0, handled_acknowledged=0, seconds=0.0, signal=signal.SIGINT
    )
    assert report.events_per_second == 0
    assert report.as_json()["success"] is None


@pytest.mark.parametrize(
    ("held", "more"),
    [
        (True, {}),
        (True, {"threads": 0}),  # somebody else's, that has ended meanwhile
        (False, {"threads": 2}),
        (False, {"tasks": 5, "threads": 0}),
        (False, {"files": 9}),
        (False, {"children": 1}),
    ],
)
def test_left_behind_is_what_there_is_more_of_than_before(held: bool, more: dict[str, int]) -> None:
    report = attrs.evolve(GOOD, after=attrs.evolve(GOOD.before, **more))
    (promise,) = [one for one in report.promises() if one.text == "nothing left behind"]
    assert promise.held is held
