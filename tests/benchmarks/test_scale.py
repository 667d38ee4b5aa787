"""Points of the curves, small, and what is made of them."""

import copy
import traceback

import pytest

from benchmarks import scale
from benchmarks.curves import draw_axis
from benchmarks.drawing import save
from benchmarks.scale import HELD, POINTS, SCALES, contestant_name, count_of
from benchmarks.scale_page import scale_laws, scale_part
from benchmarks.scale_plans import AXES, TRANSPORTS
from benchmarks.scale_runs import error_of, measure_scale
from benchmarks.tables import spread
from benchmarks.workload import Job

COUNT = 200


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("transport", ["memory", "nats"])
async def test_a_point_tells_every_figure_that_is_drawn(
    request, topic, monkeypatch, axis, transport
):
    monkeypatch.setattr(scale, "SETTLING_SECONDS", 0.01)
    monkeypatch.setattr(scale, "IDLE_SECONDS", 0.01)
    url = "memory://"
    if transport == "nats":
        url = request.getfixturevalue("shared_nats_server").url
    found = await POINTS[axis](Job(url, topic, COUNT), 4)
    assert found["handled"] == COUNT
    for figure in AXES[axis].figures:
        assert figure.name in found or figure.name == "kib_in_flight"  # of many only
    assert found["rate"] > 0
    assert found["cpu_us"] > 0


def test_a_failed_point_tells_its_error_not_what_was_noted_to_it():
    # A contestant's last words, as Python prints them.
    try:
        error = ValueError("the broker has no room")
        error.add_note("162 more failed, too")
        raise error
    except ValueError as raised:
        text = "".join(traceback.format_exception(raised))
    assert error_of(text) == "ValueError: the broker has no room"
    assert error_of("no traceback at all\n") == "no traceback at all"


def test_there_is_a_contestant_for_every_point():
    for axis in AXES.values():
        assert all(contestant_name(axis.name, value) in SCALES for value in axis.values)
        assert axis.at_most.keys() <= set(TRANSPORTS)
        assert axis.bends


def test_a_point_has_as_many_messages_as_it_needs_and_no_more_than_take_seconds():
    assert count_of("keys", 1_000_000, 100_000) == 1_000_000
    assert count_of("keys", 1, 100_000) == 100_000
    assert count_of("concurrency", 1, 60_000) == 1000
    assert count_of("concurrency", 4096, 60_000) == 60_000
    assert count_of("size", 1_000_000, 50_000) == 50
    assert count_of("subscriptions", 64, 100_000) == 1562
    assert count_of("in-flight", 10_000, 5000) == 20_000


def test_an_axis_may_end_earlier_over_one_transport():
    assert AXES["topics"].values_over("kafka")[-1] == 100
    assert AXES["topics"].values_over("nats")[-1] == 500


@pytest.fixture
def entry():
    def point(transport, value, **figures):
        found = {name: spread([one]) for name, one in figures.items()}
        return {
            "transport": transport, "value": value, "count": 10, "failed": [],
            "figures": found, "rounds": [],
        }  # fmt: skip

    topics = [
        point("nats", 1, idle_percent=0.1, cpu_us=10.0),
        point("nats", 100, idle_percent=0.4, cpu_us=11.0, kib_per_topic=10 * 1024.0),
        point(
            "nats",
            500,
            idle_percent=2.0,
            settling_percent=3.0,
            cpu_us=12.0,
            kib_per_topic=12 * 1024.0,
        ),
        point("memory", 500, idle_percent=0.0, cpu_us=3.0, kib_per_topic=8 * 1024.0),
    ]
    return {"rounds": 3, "axes": {"topics": topics}}


def test_a_page_tells_the_figures_of_every_point(entry):
    text = scale_part(entry, {"scale-topics": "plots/scale/scale-topics.svg"})
    assert "![Topics](plots/scale/scale-topics.svg)" in text
    row = next(line for line in text.splitlines() if line.startswith("| 500"))
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[1:-1] == ["500", "8", "12", "0", "2", "3", "12", "", "3"]


def change(entry, at, **figures):
    broken = copy.deepcopy(entry)
    for name, value in figures.items():
        broken["axes"]["topics"][at]["figures"][name] = spread([value])
    return [name for name, held in scale_laws(broken).items() if not held]


def test_the_laws_of_idleness_are_for_every_number_of_topics_that_was_measured(entry):
    assert change(entry, 0) == ["NATS: CPU while idle is below 0.5 % with 500 topics"]
    entry["axes"]["topics"][2]["figures"]["idle_percent"] = spread([0.4])
    assert change(entry, 0) == []
    for at, value in ((1, 100), (2, 500)):
        [law] = change(entry, at, kib_per_topic=21 * 1024.0)
        assert law == f"NATS: each of {value} idle topics takes less than 20 KiB"
    [law] = change(entry, 0, idle_percent=0.6)
    assert law == "NATS: CPU while idle is below 0.5 % with 1 topic"


def test_a_page_tells_of_medians_and_shades_only_where_there_are_any(entry):
    assert "medians of 3 rounds, shades" in scale_part(entry, {})
    once = scale_part({**entry, "rounds": 1}, {})
    assert "Every point was measured once" in once
    assert "median" not in once


def test_memory_in_flight_is_measured_at_three_places_at_least():
    assert sum(value >= HELD for value in AXES["in-flight"].values) >= 3


@pytest.mark.parametrize(("kib", "held"), [(19, True), (21, False)])
def test_what_a_declared_topic_takes_is_the_slope_between_few_and_many(entry, kib, held):
    entry["axes"]["declared"] = [
        {
            "transport": "kafka", "value": value, "failed": [],
            "figures": {"kept": spread([50e6 + value * kib * 1024])},
        }
        for value in (1, 100)
    ]  # fmt: skip
    law = "Kafka: each of 100 idle topics that are declared takes less than 20 KiB"
    assert scale_laws(entry)[law] is held


def test_a_point_that_failed_is_told_and_breaks_a_law(entry):
    entry["axes"]["topics"][0]["failed"] = ["it stood still"]
    assert not scale_laws(entry)["every point can be measured"]
    assert "it stood still" in scale_part(entry, {})


@pytest.fixture(scope="module")
def fonts(tmp_path_factory):
    """matplotlib keeps the files of its fonts open from the first plot on."""
    pytest.importorskip("matplotlib")
    names = ("idle_percent", "cpu_us", "kib_per_topic")
    points = [
        {"transport": "nats", "value": value, "figures": {name: spread([value]) for name in names}}
        for value in (1, 1000)  # far apart: powers of ten on the axes have fonts of their own
    ]
    save(draw_axis("topics", points), tmp_path_factory.mktemp("fonts") / "topics")


@pytest.mark.usefixtures("fonts")
def test_curves_are_drawn_with_their_target(entry, tmp_path):
    files = save(draw_axis("topics", entry["axes"]["topics"]), tmp_path / "topics")
    assert [file.suffix for file in files] == [".png", ".svg"]
    drawn = files[1].read_text()
    for text in ("Scale: topics", "NATS", "target: below 20", "CPU while idle, %"):
        assert f">{text}" in drawn


async def test_points_run_in_processes_and_are_kept_as_they_come():
    kept = []

    async def keep(found):
        kept.append(len(found["axes"]["in-flight"]))

    urls = {"memory": "memory://"}
    found = await measure_scale(urls, ["in-flight"], ["memory"], 1, keep, quick=True)
    assert kept == [1, 2, 3]
    assert [point["failed"] for point in found["axes"]["in-flight"]] == [[], [], []]
    assert {one["unit"] for one in found["series"]} == {"us/message"}
