from __future__ import annotations

import math
import pickle
from copy import copy
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus._errors import ConfigurationError, Discard, InvalidEnvelope, Reject, RetryAfter
from tbus._retry import Backoff, Drop, GiveUp, Retry, RetryIn, decide


def middle() -> float:
    """The number that moves a delay by nothing."""
    return 0.5


def test_delays_grow_by_the_factor_up_to_the_maximum() -> None:
    backoff = Backoff(0.1, 2.0, 1.0, 0.0)
    delays = [backoff.delay(attempt, middle) for attempt in range(1, 7)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


@pytest.mark.parametrize(("number", "delay"), [(0.0, 7.5), (0.5, 10.0), (1.0, 12.5)])
def test_jitter_moves_a_delay_either_way_by_its_share(number: float, delay: float) -> None:
    assert Backoff(10.0, jitter=0.25).delay(1, lambda: number) == delay


def backoff_of(delays: tuple[float, float], factor: float, jitter: float) -> Backoff:
    return Backoff(min(delays), factor, max(delays), jitter)


@given(
    st.builds(
        backoff_of,
        st.tuples(st.floats(0, 1e8), st.floats(0, 1e8)),
        st.floats(1, 1e6),
        st.floats(0, 1),
    ),
    st.integers(-5, 10**30),
    st.floats(0, 1, exclude_max=True),
)
def test_no_attempt_is_too_late_to_have_a_delay(
    backoff: Backoff, attempt: int, number: float
) -> None:
    delay = backoff.delay(attempt, lambda: number)
    assert 0 <= delay <= backoff.maximum * (1 + backoff.jitter)


def test_without_an_initial_delay_there_is_none_ever() -> None:
    assert Backoff(0).delay(10**6, middle) == 0


def test_a_retry_takes_its_options_in_the_order_of_its_signature() -> None:
    retry = Retry(3, 1.0, 4.0, 9.0, 0.5, KeyError)
    assert retry == Retry(attempts=3, initial=1.0, factor=4.0, maximum=9.0, jitter=0.5, on=KeyError)
    assert Retry() == Retry(5, 0.1, 2.0, 30.0, 0.1, Exception)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("initial", v) for v in (-1, float("nan"), float("inf"), "1", None, True, 10**400)],
        *[("factor", v) for v in (0, 0.9, float("nan"), float("inf"), None)],
        *[("maximum", v) for v in (-1, float("nan"), float("inf"), None)],
        *[("jitter", v) for v in (-0.1, 1.1, float("nan"), None)],
        *[("attempts", v) for v in (0, -1, 1.5, True, "5")],
        *[("on", v) for v in (None, (), 5, "ValueError", BaseException, (ValueError, 5))],
        ("on", [ValueError]),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Retry(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("given", [{"initial": 60}, {"maximum": 0.05}])
def test_no_delay_is_longer_than_the_maximum_not_even_the_first(given: dict[str, Any]) -> None:
    retry = Retry(jitter=0.0, **given)
    assert retry.delay(1, middle) == retry.maximum


def test_a_failure_is_retried_after_the_delay_of_its_attempt() -> None:
    retry = Retry(jitter=0.0)
    assert decide(retry, 1, ValueError("x"), middle) == RetryIn(0.1)
    assert decide(retry, 3, ValueError("x"), middle) == RetryIn(0.4)


def test_the_last_attempt_is_given_up_and_told_why() -> None:
    decision = decide(Retry(attempts=3), 3, ValueError("no stock"), middle)
    assert decision == GiveUp("ValueError: no stock (attempt 3 of 3)")
    assert isinstance(decide(Retry(attempts=3), 2, ValueError(), middle), RetryIn)


def test_without_a_limit_it_is_retried_for_ever() -> None:
    assert isinstance(decide(Retry(None), 10**9, ValueError(), middle), RetryIn)


@pytest.mark.parametrize("on", [KeyError, (KeyError, OSError)])
def test_only_the_exceptions_named_are_retried(on: Any) -> None:
    assert isinstance(decide(Retry(on=on), 1, KeyError("k"), middle), RetryIn)
    assert isinstance(decide(Retry(on=on), 1, ValueError("v"), middle), GiveUp)


def test_a_subclass_of_a_named_exception_is_retried() -> None:
    assert isinstance(decide(Retry(on=OSError), 1, ConnectionError(), middle), RetryIn)


@pytest.mark.parametrize("on", [Exception, KeyError])
def test_what_a_handler_asks_for_goes_before_the_policy(on: Any) -> None:
    retry = Retry(on=on)
    assert decide(retry, 1, Discard("old"), middle) == Drop("old")
    assert decide(retry, 1, Reject("broken"), middle) == GiveUp("broken")
    assert decide(retry, 1, RetryAfter(42), middle) == RetryIn(42.0)
    assert isinstance(decide(retry, 1, InvalidEnvelope("no"), middle), GiveUp)


def test_asking_for_another_attempt_uses_up_attempts() -> None:
    assert isinstance(decide(Retry(attempts=2), 2, RetryAfter(1), middle), GiveUp)


def test_a_discarded_message_is_dropped_on_its_last_attempt_too() -> None:
    assert decide(Retry(attempts=1), 1, Discard("old"), middle) == Drop("old")


@pytest.mark.parametrize(("seconds", "delay"), [(0, 0.0), (-5, 0.0), (-1.5, 0.0), (2.5, 2.5)])
def test_a_negative_wait_asked_for_is_none(seconds: float, delay: float) -> None:
    assert decide(Retry(), 1, RetryAfter(seconds), middle) == RetryIn(delay)


@pytest.mark.parametrize("seconds", [1e300, 10**400])
def test_an_endless_wait_asked_for_ends_all_the_same(seconds: float) -> None:
    decision = decide(Retry(), 1, RetryAfter(seconds), middle)
    assert isinstance(decision, RetryIn)
    assert decision.delay < 4e8


NO_WAITS = [float("nan"), "5", None, True, timedelta(seconds=5)]


@pytest.mark.parametrize("seconds", NO_WAITS)
def test_a_wait_that_is_no_number_cannot_be_asked_for(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="give a number of seconds") as caught:
        RetryAfter(seconds)
    assert caught.value.field == "seconds"


@pytest.mark.parametrize("seconds", NO_WAITS)
def test_one_that_is_put_there_all_the_same_leaves_it_to_the_policy(seconds: Any) -> None:
    error = RetryAfter(5)
    error.seconds = seconds
    assert decide(Retry(), 1, error, middle) == RetryIn(0.1)


class Busy(RetryAfter):
    """One that does not call its base's `__init__`."""

    def __init__(self) -> None:
        pass


def test_a_wait_without_seconds_leaves_it_to_the_policy() -> None:
    assert decide(Retry(), 1, Busy(), middle) == RetryIn(0.1)


@pytest.mark.parametrize("wait", [RetryAfter(5), RetryAfter(math.inf, "full")])
def test_a_wait_comes_whole_from_another_process(wait: RetryAfter) -> None:
    for copied in (pickle.loads(pickle.dumps(wait)), copy(wait)):
        assert (type(copied), copied.seconds, str(copied)) == (RetryAfter, wait.seconds, str(wait))


def test_an_endless_wait_is_the_longest_there_is() -> None:
    decision = decide(Retry(on=OSError), 1, RetryAfter(math.inf), middle)
    assert isinstance(decision, RetryIn)
    assert decision.delay > 3e8


def test_tasks_that_ask_for_different_things_are_tried_again_if_the_rest_would_be() -> None:
    retry = Retry(on=OSError)
    assert isinstance(decide(retry, 1, group(OSError(), Discard()), middle), RetryIn)
    assert isinstance(decide(retry, 1, group(KeyError(), Discard()), middle), GiveUp)


@pytest.mark.parametrize("error", [Reject(), Discard()])
def test_a_reason_that_was_not_given_is_the_name_of_what_was_raised(error: Exception) -> None:
    decision = decide(Retry(), 1, error, middle)
    assert isinstance(decision, GiveUp | Drop)
    assert decision.reason == type(error).__name__


# --- groups, as task groups raise them ---


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("unhandled errors in a TaskGroup", errors)


@pytest.mark.parametrize("on", [Exception, KeyError])
def test_what_a_handler_asks_for_from_a_task_group_goes_before_the_policy_too(on: Any) -> None:
    retry = Retry(on=on)
    assert decide(retry, 1, group(Discard("old")), middle) == Drop("old")
    assert decide(retry, 1, group(group(Reject("broken"))), middle) == GiveUp("broken")
    assert decide(retry, 1, group(RetryAfter(42)), middle) == RetryIn(42.0)
    unreadable = decide(retry, 1, group(InvalidEnvelope("no")), middle)
    assert unreadable == GiveUp("InvalidEnvelope: no")


def test_tasks_that_ask_for_the_same_have_it() -> None:
    assert decide(Retry(), 1, group(Discard("a"), Discard("b")), middle) == Drop("a")
    assert decide(Retry(), 1, group(Reject("a"), group(Reject("b"))), middle) == GiveUp("a")
    odd = RetryAfter(5)
    odd.seconds = float("nan")  # none could be made so
    waits = group(RetryAfter(1), RetryAfter(9), odd)
    assert decide(Retry(), 1, waits, middle) == RetryIn(9.0)


@pytest.mark.parametrize(
    "errors",
    [
        (Discard(), Reject()),
        (Discard(), ValueError()),
        (Reject(), ValueError()),
        (RetryAfter(9), ValueError()),
    ],
)
def test_tasks_that_do_not_agree_have_failed_and_nothing_is_lost(errors: Any) -> None:
    assert decide(Retry(jitter=0.0), 1, group(*errors), middle) == RetryIn(0.1)
    assert isinstance(decide(Retry(attempts=1), 1, group(*errors), middle), GiveUp)
    assert isinstance(decide(Retry(on=KeyError), 1, group(*errors), middle), GiveUp)


def test_a_group_is_retried_where_everything_in_it_is() -> None:
    retry = Retry(on=(OSError, KeyError), jitter=0.0)
    assert decide(retry, 1, group(ConnectionError()), middle) == RetryIn(0.1)
    assert decide(retry, 1, group(KeyError(), group(OSError())), middle) == RetryIn(0.1)
    assert isinstance(decide(retry, 1, group(KeyError(), ValueError()), middle), GiveUp)
    assert isinstance(decide(Retry(on=ExceptionGroup), 1, group(ValueError()), middle), RetryIn)
