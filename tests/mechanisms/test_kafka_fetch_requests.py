"""How fetches are encoded: byte for byte as the client would, whatever they ask for."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from aiokafka.protocol.metadata import MetadataRequest
from hypothesis import given
from hypothesis import strategies as st

from tbus.transports.kafka._fetch_requests import encode_fetches

KEY = FetchRequest.API_KEY
NEWEST = 11
NOTHING = FetchResponse_v11(0, 0, 0, [])
SOMETHING = FetchResponse_v11(0, 0, 0, [("orders", [])])
ASKED = (250, 1, 52_428_800, 1)

int32 = st.integers(0, 2**31 - 1)
partitions = st.lists(st.tuples(int32, st.integers(0, 2**63 - 1), int32), max_size=4)
topics = st.lists(st.tuples(st.text(max_size=20), partitions), max_size=4)


class Client:
    """One that remembers what it is asked to send, and gets an answer."""

    def __init__(self, answer: FetchResponse_v11) -> None:
        self.answer = answer
        self.sent: Any = None
        self.options: dict[str, Any] = {}

    async def send(self, node_id: int, request: Any, **options: Any) -> FetchResponse_v11:
        assert node_id == 3
        self.sent, self.options = request, options
        return self.answer


async def sent(request: Any, answer: FetchResponse_v11 = NOTHING, **options: Any) -> Client:
    client = Client(answer)
    encode_fetches(client)
    assert await client.send(3, request, **options) is answer
    return client


@given(topics=topics, rack=st.text(max_size=5))
async def test_a_fetch_is_what_the_client_would_send(
    topics: list[tuple[str, list[tuple[int, int, int]]]], rack: str
) -> None:
    request = FetchRequest(*ASKED, topics, rack_id=rack)
    ours = (await sent(request, SOMETHING)).sent.prepare({KEY: (4, 17)})
    theirs = request.prepare({KEY: (4, 17)})
    assert ours.encode() == theirs.encode()
    header = {"correlation_id": 7, "client_id": "tbus"}
    assert ours.build_request_header(**header) == theirs.build_request_header(**header)
    assert ours.RESPONSE_TYPE is theirs.RESPONSE_TYPE


@pytest.mark.parametrize("newest", [4, 5, 7, 10])
async def test_an_older_broker_is_sent_the_client_s_own_form(newest: int) -> None:
    request = FetchRequest(*ASKED, [("orders", [(0, 5, 100)])])
    ours = (await sent(request, SOMETHING)).sent.prepare({KEY: (0, newest)})
    theirs = request.prepare({KEY: (0, newest)})
    assert type(ours) is type(theirs)
    assert ours.encode() == theirs.encode()


async def test_other_requests_are_left_alone() -> None:
    request = MetadataRequest()
    client = await sent(request, group=1)
    assert client.sent is request
    assert client.options == {"group": 1}


async def test_a_fetch_can_be_logged() -> None:
    request = FetchRequest(*ASKED, [("orders", [(0, 5, 100)])])
    ours = (await sent(request, SOMETHING)).sent.prepare({KEY: (4, NEWEST)})
    assert "orders" in repr(ours)


async def test_only_of_an_answer_that_brings_nothing_the_client_is_not_to_look_it_up() -> None:
    request = FetchRequest(*ASKED, [("orders", [(0, 5, 100)])])
    await sent(request, SOMETHING)
    assert request.topics == [("orders", [(0, 5, 100)])]
    await sent(request, NOTHING)
    assert request.topics == []
