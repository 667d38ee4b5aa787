"""What a member does about each single thing that can go wrong."""

from __future__ import annotations

from typing import TypeVar

import pytest

from tbus._errors import ConfigurationError, SubscriptionFailed
from tbus._ownership import (
    DOCUMENT,
    Absent,
    Delete,
    Drain,
    Drop,
    Effect,
    Found,
    Get,
    Left,
    Member,
    Put,
    Refused,
    Stored,
    Take,
    Timing,
)
from tests.mechanisms.ownership_kit import Node, World

T = TypeVar("T", bound=Effect)


def only(effects: list[Effect], kind: type[T]) -> T:
    (found,) = [effect for effect in effects if isinstance(effect, kind)]
    return found


def group(size: int, partitions: int = 4) -> tuple[World, list[Node]]:
    world = World(partitions)
    for _ in range(size):
        world.join()
    world.run_until(world.is_settled, within=2)
    world.run(3)
    return world, world.nodes


def alone(partitions: int = 1) -> Member:
    """A member that owns everything since time 0; its heartbeat is at revision 1, the
    document at 2."""
    member = Member("a", partitions, 0.0)
    effects = member.wake(0.0)
    heartbeat, read = only(effects, Put), only(effects, Get)
    assert member.answered(0.0, heartbeat.request, Stored(1)) == []
    document = only(member.answered(0.0, read.request, Absent()), Put)
    assert (document.key, document.revision) == (DOCUMENT, 0)
    effects = member.answered(0.0, document.request, Stored(2))
    assert effects == [Take(number, 1, "") for number in range(partitions)]
    return member


# The lease


def test_a_lease_lasts_from_when_its_heartbeat_was_sent_not_from_its_answer() -> None:
    member = alone()
    heartbeat = only(member.wake(1.1), Put)
    assert member.answered(1.3, heartbeat.request, Stored(3)) == []
    assert member.owns(2.89, 0, 1)
    assert not member.owns(2.91, 0, 1)


def test_a_heartbeat_without_an_answer_is_repeated_and_any_answer_will_do() -> None:
    member = alone()
    first = only(member.wake(1.1), Put)
    assert member.wake_at == pytest.approx(1.35)
    second = only(member.wake(1.35), Put)
    assert (second.key, second.revision) == (first.key, first.revision)
    # The repeat is refused, for the first one was stored; its answer is only late.
    read = only(member.answered(1.4, second.request, Refused()), Get)
    assert member.answered(1.45, first.request, Stored(3)) == []
    assert member.owns(2.85, 0, 1)
    assert member.answered(1.5, read.request, Found(3, first.value)) == []
    assert member.wake_at == pytest.approx(2.2)


def test_whose_answer_was_lost_reads_its_heartbeat_and_sends_the_next_one() -> None:
    member = alone()
    first = only(member.wake(1.1), Put)
    second = only(member.wake(1.35), Put)
    read = only(member.answered(1.4, second.request, Refused()), Get)
    third = only(member.answered(1.45, read.request, Found(3, first.value)), Put)
    assert third.revision == 3
    member.answered(1.5, third.request, Stored(4))
    assert member.owns(3.2, 0, 1)


def test_at_the_end_of_its_lease_a_member_drops_everything_first() -> None:
    member = alone(3)
    for now in (1.1, 1.35, 1.6):
        assert member.wake_at == pytest.approx(now)
        only(member.wake(now), Put)
    assert member.wake_at == pytest.approx(1.8)
    effects = member.wake(1.8)
    assert [effect.partition for effect in effects[:3] if isinstance(effect, Drop)] == [0, 1, 2]
    assert not any(isinstance(effect, Drop) for effect in member.wake(1.9))


