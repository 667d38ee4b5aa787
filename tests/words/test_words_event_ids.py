"""Ids made in blocks are UUIDv7s like the others, and never the same."""

from __future__ import annotations

from uuid import UUID

from tbus._envelope import EventIds


def test_ids_made_in_blocks_are_uuid7s_and_differ_over_many_blocks() -> None:
    ids = EventIds()
    made = [ids.new() for _ in range(2000)]
    assert len(set(made)) == len(made)
    for text in made:
        identifier = UUID(text)
        assert identifier.version == 7
        assert identifier.variant == "specified in RFC 4122"
        assert str(identifier) == text


def test_two_makers_do_not_make_the_same() -> None:
    one, other = EventIds(), EventIds()
    assert not {one.new() for _ in range(500)} & {other.new() for _ in range(500)}
