"""What a fetch says: byte for byte what the client would, but for how long it may be held."""

from __future__ import annotations

import copy
import time
from typing import Any, cast

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.metadata import MetadataRequest
from hypothesis import given
from hypothesis import strategies as st

from tbus.transports.kafka._fetch_requests import _held, end_sessions, shape_fetches

KEY = FetchRequest.API_KEY
NEWEST = 11
NOTHING = FetchResponse_v11(0, 0, 0, [])
SOMETHING = FetchResponse_v11(0, 0, 0, [("orders", [])])
ASKED = (250, 1, 52_428_800, 1)

int32 = st.integers(0, 2**31 - 1)
partitions = st.lists(st.tuples(int32, st.integers(0, 2**63 - 1), int32), max_size=4)
topics = st.lists(st.tuples(st.text(max_size=20), partitions), max_size=4)


class Consumer:
    """One whose client remembers what it is asked to send, and gets an answer."""

    def __init__(self, answer: FetchResponse_v11) -> None:
        self._client = self._fetcher = self.cluster = self
        self._records: dict[str, Consumer] = {}
        self.answer = answer
        self.sent: Any = None
        self.options: dict[str, Any] = {}

    async def send(self, node_id: int, request: Any, **options: Any) -> FetchResponse_v11:
        assert node_id == 3
        self.sent, self.options = request, options
        return self.answer

    def leader_for_partition(self, name: str) -> int:
        return {"busy": 3, "elsewhere": 4}[name]


async def sent(request: Any, answer: FetchResponse_v11 = NOTHING, **options: Any) -> Consumer:
    consumer = Consumer(answer)
    shape_fetches(cast("Any", consumer))
    assert await consumer.send(3, request, **options) is answer
    return consumer


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
    consumer = await sent(request, group=1)
    assert consumer.sent is request
    assert consumer.options == {"group": 1}


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


class Connected(Consumer):
    """One that does with a request what a connection does."""

    wire = b""

    async def send(self, node_id: int, request: Any, **options: Any) -> FetchResponse_v11:
        self.wire = request.prepare({KEY: (4, NEWEST)}).encode()
        return await super().send(node_id, request, **options)


async def test_of_what_a_broker_knows_a_fetch_names_only_what_has_changed() -> None:
    consumer = Connected(FetchResponse_v11(0, 0, 7, []))
    shape_fetches(cast("Any", consumer))
    orders, bills = ("orders", [(0, 5, 100), (1, 6, 100)]), ("bills", [(2, 1, 100)])

    async def ask(*topics: tuple[str, list[tuple[int, int, int]]]) -> Any:
        await consumer.send(3, FetchRequest(*ASKED, list(topics)))
        return FetchRequest_v11.decode(consumer.wire)

    first, begin, same = (
        await ask(orders, bills),
        await ask(orders, bills),
        await ask(orders, bills),
    )
    assert (first.session_id, first.session_epoch) == (0, -1)
    assert (begin.session_id, begin.session_epoch) == (0, 0)
    assert first.topics == begin.topics != []
    assert (same.session_id, same.session_epoch) == (7, 1)
    assert same.topics == same.forgotten_topics_data == []
    other = await ask(("orders", [(1, 7, 100)]))
    assert other.topics == [("orders", [(1, -1, 7, -1, 100)])]
    assert sorted(other.forgotten_topics_data) == [("bills", [2]), ("orders", [0])]


async def test_of_an_answer_the_client_is_to_look_up_only_the_topics_that_it_tells_of() -> None:
    bills = ("bills", [(0, 1, 100)])
    request = FetchRequest(*ASKED, [("orders", [(0, 5, 100)]), bills])
    await sent(request, FetchResponse_v11(0, 0, 0, [("bills", [])]))
    assert request.topics == [bills]


@pytest.mark.parametrize(
    ("there", "held"),
    [
        ([], 250),
        ([99.0], 100),
        ([90.0], 250),
        ([90.0, 99.5], 50),
        ([100.0], 1),
    ],
    ids=["nothing", "a second ago", "long ago", "the youngest counts", "just now"],
)
def test_a_fetch_is_held_for_a_tenth_of_the_time_that_what_is_there_has_lasted(
    there: list[float], held: int
) -> None:
    assert _held(250, there, now=100.0) == held


async def test_a_fetch_is_held_only_briefly_while_something_else_is_still_there() -> None:
    request = FetchRequest(*ASKED, [("orders", [(0, 5, 100)])])
    consumer: Any = Consumer(SOMETHING)
    consumer._created = time.monotonic()
    consumer._records["busy"] = consumer
    assert 1 <= await held_by(consumer, request) < ASKED[0]


async def test_what_is_there_of_another_broker_does_not_matter() -> None:
    request = FetchRequest(*ASKED, [("orders", [(0, 5, 100)])])
    consumer: Any = Consumer(SOMETHING)
    consumer._created = time.monotonic()
    consumer._records["elsewhere"] = consumer
    assert await held_by(consumer, request) == ASKED[0]


async def held_by(consumer: Any, request: FetchRequest) -> int:
    """For how long a broker may hold a fetch, in milliseconds."""
    shape_fetches(consumer)
    await consumer.send(3, request)
    sent = FetchRequest_v11.decode(consumer.sent.prepare({KEY: (4, NEWEST)}).encode())
    held: int = sent.max_wait_time
    return held


class Connection:
    """Keeps what is written on it, and never has an answer."""

    def __init__(self, *, is_open: bool = True, is_broken: bool = False) -> None:
        self._is_open, self._is_broken = is_open, is_broken
        self.written: list[Any] = []

    def connected(self) -> bool:
        return self._is_open

    def send(self, request: Any) -> Any:
        assert self._is_open
        if self._is_broken:
            raise KafkaConnectionError("no route to host")
        self.written.append(FetchRequest_v11.decode(request.prepare({KEY: (4, NEWEST)}).encode()))
        return self._wait()

    async def _wait(self) -> None:
        raise AssertionError("nobody waits")


async def test_who_closes_ends_its_sessions_where_there_is_a_connection() -> None:
    consumer = Connected(FetchResponse_v11(0, 0, 7, []))
    sessions = shape_fetches(cast("Any", consumer))
    request = FetchRequest(*ASKED, [("orders", [(0, 5, 100)])])
    connections = {
        1: Connection(is_broken=True),
        2: Connection(is_open=False),
        3: Connection(),
        4: Connection(),
    }
    for _ in range(2):
        await consumer.send(3, request)
    for other in (1, 2, 5):  # as if these had given one as well
        sessions[other] = copy.copy(sessions[3])
    assert sessions[4].end() is None
    admin: Any = Connection()
    admin._client = admin
    admin._conns = {(node, ConnectionGroup.DEFAULT): one for node, one in connections.items()}
    end_sessions({node: sessions[node] for node in range(1, 6)}, admin)
    (ending,) = connections[3].written
    assert (ending.session_id, ending.session_epoch) == (7, -1)
    assert (ending.max_wait_time, ending.topics, ending.forgotten_topics_data) == (0, [], [])
    assert connections[4].written == []
    await consumer.send(3, request)
    last = FetchRequest_v11.decode(consumer.wire)
    assert (last.session_id, last.session_epoch) == (0, -1)
