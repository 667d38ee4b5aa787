"""Whether a series rises, and how sure that is."""

import random

import pytest

from benchmarks.slopes import slope


def test_a_straight_line_has_its_slope_and_no_error():
    line = slope([100 + 3 * number for number in range(50)])
    assert line.per_step == pytest.approx(3)
    assert line.error == pytest.approx(0, abs=1e-9)


def test_what_only_swings_has_no_slope_beyond_its_error():
    noise = random.Random(1)
    line = slope([noise.gauss(1000, 50) for _ in range(1000)])
    assert abs(line.per_step) < 3 * line.error


def test_a_rise_that_hides_in_noise_is_found():
    noise = random.Random(2)
    line = slope([noise.gauss(1000, 50) + number for number in range(1000)])
    assert line.per_step == pytest.approx(1, abs=0.05)
    assert line.per_step > 10 * line.error


def test_values_that_repeat_their_neighbours_do_not_make_it_surer():
    noise = random.Random(3)
    some = [noise.gauss(0, 1) for _ in range(20)]
    often = [value for value in some for _ in range(50)]
    assert slope(often).error * 50 == pytest.approx(slope(some).error)


def test_two_values_are_too_few():
    with pytest.raises(ValueError, match="three values"):
        slope([1, 2])