@pytest.mark.parametrize("first", ["wake", "answer", "notice", "drained", "leave", "lost"])
def test_a_suspended_member_that_wakes_finds_out_first_whatever_it_looks_at(first: str) -> None:
    member = alone(2)
    heartbeat = only(member.wake(1.1), Put)
    now = 60.0
    assert not member.owns(now, 0, 1)
    effects = {
        "wake": lambda: member.wake(now),
        "answer": lambda: member.answered(now, heartbeat.request, Stored(3)),
        "notice": lambda: member.noticed(now, "member.b-1", 4, b"{}"),
        "drained": lambda: member.drained(now, 1, 1, ""),
        "leave": lambda: member.leave(now),
        "lost": lambda: member.lost(now, 1, 1, "423"),
    }[first]()
    assert [type(effect) for effect in effects[:2]] == [Drop, Drop]
    assert not member.owns(now, 0, 1)


def test_who_has_its_lease_again_takes_again_with_a_higher_epoch_once_nothing_runs() -> None:
    member = alone()
    effects = member.wake(5.0)
    assert only(effects, Drop).epoch == 1
    heartbeat = only(effects, Put)
    assert member.answered(5.0, heartbeat.request, Stored(3)) == []
    document = only(member.drained(5.5, 0, 1, "done"), Put)
    assert member.answered(5.6, document.request, Stored(4)) == [Take(0, 2, "done")]
    assert member.owns(5.6, 0, 2)
    assert not member.owns(5.6, 0, 1)


def test_time_that_goes_back_does_no_harm() -> None:
    member = alone()
    only(member.wake(1.1), Put)
    assert member.wake(0.5) == []
    assert member.wake(-9.0) == []


# The others


def test_who_was_found_dead_never_comes_back_under_its_old_name() -> None:
    world, (first, second, third) = group(3)
    second.suspend()
    world.run(4)
    assert len(first.owned()) + len(third.owned()) == 4
    second.resume()
    assert second.owned() == []
    world.run(0.5)
    assert second.member.id == "m01-2"
    assert world.is_settled()
    assert not any("m01-1" in key for key in world.bucket.entries)


def test_a_first_heartbeat_that_comes_twice_brings_nobody_back() -> None:
    member = Member("a", 1, 0.0)
    first = only(member.wake(0.0), Put)
    member.answered(0.0, first.request, Stored(1))
    beat = only(member.wake(1.1), Put)
    member.answered(1.1, beat.request, Stored(2))
    # Found dead and swept while it was suspended; then a copy of the first one is stored.
    beat = only([one for one in member.wake(60.0) if getattr(one, "key", "") != DOCUMENT], Put)
    (read,) = [
        one
        for one in member.answered(60.1, beat.request, Refused())
        if isinstance(one, Get) and one.key == beat.key
    ]
    member.answered(60.2, read.request, Found(90, first.value))
    assert member.id == "a-2"


def test_a_member_whose_heartbeat_was_removed_is_replaced_whatever_marker_is_left() -> None:
    world, (first, second) = group(2)
    second.suspend()
    key = f"member.{second.member.id}"
    assert world.bucket.delete(key, world.bucket.entries[key][0])
    world._tell(key, world.bucket.revision, None)  # as if a marker stood there; none does
    world.run_until(lambda: len(first.owned()) == 4, within=6)


def test_who_was_called_dead_by_one_that_died_of_it_clears_up_after_itself() -> None:
    world, (first, second) = group(2)
    second.suspend()
    key = f"member.{second.member.id}"
    world.run_until(lambda: b"dead" in world.bucket.entries[key][1], within=3)
    first.kill()
    second.resume()
    world.run(6)
    assert second.member.id == "m01-2"
    assert len(second.owned()) == 4
    assert sorted(world.bucket.entries) == [DOCUMENT, "member.m01-2"]


def test_who_only_misses_the_news_calls_nobody_dead() -> None:
    world, (first, second) = group(2)
    world._tell_one = lambda *args: None  # type: ignore[method-assign]
    world.run(20)
    assert world.is_settled()
    assert first.drops == second.drops == []


def test_an_outage_of_the_broker_moves_nothing() -> None:
    world, nodes = group(3)
    owned = [sorted(node.owned()) for node in nodes]
    for node in nodes:
        node.is_linked = False
    world.run(10)
    assert world.owners() == {}
    for node in nodes:
        node.connect()
        world.run(0.3)
    world.run(1)
    assert [sorted(node.owned()) for node in nodes] == owned
    assert [node.member.id for node in nodes] == ["m00-1", "m01-1", "m02-1"]


