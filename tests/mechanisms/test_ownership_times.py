"""How long it takes until everything is owned again, and what it costs meanwhile.

The I/O that follows a `Take` (unpin, reset, pull) is not in these times: `IO` is left for it.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbus._errors import ConfigurationError
from tbus._ownership import Timing
from tests.mechanisms.ownership_kit import World

IO = 0.25
rates = st.sampled_from([0.9, 0.97, 1.0, 1.03, 1.1])
clocks = st.lists(rates, min_size=2, max_size=12)
phase = st.floats(0, 2.5)


def settled_group(clocks: list[float], partitions: int, seed: int = 0) -> World:
    world = World(partitions, seed)
    for rate in clocks:
        world.join(rate)
    world.run_until(world.is_settled, within=3)
    return world


@settings(max_examples=60, deadline=None)
@given(clocks, st.integers(1, 12), phase, st.integers(0, 99), st.data())
def test_after_a_kill_everything_is_owned_within_three_seconds(
    clocks: list[float], partitions: int, phase: float, seed: int, data: st.DataObject
) -> None:
    world = settled_group(clocks, partitions, seed)
    world.run(phase)
    victims = data.draw(
        st.lists(st.sampled_from(world.nodes), max_size=len(clocks) - 1, unique_by=id)
    )
    lost = {partition for node in victims for partition in node.owned()}
    takes = world.takes
    for node in victims:
        node.kill()
    world.run_until(lambda: len(world.owners()) == partitions, within=3 - IO)
    world.run(1)
    assert world.is_settled()
    if len(victims) == 1:
        assert world.takes - takes == len(lost), "more moved than was lost"


@settings(max_examples=60, deadline=None)
@given(clocks, st.integers(1, 12), phase, st.integers(0, 11), st.floats(0, 20))
def test_after_a_suspension_everything_is_owned_within_six_seconds(
    clocks: list[float], partitions: int, phase: float, which: int, length: float
) -> None:
    world = settled_group(clocks, partitions)
    world.run(phase)
    victim = world.nodes[which % len(clocks)]
    victim.suspend()
    world.after(length, victim.resume)
    world.run_until(lambda: len(world.owners()) == partitions, within=6 - IO)
    world.run(max(0, length + 6))
    assert world.is_settled()


@pytest.mark.parametrize("size", [1, 2, 3, 12])
def test_an_idle_member_sends_one_message_each_heartbeat_and_reads_nothing(size: int) -> None:
    world = settled_group([1.0] * size, 12)
    world.run(5)
    before = [node.sent for node in world.nodes]
    puts = sum(world.bucket.puts.values())
    world.run(100)
    sent = [node.sent - count for node, count in zip(world.nodes, before, strict=True)]
    assert max(sent) <= 100 / Timing().heartbeat + 1
    assert sum(world.bucket.puts.values()) - puts == sum(sent)


@pytest.mark.parametrize("size", [2, 5, 12])
def test_members_that_start_together_soon_agree(size: int) -> None:
    world = World(12)
    for _ in range(size):
        world.join()
    assert world.run_until(world.is_settled, within=3) < 0.5
    assert sum(node.sent for node in world.nodes) < 3 * size**2
    assert all(node.member.id == f"{node.name}-1" for node in world.nodes)


def test_a_drain_is_waited_for_however_long_it_takes() -> None:
    world = settled_group([1.0], 4)
    (first,) = world.nodes
    first.drain_time = 20
    second = world.join()
    world.run(19.9)
    assert len(first.owned()) == 4
    assert second.owned() == []
    world.run(0.5)
    assert len(second.owned()) == 2


@given(st.floats(0, 1.0), st.integers(0, 99))
def test_with_the_worst_clocks_the_margin_stands_between_two_owners(
    phase: float, seed: int
) -> None:
    world = World(1, seed)
    world.network.latency = 0.0
    slow = world.join(rate=0.9)
    world.run_until(world.is_settled, within=1)
    fast = world.join(rate=1.1)
    world.run(5 + phase)
    slow.is_linked = False
    end = world.now + world.run_until(lambda: not slow.owned(), within=3)
    world.run_until(lambda: bool(fast.owned()), within=3)
    assert fast.taken[-1][0] - end > Timing().margin / 1.1 - 0.02


class Marginless(Timing):
    """What the timing must not be: one takes over when the other one's lease ends by the
    clock of neither."""

    @property
    def takeover(self) -> float:
        return self.lease


def test_without_the_margin_two_would_own_a_partition() -> None:
    world = World(1, timing=Marginless())
    slow = world.join(rate=0.9)
    world.run_until(world.is_settled, within=1)
    world.join(rate=1.1)
    world.run(5)
    slow.is_linked = False
    with pytest.raises(AssertionError, match="own partition 0"):
        world.run(3)


def test_the_defaults_keep_the_times_that_are_promised() -> None:
    timing = Timing()
    assert timing.takeover == pytest.approx(2.4)
    assert timing.longest_silence + IO < 3
    assert timing.takeover / (1 + timing.drift) > timing.lease / (1 - timing.drift)
    assert 2 / timing.heartbeat < 2  # the heartbeat and its answer


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("heartbeat", 0),
        ("lease", float("nan")),
        ("margin", -1),
        ("answer", True),
        ("drift", 0.5),
        ("drift", "much"),
        ("lease", 1.5),
    ],
)
def test_a_timing_that_cannot_work_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}={value!r}"):
        Timing(**{field: value})  # type: ignore[arg-type]


SECONDS = st.floats(0, 1e7)


@given(SECONDS, st.floats(0, 1), st.floats(0.1, 60))
def test_a_heartbeat_follows_within_its_time_and_no_more_than_half_of_it_early(
    sent: float, phase: float, heartbeat: float
) -> None:
    timing = Timing(heartbeat=heartbeat, lease=heartbeat + 1)
    after = timing.next_heartbeat(sent, phase) - sent
    assert 0.5 * heartbeat - 1e-6 <= after <= heartbeat * (1 + 1e-6)


@given(SECONDS, st.lists(st.floats(0, 10), min_size=20, max_size=20), st.floats(0, 1))
def test_members_of_one_phase_have_their_heartbeats_at_two_times_in_common(
    now: float, late: list[float], phase: float
) -> None:
    timing = Timing()
    steps = [(timing.next_heartbeat(now + one, phase) - phase) * 2 / 1.1 for one in late]
    assert all(abs(step - round(step)) < 1e-3 for step in steps)


def test_a_heartbeat_that_is_sent_late_is_followed_on_time() -> None:
    timing = Timing()
    first = timing.next_heartbeat(100.0, 0.3)
    late = timing.next_heartbeat(first + 0.05, 0.3)
    assert late == pytest.approx(first + timing.heartbeat)
