"""Sessions of fetches: a broker that remembers never knows less than what is wanted, nor more."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus.transports.kafka._fetch_sessions import (
    BEGIN,
    LAST,
    WHOLE,
    Asked,
    FetchSession,
    Partitions,
    Topics,
)

NOT_FOUND = 70
WRONG_EPOCH = 71
MOST = 100

Wanted = dict[tuple[str, int], int]
"""Of each partition the offset."""


def as_topics(wanted: Wanted) -> Topics:
    """As the client lists it: a partition after another, of each topic together."""
    topics: dict[str, list[tuple[int, int, int]]] = {}
    for (topic, number), offset in wanted.items():
        topics.setdefault(topic, []).append((number, offset, MOST))
    return list(topics.items())


def flat(topics: Topics) -> Wanted:
    return {(topic, number): offset for topic, parts in topics for number, offset, _ in parts}


@attrs.define
class Model:
    """What the protocol's guide says that a broker does with sessions."""

    slots: int = 1
    last: int = 0
    sessions: dict[int, tuple[int, Wanted]] = attrs.Factory(dict)

    def hear(self, asked: Asked) -> tuple[int, int, Wanted]:
        """Error, session and what is read."""
        named = flat(asked.named)
        if asked.epoch in (WHOLE, BEGIN):
            assert not asked.forgotten
            self.sessions.pop(asked.session, None)
            if asked.epoch == WHOLE or len(self.sessions) >= self.slots:
                return 0, 0, named
            self.last += 1
            self.sessions[self.last] = 1, named
            return 0, self.last, named
        if asked.session not in self.sessions:
            return NOT_FOUND, 0, {}
        epoch, known = self.sessions[asked.session]
        if asked.epoch != epoch:
            return WRONG_EPOCH, 0, {}
        known = known | named
        for topic, numbers in asked.forgotten:
            for number in numbers:
                del known[topic, number]
        self.sessions[asked.session] = epoch + 1, known
        return 0, asked.session, known


wanted = st.dictionaries(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 3)), st.integers(0, 2), max_size=8
)
fates = st.sampled_from(["answered", "answered", "answered", "not heard", "not answered", "error"])
troubles = st.sampled_from(["", "", "", "evicted", "one more", "full", "room"])


@given(st.lists(st.tuples(wanted, fates, troubles, st.booleans()), max_size=25))
def test_what_a_broker_reads_is_what_is_wanted_whatever_became_of_fetches_before(rounds):
    session, broker = FetchSession(), Model()
    for want, fate, trouble, nothing in rounds:
        if trouble == "evicted":
            broker.sessions.clear()
        elif trouble == "one more":  # of somebody else's, who has said the same number
            broker.sessions = {
                n: (epoch + 1, known) for n, (epoch, known) in broker.sessions.items()
            }
        elif trouble:
            broker.slots = {"full": 0, "room": 1}[trouble]
        asked = session.ask(as_topics(want))
        if fate == "not heard":
            continue
        error, number, read = broker.hear(asked)
        if fate == "error":
            error = -1
        elif not error:
            assert read == want
        if fate != "not answered":
            session.answered(asked, error, number, nothing=nothing or bool(error))


def begun(topics: Topics) -> FetchSession:
    """In session 7."""
    session = FetchSession()
    session.answered(session.ask(topics), 0, 0, nothing=True)
    session.answered(session.ask(topics), 0, 7, nothing=True)
    return session


ORDERS: Topics = [("orders", [(0, 5, MOST), (1, 6, MOST)]), ("bills", [(0, 1, MOST)])]


def told(asked: Asked) -> tuple[int, int, list[tuple[str, Partitions]], object]:
    return asked.session, asked.epoch, list(asked.named), list(asked.forgotten)


def test_in_a_session_what_has_not_changed_is_not_named():
    session = begun(ORDERS)
    for epoch in (1, 2, 3):
        asked = session.ask([(topic, parts[::-1]) for topic, parts in ORDERS])
        assert told(asked) == (7, epoch, [], [])
        session.answered(asked, 0, 7, nothing=True)


