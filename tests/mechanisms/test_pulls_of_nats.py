"""When a pull ends, and how often the server says meanwhile that it is there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tbus.transports.nats._pulls import EXPIRES, HEARTBEAT, TOGETHER, _times

NOW = st.floats(0, 1e7)


@given(NOW)
def test_a_pull_ends_at_a_moment_that_all_have_in_common(now: float) -> None:
    expires, _ = _times(now)
    beyond = (now + expires) % HEARTBEAT
    assert min(beyond, HEARTBEAT - beyond) < 1e-6
    assert expires <= EXPIRES


@given(NOW)
def test_the_server_is_never_silent_for_longer_than_a_heartbeat_and_takes_what_is_asked(
    now: float,
) -> None:
    expires, heartbeat = _times(now)
    assert HEARTBEAT / 2 <= heartbeat <= HEARTBEAT
    assert 2 * heartbeat <= expires


@given(st.integers(0, 10**6), st.floats(0, TOGETHER * 0.99))
def test_what_is_asked_for_at_such_a_moment_waits_as_long_as_may_be(
    number: int, late: float
) -> None:
    expires, heartbeat = _times(number * HEARTBEAT + late)
    assert expires > EXPIRES - 2 * TOGETHER
    assert heartbeat == HEARTBEAT