def test_who_missed_the_news_of_a_new_document_hears_of_it_with_the_next_heartbeat() -> None:
    world, _ = group(1, partitions=2)
    tell = world._tell_one

    def tell_no_document(node: Node, key: str, revision: int, value: bytes | None) -> None:
        if key != DOCUMENT:
            tell(node, key, revision, value)

    world._tell_one = tell_no_document  # type: ignore[method-assign]
    second = world.join()
    # The second one's heartbeat tells the first of the document in which it stands, the first
    # one's tells the second of the document in which it owns something.
    world.run_until(world.is_settled, within=2 * Timing().heartbeat + 0.3)
    assert len(second.owned()) == 1


# Marks


def test_a_mark_goes_with_a_partition_that_is_handed_over() -> None:
    world, _ = group(1, partitions=2)
    world.join()
    world.run(1)
    assert world.marks[-1][1:] == (2, f"{world.marks[-1][0]}@1")


def test_the_last_noted_mark_of_a_killed_member_reaches_its_successor() -> None:
    world, (first, second) = group(2, partitions=2)
    (lost,) = first.owned()
    epoch, _ = first.member.holdings[lost]
    first.member.note(lost, epoch, "noted")
    world.run(2)
    first.kill()
    world.run(3)
    assert world.marks[-1] == (lost, epoch + 1, "noted")
    assert len(second.owned()) == 2


def test_the_mark_survives_who_calls_its_owner_dead_and_dies_of_it() -> None:
    world, (first, second) = group(2, partitions=1)
    (owner,) = [node for node in world.nodes if node.owned()]
    other = second if owner is first else first
    owner.member.note(0, owner.taken[-1][2], "noted")
    world.run(2)
    owner.kill()
    key = f"member.{owner.member.id}"
    world.run_until(lambda: b"dead" in world.bucket.entries[key][1], within=3)
    other.kill()
    world.join()
    world.run_until(world.is_settled, within=3)
    assert world.marks[-1][2] == "noted"


def test_a_mark_of_another_epoch_is_not_noted() -> None:
    member = alone()
    member.note(0, 7, "of nobody")
    member.note(3, 1, "of nothing")
    assert b"of no" not in only(member.wake(1.1), Put).value


# Somebody else reads


def test_a_partition_that_somebody_else_reads_is_dropped_and_had_again_if_it_is_ours() -> None:
    member = alone()
    effects = member.lost(0.5, 0, 1, "status 423")
    assert only(effects, Drop) == Drop(0, 1, "status 423")
    assert not member.owns(0.5, 0, 1)
    read = only(effects, Get)
    assert member.lost(0.5, 0, 1, "status 423") == []
    member.drained(0.6, 0, 1, "")
    document = only(member.answered(0.7, read.request, Found(2, b'{"v":1}')), Put)
    assert member.answered(0.8, document.request, Stored(3)) == [Take(0, 2, "")]


# Leaving


def test_who_leaves_drains_everything_tells_the_document_and_goes() -> None:
    member = alone(2)
    effects = member.leave(0.5)
    assert [effect for effect in effects if isinstance(effect, Drain)] == [
        Drain(0, 1),
        Drain(1, 1),
    ]
    assert member.owns(0.6, 0, 1)
    marked = only(effects, Put)
    member.drained(0.6, 0, 1, "x")
    member.drained(0.6, 1, 1, "y")
    last = only(member.answered(0.7, marked.request, Stored(3)), Put)
    assert member.answered(0.8, last.request, Stored(4)) == [Delete("member.a-1", 1), Left()]
    assert member.wake(1.1) == []
    assert member.wake_at == float("inf")
    assert [entry.mark for entry in member.document.partitions] == ["x", "y"]


def test_what_a_leaving_member_had_is_owned_at_once_by_those_who_stay() -> None:
    world, (first, second, third) = group(3, partitions=6)
    second.leave()
    assert world.run_until(lambda: len(first.owned()) + len(third.owned()) == 6, within=1) < 0.2
    world.run(1)
    assert second.has_left
    assert len(world.bucket.entries) == 3


