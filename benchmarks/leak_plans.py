"""The leaks of the original, what stands in their place, and what would show it broken. Data
only."""

from __future__ import annotations

import attrs


@attrs.frozen
class Leak:
    """One leak that tbus exists to make impossible.

    Attributes:
        name: which figure belongs to it, see `leak_page`.
        leaked: what leaked, in the original.
        much: how much, as the original's own reports tell.
        instead: what tbus does.
        tests: those that would fail; functions of the suite or of `tbus.testing.conformance`.
    """

    name: str
    leaked: str
    much: str
    instead: str
    tests: tuple[str, ...]


LEAKS = (
    Leak(
        "topics",
        "a pool of 1024 workers for each topic",
        "5120 for 5 topics, 5130 in all while open",
        "workers belong to the bus: one is started when all others wait in a handler, at most"
        " `concurrency` of them, and ends when nothing is ready. An idle topic costs its pull"
        " loop alone",
        (
            "an_idle_bus_runs_one_pull_loop_for_each_subscription_and_no_worker",
            "test_there_is_no_worker_while_there_is_nothing_to_handle",
            "test_the_limit_is_for_all_subscriptions_together",
        ),
    ),
    Leak(
        "traffic",
        "as many tasks whatever the traffic",
        "5130 at 500 and at 10,000 messages",
        "no task for a message and none for its acknowledgement: both go through deques in batches",
        (
            "test_one_worker_suffices_for_handlers_that_never_wait",
            "test_tasks_do_not_grow_with_messages",
        ),
    ),
    Leak(
        "loops",
        "pull loops on the caller's context that outlive close",
        "5, each fetching, failing and sleeping 1 s, for ever",
        "pull loops are children of the bus's nursery; one whose client is dead ends, and the"
        " bus with it",
        (
            "a_group_removed_beneath_its_reader_ends_the_bus_with_the_cause",
            "test_what_stops_the_feed_stops_the_pull_loop",
            "leaving_with_a_dead_broker_ends_in_time_and_leaves_nothing",
        ),
    ),
    Leak(
        "bus",
        "a dispatcher that is started outside the wait group",
        "1 for each bus",
        "nothing is started but in a nursery that the bus owns, cancelled at any moment or not",
        (
            "opening_a_bus_cancelled_anywhere_leaves_nothing",
            "a_bus_at_work_cancelled_anywhere_leaves_nothing_and_loses_nothing",
        ),
    ),
    Leak(
        "clients",
        "tasks of the client libraries",
        "84 of Kafka's, 50 for fetching from NATS",
        "clients live in one event loop that the bus owns, in one thread; the census counts what"
        " is in it, and all of it ends with the loop",
        (
            "test_stubborn_tasks_cannot_hold_the_end",
            "test_a_stubborn_task_that_the_client_started_by_itself_cannot_either",
            "test_a_connection_that_a_client_has_forgotten_is_closed_with_the_loop",
        ),
    ),
    Leak(
        "cycles",
        "one more task for each bus",
        "3, 4, 5, 6, 7 after five of them",
        "many cycles of opening, using and closing end where they began, exactly",
        (
            "test_cycles_end_exactly_where_they_began",
            "a_second_bus_is_not_disturbed_by_the_end_of_the_first",
        ),
    ),
    Leak(
        "acknowledgements",
        "a task for each acknowledgement",
        "thousands; at 10,000 messages 2.56 % arrived",
        "what is in flight is bounded, and who sends too fast waits: nothing is spawned and"
        " nothing dropped",
        (
            "no_more_than_max_in_flight_is_handed_over",
            "no_more_events_than_allowed_are_without_an_outcome",
            "a_full_topic_refuses_and_drops_nothing",
        ),
    ),
    Leak(
        "deadlines",
        "a subscription's deadline that stopped others, or that others outlived",
        "all topics",
        "every subscription has a scope of its own",
        (
            "test_every_subscription_has_its_own_time",
            "test_evicting_cancels_the_handlers_of_one_subscription_alone",
            "closing_a_subscription_waits_for_its_own_handlers_and_for_no_others",
        ),
    ),
    Leak(
        "waiting",
        "tests that slept for 5 s and collected garbage before they counted",
        "what was left was not seen",
        "the statement behind `async with` counts, with no sleep; every test is followed by a"
        " comparison of what is held",
        (
            "test_two_counts_with_nothing_between_them_are_equal",
            "test_one_that_goes_while_another_comes_is_seen",
        ),
    ),
)
