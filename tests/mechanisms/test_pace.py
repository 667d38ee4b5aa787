"""The bucket of tokens: what a rate lets through, and when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus._config import BusConfig
from tbus._errors import ConfigurationError
from tbus._pace import AdaptiveRate, Pace, Rate, as_rate


def take(pace: Pace, now: float, count: int) -> int:
    """Try so often at once; returns how many were let through."""
    return sum(pace.take(now) is None for _ in range(count))


# --- fixed rates -------------------------------------------------------------------------


def test_after_a_pause_a_burst_goes_at_once_and_then_one_by_one() -> None:
    pace = Pace(Rate(10, burst=3), 0.0)
    assert take(pace, 5.0, 10) == 3
    assert pace.take(5.0) == pytest.approx(5.1)
    assert take(pace, 5.1, 10) == 1
    assert take(pace, 5.35, 10) == 2


def test_the_time_that_is_answered_is_the_first_at_which_one_is_let_through() -> None:
    pace = Pace(Rate(3, burst=1), 0.0)
    assert pace.take(0.1) is None
    when = pace.take(0.2)
    assert when is not None
    assert pace.take(when - 1e-9) == when
    assert pace.take(when) is None


def test_who_is_refused_has_taken_nothing() -> None:
    asked, quiet = Pace(Rate(1, burst=1), 0.0), Pace(Rate(1, burst=1), 0.0)
    for pace in (asked, quiet):
        pace.take(0.0)
    for _ in range(100):
        asked.take(0.5)
    assert asked.take(0.6) == quiet.take(0.6) == 1.0


def test_no_pause_is_long_enough_for_more_than_a_burst() -> None:
    pace = Pace(Rate(1000, burst=5), 0.0)
    assert take(pace, 1e9, 100) == 5


rates = st.builds(Rate, st.floats(0.01, 10_000), st.integers(1, 50))
steps = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 60)), max_size=30)


@given(rate=rates, steps=steps)
def test_no_stretch_of_time_lets_through_more_than_the_rate_and_one_burst(
    rate: Rate, steps: list[tuple[float, int]]
) -> None:
    pace, now, let_through = Pace(rate, 0.0), 0.0, []
    for pause, count in steps:
        now += pause
        let_through += [now] * take(pace, now, count)
    for first in range(len(let_through)):
        for last in range(first, len(let_through)):
            allowed = rate.burst + rate.per_second * (let_through[last] - let_through[first])
            assert last - first + 1 <= allowed + 1e-6


@given(rate=rates, count=st.integers(1, 100))
def test_whoever_asks_again_at_the_time_that_is_answered_gets_the_whole_rate(
    rate: Rate, count: int
) -> None:
    pace, now = Pace(rate, 0.0), 0.0
    for _ in range(count):
        while (when := pace.take(now)) is not None:
            assert when > now
            now = when
    assert now == pytest.approx(max(0, count - rate.burst) / rate.per_second)


# --- adaptive rates ----------------------------------------------------------------------


def second(pace: Pace, now: float, count: int, failed: int) -> float:
    """Let so many through in the second before `now`, with so many failing; returns the rate
    after it."""
    assert take(pace, now - 0.5, count) == count
    for _ in range(failed):
        pace.failed()
    pace.take(now)
    return pace.per_second


def make(**options: Any) -> Pace:
    return Pace(AdaptiveRate(100, **{"burst": 100, "least": 10, "most": 1000} | options), 0.0)


@pytest.mark.parametrize(
    ("failed", "rate"), [(0, 120), (4, 120), (5, 100), (6, 80), (50, 80), (200, 80)]
)
def test_it_goes_down_above_a_tenth_of_errors_and_up_above_nine_tenths_of_successes(
    failed: int, rate: float
) -> None:
    assert second(make(), 1.0, 50, failed) == pytest.approx(rate)


def test_it_looks_at_each_stretch_by_itself() -> None:
    pace = make()
    assert second(pace, 1.0, 50, 50) == pytest.approx(80)
    assert second(pace, 2.0, 50, 0) == pytest.approx(96)
    assert second(pace, 3.0, 50, 0) == pytest.approx(115.2)


def test_it_stays_within_its_bounds() -> None:
    pace = make(least=90, most=110)
    assert second(pace, 1.0, 50, 0) == pytest.approx(110)
    assert second(pace, 2.0, 50, 50) == pytest.approx(90)


def test_it_does_not_look_before_its_time() -> None:
    pace = make(every=10.0)
    assert second(pace, 1.0, 50, 50) == pytest.approx(100)
    assert second(pace, 10.0, 10, 0) == pytest.approx(80)


def test_a_stretch_in_which_nothing_was_done_changes_nothing() -> None:
    pace = make()
    pace.take(0.1)
    pace.take(1.0)  # this one belongs to the next stretch
    before = pace.per_second
    pace.take(2.5)
    pace.take(100.0)
    assert pace.per_second == pytest.approx(before * 1.2 * 1.2)
    untouched = Pace(AdaptiveRate(100, burst=1, least=10, most=1000), 0.0)
    untouched.take(50.0)
    assert untouched.per_second == pytest.approx(100)


def test_errors_that_come_when_nothing_is_let_through_count() -> None:
    pace = make()
    pace.failed()
    pace.take(1.0)
    assert pace.per_second == pytest.approx(80)


def test_what_was_missing_when_the_rate_changes_is_missing_still() -> None:
    pace = Pace(AdaptiveRate(10, burst=5, least=1, most=100), 0.0)
    assert take(pace, 0.99, 5) == 5
    # Nearly all five are missing at 1.0, where the rate becomes 12 a second.
    when = pace.take(1.0)
    assert when is not None
    assert when - 1.0 == pytest.approx((1 - 0.1) / 12)


# --- what a user gives -------------------------------------------------------------------


def test_by_default_a_burst_is_a_tenth_of_a_second() -> None:
    assert (Rate(1000).burst, Rate(15).burst, Rate(0.1).burst) == (100, 1, 1)
    assert AdaptiveRate(1000) == AdaptiveRate(1000, 100, least=100, most=1000, every=1.0)


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        (None, None),
        (5, Rate(5)),
        (0.5, Rate(0.5)),
        ("5", Rate(5)),
        (Rate(5, 2), Rate(5, 2)),
        ({"per_second": 5}, Rate(5)),
        ({"per_second": 5, "burst": 2}, Rate(5, 2)),
        ({"per_second": 5, "least": 2}, AdaptiveRate(5, least=2)),
    ],
)
def test_a_rate_is_a_number_or_its_fields(given: Any, rate: Rate | None) -> None:
    assert as_rate(given) == rate
    config = BusConfig.load(publish_rate=given)
    assert config.publish_rate == rate
    assert type(config.publish_rate) is type(rate)


def test_a_rate_can_stand_in_a_file(tmp_path: Any) -> None:
    file = tmp_path / "bus.toml"
    file.write_text("publish_rate = 250")
    assert BusConfig.load(file).publish_rate == Rate(250)
    file.write_text("[publish_rate]\nper_second = 1000\nmost = 2000")
    assert BusConfig.load(file).publish_rate == AdaptiveRate(1000, most=2000)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (0, "per_second"),
        (-1, "per_second"),
        (float("inf"), "publish_rate"),
        (True, "publish_rate"),
        ("fast", "publish_rate"),
        ([5], "publish_rate"),
        ({"per_second": 5, "burst": 0}, "burst"),
        ({"per_second": 5, "brst": 1}, "brst"),
        ({"burst": 1}, "per_second"),
        ({"per_second": 5, "least": 6}, "least=6"),
        ({"per_second": 5, "every": 0}, "every"),
    ],
)
def test_what_is_no_rate_is_refused_by_name(given: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        BusConfig.load(publish_rate=given)


@pytest.mark.parametrize("kind", [Rate, AdaptiveRate])
@pytest.mark.parametrize("given", ["x", "5", None, True, float("nan"), float("inf"), 10**400, -1])
def test_a_rate_of_no_number_is_refused_by_name_whatever_is_made_of_it(
    kind: type[Rate], given: Any
) -> None:
    with pytest.raises(ConfigurationError, match="give a finite number, above 0") as caught:
        kind(given)
    assert caught.value.field == "per_second"
