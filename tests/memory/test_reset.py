"""A feed that was cut goes back, and hands over nothing that was settled."""

from __future__ import annotations

from tbus._transport import FeedRequest
from tests.memory.kit import Outbox, bodies, finish, open_one, receive_count


async def test_what_was_settled_before_a_cut_does_not_come_again_when_the_floor_moves_past_it():
    async with open_one() as transport:
        Outbox(transport).send_all("abcdef")
        feed = await transport.open_feed(FeedRequest("t", "g", max_in_flight=4))
        first = await receive_count(feed, 4)
        finish(feed, first[2:])
        transport.faults.cut_feeds(None)
        transport.faults.restore()
        # Nothing was read since: the floor passes the cursor, and all that was settled.
        finish(feed, first[:2])
        rest = await receive_count(feed, 2)
    assert bodies(first + rest) == "abcdef"
