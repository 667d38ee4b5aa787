"""Medians, ratios pair by pair, and what a comparison makes of its rounds."""

import pytest

from benchmarks.plans import Comparison, Contestant, Target
from benchmarks.results import summary
from benchmarks.tables import ratios, shown, spread, table

PLAN = Comparison(
    name="race",
    title="Race",
    about="Who is faster.",
    count=10,
    figures={"rate": "events/s", "p50": "us"},
    contestants=(Contestant("ours", "ours"), Contestant("theirs", "theirs")),
    targets=(
        Target("at least", 2.0, "rate", "theirs"),
        Target("at most", 1.5, "p50", "theirs"),
        Target("at least", 300, "rate"),
    ),
)

TAKEN = {
    "ours": [{"rate": 200, "p50": 3.0}, {"rate": 100, "p50": 2.0}, {"rate": 400, "p50": 2.0}],
    "theirs": [{"rate": 100, "p50": 2.0}, {"rate": 50, "p50": 2.0}, {"rate": 100, "p50": 1.0}],
}


def test_a_spread_is_median_smallest_and_largest():
    assert spread([5, 1, 9, 2, 3]) == {"median": 3, "min": 1, "max": 9}


def test_the_median_of_an_even_number_lies_between_the_middle_two():
    assert spread([1, 2, 4, 100])["median"] == 3


def test_ratios_are_taken_pair_by_pair_and_not_of_the_medians():
    # The machine was ten times slower in the second round, for both.
    assert ratios([200, 20, 300], [100, 10, 100]) == {"median": 2, "min": 2, "max": 3}
    assert ratios([10, 40, 50], [1, 20, 50])["median"] == 2  # of the medians: 40 / 20
    assert ratios([10, 20, 30], [30, 20, 10])["median"] == 1
    assert ratios([1, 5, 9], [5, 1, 9])["median"] == 1  # of the medians: 5 / 5
    assert ratios([2, 9, 4], [4, 3, 1])["median"] == 3  # of the medians: 4 / 3


def test_a_round_without_its_pair_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2, 3], [1, 2])


def test_a_summary_tells_figures_ratios_and_every_round():
    found = summary(PLAN, 10, TAKEN)
    assert (found["count"], found["rounds"]) == (10, 3)
    ours, theirs = found["contestants"]["ours"], found["contestants"]["theirs"]
    assert ours["figures"]["rate"] == {"median": 200, "min": 100, "max": 400}
    assert ours["ratios"] == {}
    assert theirs["ratios"]["rate"] == {"median": 2, "min": 2, "max": 4}
    assert theirs["ratios"]["p50"] == {"median": 1.5, "min": 1, "max": 2}
    assert theirs["rounds"] == TAKEN["theirs"]


def test_targets_are_held_against_the_median_ratio_or_our_own_figure():
    rate, latency, absolute = summary(PLAN, 10, TAKEN)["targets"]
    assert (rate["reached"], rate["met"]) == (2.0, True)
    assert (latency["reached"], latency["met"]) == (1.5, True)
    assert (absolute["reached"], absolute["met"]) == (200, False)


def test_a_target_is_met_at_its_very_figure_and_not_beyond_it():
    assert Target("at least", 2.0, "rate").is_met(2.0)
    assert not Target("at least", 2.0, "rate").is_met(1.99)
    assert Target("at most", 2.0, "rate").is_met(2.0)
    assert not Target("at most", 2.0, "rate").is_met(2.01)


def test_a_tables_columns_are_aligned_and_figures_stand_to_the_right():
    assert table(["who", "events/s"], [["a", "1"], ["longer", "1,000"]]).splitlines() == [
        "| who    | events/s |",
        "| :----- | -------: |",
        "| a      |        1 |",
        "| longer |    1,000 |",
    ]


def test_a_figure_is_shown_with_its_spread():
    assert shown({"median": 1234.5, "min": 1000, "max": 2000}, 1) == "1,234.5 (1,000.0-2,000.0)"