def test_in_a_session_places_that_have_changed_are_named_and_what_is_not_wanted_is_forgotten():
    session = begun(ORDERS)
    asked = session.ask([("orders", [(1, 9, MOST)]), ("new", [(0, 0, MOST)])])
    assert told(asked)[2] == [("orders", [(1, 9, MOST)]), ("new", [(0, 0, MOST)])]
    assert sorted(asked.forgotten) == [("bills", [0]), ("orders", [0])]


def test_no_session_is_begun_before_an_answer_has_brought_nothing():
    session = FetchSession()
    for _ in range(3):
        asked = session.ask(ORDERS)
        assert told(asked) == (0, WHOLE, ORDERS, [])
        session.answered(asked, 0, 0, nothing=False)
    session.answered(session.ask(ORDERS), 0, 0, nothing=True)
    assert session.ask(ORDERS).epoch == BEGIN


def test_a_broker_that_gives_no_session_is_told_everything():
    session = FetchSession()
    session.answered(session.ask(ORDERS), 0, 0, nothing=True)
    for _ in range(3):
        asked = session.ask(ORDERS)
        assert told(asked) == (0, BEGIN, ORDERS, [])
        session.answered(asked, 0, 0, nothing=True)


def test_a_fetch_that_begins_a_session_is_not_held_unless_the_last_one_was_refused():
    session = FetchSession()
    session.answered(session.ask(ORDERS), 0, 0, nothing=True)
    for number, briefly in ((0, True), (0, False), (7, False)):
        asked = session.ask(ORDERS)
        assert (asked.epoch, asked.briefly) == (BEGIN, briefly)
        session.answered(asked, 0, number, nothing=True)
    assert not session.ask(ORDERS).briefly
    session.answered(session.ask(ORDERS), 0, 0, nothing=True)
    assert session.ask(ORDERS).briefly


def test_what_comes_in_a_session_does_not_end_it():
    session = begun(ORDERS)
    session.answered(session.ask(ORDERS), 0, 7, nothing=False)
    assert session.ask(ORDERS).epoch == 2


@pytest.mark.parametrize(("error", "number"), [(NOT_FOUND, 0), (WRONG_EPOCH, 0), (-1, 7)])
def test_after_an_error_everything_is_named_and_the_session_ended(error, number):
    session = begun(ORDERS)
    session.answered(session.ask(ORDERS), error, number, nothing=True)
    assert told(session.ask(ORDERS)) == (7, WHOLE, ORDERS, [])


def test_an_answer_of_another_session_ends_it():
    session = begun(ORDERS)
    session.answered(session.ask(ORDERS), 0, 0, nothing=True)
    assert told(session.ask(ORDERS)) == (7, WHOLE, ORDERS, [])


def test_a_fetch_that_was_cut_off_ends_the_session():
    session = begun(ORDERS)
    session.ask(ORDERS)
    asked = session.ask(ORDERS)
    assert told(asked) == (7, WHOLE, ORDERS, [])
    session.answered(asked, 0, 0, nothing=True)
    assert told(session.ask(ORDERS)) == (0, BEGIN, ORDERS, [])


def test_the_count_of_a_session_s_fetches_begins_anew_at_one():
    session = begun(ORDERS)
    session.answered(attrs.evolve(session.ask(ORDERS), epoch=LAST), 0, 7, nothing=True)
    assert session.ask(ORDERS).epoch == 1


@pytest.mark.parametrize("under_way", [False, True], ids=["between fetches", "while one is held"])
def test_who_closes_ends_the_session_and_begins_no_other(under_way):
    session = begun(ORDERS)
    asked = session.ask(ORDERS)
    if not under_way:
        session.answered(asked, 0, 7, nothing=True)
    end = session.end()
    assert end is not None
    assert (end.session, end.epoch, *end.named, *end.forgotten) == (7, WHOLE)
    if under_way:
        session.answered(asked, 0, 7, nothing=True)
    for _ in range(2):
        asked = session.ask(ORDERS)
        assert told(asked) == (0, WHOLE, ORDERS, [])
        session.answered(asked, 0, 0, nothing=True)
    assert session.end() is None


def test_who_closes_without_a_session_has_nothing_to_say():
    assert FetchSession().end() is None
    refused = FetchSession()
    for _ in range(2):
        refused.answered(refused.ask(ORDERS), 0, 0, nothing=True)
    assert refused.end() is None
