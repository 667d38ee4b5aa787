"""Latencies from published to handled: what is timed, and from when."""

import pytest

from benchmarks.arrival import WARM_UP, Course
from benchmarks.loaded import Load
from benchmarks.workload import Job

COUNT = 1000


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def load(clock):
    """One whose first part went at 1000 events a second, so that the pace is 500."""
    load = Load(Job("memory://", "t", COUNT), clock)
    load.begin_peak()
    clock.now += 1.0
    for event in load.events:
        load.see(event.aggregate_id, event.event_version)
    load.begin_half()
    return load


def test_the_pace_is_half_of_the_peak(load, clock):
    assert load.due() == 1
    clock.now += 0.125
    assert load.due() == 63
    clock.now += 1000
    assert load.due() == len(load.events)


def test_an_event_that_is_sent_late_has_waited_since_the_pace_gave_it(load, clock):
    clock.now += 0.5  # the sender was held up: nothing was sent for half a second
    for event in load.events:
        load.see(event.aggregate_id, event.event_version)
    figures = load.figures()
    assert figures["max"] == pytest.approx(500 - 1000 / 500 * (len(load.events) // 4), abs=2)
    assert (figures["peak"], figures["load"]) == (1000, 500)
    assert (figures["handled"], figures["violations"]) == (COUNT, 0)


def test_events_that_are_on_time_have_not_waited(load, clock):
    start = clock.now
    for number, event in enumerate(load.events):
        clock.now = start + number / 500 + 0.003
        load.see(event.aggregate_id, event.event_version)
    figures = load.figures()
    assert figures["p50"] == pytest.approx(3.0)
    assert figures["max"] == pytest.approx(3.0)


def test_the_last_event_of_a_part_is_told_and_disorder_counts(clock):
    load = Load(Job("memory://", "t", 3), clock)
    seen = [load.see(event.aggregate_id, event.event_version) for event in load.events]
    assert seen == [False, False, True]
    load.see("order-0000", 1)
    assert load.violations == 1


def test_one_by_one_counts_from_publishing_to_the_handler_without_the_first_ones(clock):
    course = Course(Job("memory://", "t", WARM_UP * 4), clock)
    for number, _ in enumerate(course.events):
        course.leave()
        clock.now += 1.0 if number < WARM_UP else 0.002
        course.arrive()
        clock.now += 5.0  # until the next is published
    figures = course.figures()
    assert (figures["p50"], figures["max"]) == (pytest.approx(2000), pytest.approx(2000))
    assert figures["handled"] == WARM_UP * 4