def test_who_never_joined_can_leave() -> None:
    member = Member("a", 1, 0.0)
    effects = member.leave(0.0)
    read = only(effects, Get)
    assert member.answered(0.1, read.request, Absent()) == [Left()]


def test_a_group_that_everybody_left_keeps_its_epochs_and_marks() -> None:
    world, (first,) = group(1, partitions=1)
    first.leave()
    world.run(1)
    assert world.bucket.document.members == ()
    world.join()
    world.run(1)
    assert world.marks[-1] == (0, 2, "0@1")


# The document


def test_a_bucket_that_is_emptied_under_the_group_is_filled_after_the_last_lease() -> None:
    world, _ = group(2)
    epochs = dict(world.epochs)
    world.bucket.entries.clear()
    emptied = world.now
    world.run_until(lambda: DOCUMENT in world.bucket.entries, within=5)
    assert world.now - emptied >= Timing().lease
    world.run(1)
    assert world.is_settled()
    assert all(world.epochs[partition] > epochs[partition] for partition in epochs)


def test_where_a_marker_was_left_its_revision_is_what_is_written_at() -> None:
    member = Member("a", 1, 0.0)
    effects = member.wake(0.0)
    heartbeat, read = only(effects, Put), only(effects, Get)
    member.answered(0.0, heartbeat.request, Stored(8))
    document = only(member.answered(0.0, read.request, Absent(7)), Put)
    assert document.revision == 7


def test_an_answer_that_is_older_than_what_is_known_is_not_asked_for_at_once_again() -> None:
    member = alone()
    read = only(member.noticed(0.1, DOCUMENT, 9, None), Get)
    assert member.answered(0.2, read.request, Found(1, b'{"v":1}')) == []
    assert len(member.document.partitions) == 1


def test_that_there_was_nothing_is_no_news_once_there_is_something() -> None:
    member = Member("b", 1, 0.0)
    read = only(member.wake(0.0), Get)
    member.noticed(0.1, DOCUMENT, 5, b'{"v":1,"lease":1.8,"members":["a-1"]}')
    member.answered(0.2, read.request, Absent())
    assert member.document.members == ("a-1",)
    assert member.id == "b-1"


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b'{"v":1,"members":7}', "cannot be read"),
        (b"{}", "v=0"),
        (b'{"v":2}', "v=2 where this tbus knows 1"),
        (b'{"v":1,"members":["b-1"],"lease":9}', "leases of 9 s, this one of 1.8 s"),
    ],
)
def test_a_document_that_must_not_be_changed_ends_the_subscription(data: bytes, match: str) -> None:
    member = Member("a", 1, 0.0)
    read = only(member.wake(0.0), Get)
    with pytest.raises(SubscriptionFailed, match=match):
        member.answered(0.1, read.request, Found(3, data))


def test_a_heartbeat_that_cannot_be_read_is_a_sign_of_life() -> None:
    world, (_, second) = group(2)
    second.suspend()
    for _ in range(10):
        key = f"member.{second.member.id}"
        revision, _ = world.bucket.entries[key]
        world.bucket.put(key, b"?", revision)
        world._tell(key, world.bucket.revision, b"?")
        world.run(1)
    assert second.member.id in world.bucket.document.members


def test_more_partitions_are_added_by_the_first_member_that_knows_of_them() -> None:
    world, (first,) = group(1, partitions=2)
    world.partitions = 5
    second = world.join()
    world.run(1)
    assert world.is_settled()
    assert len(first.owned()) + len(second.owned()) == 5


@pytest.mark.parametrize(("name", "partitions"), [("", 1), ("a", 0), ("a", 1.5), ("a", True)])
def test_a_member_without_a_name_or_partitions_is_refused(name: str, partitions: object) -> None:
    with pytest.raises(ConfigurationError, match="="):
        Member(name, partitions, 0.0)  # type: ignore[arg-type]
