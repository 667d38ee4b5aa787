"""A fetch that brought nothing is repeated only while the client would ask for just the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.metadata import MetadataResponse_v1
from aiokafka.structs import TopicPartition

from tbus.transports.kafka._fetch_requests import BRIEFLY, LONGEST, QUIET, shape_fetches

HERE, ELSEWHERE = 3, 4
A, B, HELD_BACK, FAR = (TopicPartition("t", number) for number in range(4))
WAIT = 250
NOTHING = FetchResponse_v11(0, 0, 0, [])
SOMETHING = FetchResponse_v11(0, 0, 0, [("t", [])])
FAILED = FetchResponse_v11(0, 70, 0, [])
OFTEN = 5


class Client:
    """A consumer with two partitions that it reads, one that is paused and one elsewhere; and its
    client, whose fetches are answered with nothing `OFTEN` times, then with something."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[Client], object] = lambda _: None
        """Called when a fetch has been answered the second time."""
        self.answers = [NOTHING] * OFTEN
        self.sent: list[Any] = []
        self.cluster = ClusterMetadata()
        self._client = self
        self.tell_leaders()
        self.states = SubscriptionState()
        self.states.subscribe({"t"})
        self.assign()
        self._records: dict[TopicPartition, Any] = {}
        self._fetcher = SimpleNamespace(_records=self._records, _subscriptions=self.states)
        shape_fetches(cast("Any", self))

    def assign(self) -> None:
        self.states.assign_from_subscribed({A, B, HELD_BACK, FAR})
        for part in (A, B, HELD_BACK, FAR):
            self.states.seek(part, 5)
        self.states.pause(HELD_BACK)

    def tell_leaders(self, of_a: int = HERE) -> None:
        leaders = {A: of_a, B: HERE, HELD_BACK: HERE, FAR: ELSEWHERE}
        parts = [(0, part.partition, node, [node], [node]) for part, node in leaders.items()]
        brokers = [(HERE, "h", 1, None), (ELSEWHERE, "h", 2, None)]
        self.cluster.update_metadata(MetadataResponse_v1(brokers, HERE, [(0, "t", False, parts)]))

    async def send(self, node_id: int, request: Any, **_: Any) -> FetchResponse_v11:
        assert node_id == HERE
        prepared = request.prepare({FetchRequest.API_KEY: (4, 11)})
        self.sent.append(FetchRequest_v11.decode(prepared.encode()))
        await asyncio.sleep(0)
        if len(self.sent) == 1:
            self._records.clear()  # what was there was taken meanwhile
        if len(self.sent) == 2:
            self.meanwhile(self)
        return (
            self.answers[len(self.sent) - 1] if len(self.sent) <= len(self.answers) else SOMETHING
        )

    async def fetch(
        self, *parts: tuple[int, int, int], wait: int = WAIT
    ) -> tuple[Any, FetchResponse_v11]:
        request = FetchRequest(wait, 1, 100, 1, [("t", list(parts or [(0, 5, 9), (1, 5, 9)]))])
        return request, await self.send(HERE, request)


def in_a_loop(test: Callable[[Client], Any]) -> None:
    async def main() -> None:
        await test(Client())

    asyncio.run(main())


def test_a_fetch_is_repeated_until_something_comes():
    async def check(client: Client) -> None:
        request, answer = await client.fetch()
        assert answer is SOMETHING
        assert len(client.sent) == OFTEN + 1
        assert request.topics == [("t", [(0, 5, 9), (1, 5, 9)])]

    in_a_loop(check)


def test_an_error_is_for_the_client_to_see():
    async def check(client: Client) -> None:
        client.answers[2] = FAILED
        _, answer = await client.fetch()
        assert answer is FAILED
        assert len(client.sent) == 3

    in_a_loop(check)


@pytest.mark.parametrize(
    "change",
    [
        lambda client: client.states.seek(A, 6),
        lambda client: client.states.pause(A),
        lambda client: client.states.resume(HELD_BACK),
        lambda client: client.states._assigned_state(B).await_reset(-1),
        lambda client: client.assign(),
        lambda client: client.states.unsubscribe(),
        lambda client: client.tell_leaders(),
        lambda client: client._records.update({FAR: SimpleNamespace(_created=time.monotonic())}),
    ],
    ids=[
        "another place", "paused", "resumed", "no place", "assigned anew", "nothing assigned",
        "leaders told anew", "something waits",
    ],
)  # fmt: skip
def test_a_fetch_is_not_repeated_when_something_has_changed(change):
    async def check(client: Client) -> None:
        client.meanwhile = change
        request, answer = await client.fetch()
        assert answer is NOTHING
        assert len(client.sent) == 2
        assert request.topics == []

    in_a_loop(check)


def test_a_fetch_that_left_out_what_is_wanted_by_now_is_not_repeated():
    """It waited to be taken when the fetch was made, and was taken before it was answered."""

    async def check(client: Client) -> None:
        await client.fetch((0, 5, 9))
        assert len(client.sent) == 1

    in_a_loop(check)


def test_a_fetch_of_what_another_broker_leads_by_now_is_not_repeated():
    async def check(client: Client) -> None:
        client.tell_leaders(of_a=ELSEWHERE)
        await client.fetch()
        assert len(client.sent) == 1

    in_a_loop(check)


def test_only_the_first_fetch_is_held_briefly_for_what_was_there():
    async def check(client: Client) -> None:
        client._records[A] = SimpleNamespace(_created=time.monotonic())
        await client.fetch()
        assert client.sent[0].max_wait_time < WAIT
        begin, *others = client.sent[1:]  # which is not held at all
        assert begin.max_wait_time == BRIEFLY
        assert {one.max_wait_time for one in others} == {WAIT}

    in_a_loop(check)


def test_after_a_while_in_which_nothing_came_of_all_a_broker_leads_it_holds_fetches_longer():
    async def held(wait: int, *parts: tuple[int, int, int]) -> list[int]:
        client = Client()
        client.answers = [NOTHING] * (QUIET + 3)
        await client.fetch(*parts, wait=wait)
        return [one.max_wait_time for one in client.sent if one.max_wait_time != BRIEFLY]

    async def check(_: Client) -> None:
        everything = [(number, 5, 9) for number in range(2)]
        assert set(await held(WAIT)) == {WAIT}  # one is held back, and may be wanted at any time
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SubscriptionState, "pause", lambda *_: None)
            everything.append((2, 5, 9))
            first, *later = [await held(WAIT, *everything), await held(100, *everything)]
            assert first == [WAIT] * (QUIET - 1) + [LONGEST] * 4
            assert later == [[100] * (QUIET - 1) + [200] * 4]
            assert set(await held(2 * LONGEST, *everything)) == {2 * LONGEST}

    in_a_loop(check)


def test_what_comes_has_the_next_fetch_held_as_before():
    async def check(client: Client) -> None:
        client.states.resume(HELD_BACK)
        client.answers = [NOTHING] * (QUIET + 3)
        parts = [(number, 5, 9) for number in range(3)]
        await client.fetch(*parts)
        assert client.sent[-1].max_wait_time == LONGEST
        client.answers += [SOMETHING, NOTHING]
        await client.fetch(*parts)
        assert client.sent[-1].max_wait_time == WAIT

    in_a_loop(check)
