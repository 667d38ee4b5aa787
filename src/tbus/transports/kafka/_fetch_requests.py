"""What is sent when a consumer fetches: for how long the broker may hold it, and its encoding.

Lives in the clients' loop. Of a partition of which something is still there nothing is fetched,
and to a broker one fetch is under way. So one that names idle partitions alone, held until
something comes, would hold up a busy one of the same broker that has run dry meanwhile (seen: an
idle topic took a fifth of a busy one's rate). It is held only for a share of the time for which
what is there has lasted already.

Where nothing comes of any partition that a broker leads, its fetches are held longer after a while:
what a fetch and its answer cost is most of what an idle reader does, and something that comes ends
it at once. Late is then only what is not in it: partitions that are assigned meanwhile.

A client's fetch names every partition that is read, several times a second while nothing comes,
and each number of it is encoded by calls of calls. Here what the broker knows already is left out
(`_fetch_sessions`), and a topic is one `pack`. Only the newest form that the client knows is
encoded here; for a broker that does not know it, and for all other requests, the client does as it
did.
"""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs
from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11

from ._fetch_repeats import Standing, can_tell
from ._fetch_sessions import Asked, FetchSession

HELD = 0.1
"""The share. A partition that runs dry is late by this much of the time that it took, at most."""

QUIET = 8
"""Fetches in a row that brought nothing, after which they are held twice as long."""

LONGEST = 500
"""Milliseconds for which those are held at most, unless all are to be held longer."""

BRIEFLY = 1
"""Milliseconds for which a broker may hold a fetch that begins a session."""

_HEAD = struct.Struct(">iiiibiii")
"""Replica, wait, least and most bytes, isolation, session, its epoch, count of topics."""
_ONE = struct.Struct(">iiiqqi")
"""How many partitions: one; its number, leader's epoch, offset, first offset, most bytes."""
_PARTITION = struct.Struct(">iiqqi")
_COUNT = struct.Struct(">i")
_NAME = struct.Struct(">h")
_UNKNOWN = -1

_PRIVATE = {"_max_wait_ms", "_min_bytes", "_max_bytes", "_isolation_level", "_topics", "_rack_id"}


def shape_fetches(consumer: AIOKafkaConsumer) -> defaultdict[Any, FetchSession]:
    """Have a consumer fetch this way; one that is another one inside goes on in its own way.

    Returns its sessions, by broker.
    """
    sessions: defaultdict[Any, FetchSession] = defaultdict(FetchSession)
    if not _PRIVATE.issubset(FetchRequest.__init__.__code__.co_names):
        return sessions
    client: Any = consumer._client
    send: Callable[..., Awaitable[Any]] = client.send

    repeats = can_tell(client)

    async def send_fetch(node_id: Any, request: Any, **options: Any) -> Any:
        if type(request) is not FetchRequest:
            return await send(node_id, request, **options)
        fetcher: Any = consumer._fetcher
        there = [
            fetched._created
            for part, fetched in fetcher._records.items()
            if client.cluster.leader_for_partition(part) == node_id
        ]
        most, wanted = request._max_wait_ms, request._topics
        request._max_wait_ms = _held(most, there, time.monotonic())
        standing: Standing | None = None
        in_vain = 0
        while True:
            fetch = _Fetch(request, sessions[node_id])
            answer = await send(node_id, fetch, **options)
            if not (fetch.brought_nothing(answer) and repeats):
                break
            standing = standing or Standing(fetcher, client.cluster, node_id, wanted)
            if not standing.holds():
                break
            in_vain += 1
            is_quiet = in_vain >= QUIET and standing.is_all
            request._max_wait_ms = max(most, min(2 * most, LONGEST)) if is_quiet else most
        # The client would look up all that it had asked for, one by one.
        told = {topic for topic, _ in answer.topics}
        request._topics = [one for one in wanted if one[0] in told] if told else []
        return answer

    client.send = send_fetch
    return sessions


def end_sessions(sessions: Mapping[Any, FetchSession], admin: AIOKafkaAdminClient) -> None:
    """Tell brokers that a consumer is being closed. It is written where there is a connection, and
    nobody waits: a session that stays all the same is forgotten by its broker in two minutes.

    Args:
        admin: by whose connections. On the consumer's own a broker reads nothing while it holds a
            fetch, and by then they are closed.
    """
    client: Any = admin._client
    for node, session in sessions.items():
        asked = session.end()
        connection = client._conns.get((node, ConnectionGroup.DEFAULT))
        if asked is None or connection is None or not connection.connected():
            continue
        with suppress(kafka.KafkaConnectionError):
            # What it returns waits for the answer, which is nothing but that it was heard.
            connection.send(_Ending(asked)).close()


def _held(most: int, there: Sequence[float], now: float) -> int:
    """Milliseconds for which a broker may hold a fetch.

    Args:
        most: with nothing there.
        there: when what is there came, which is not fetched.
    """
    if not there:
        return most
    return min(most, max(1, int((now - max(there)) * HELD * 1000)))


class _Fetch:
    """What a connection is asked to send.

    Args:
        session: with the broker.
    """

    def __init__(self, request: Any, session: FetchSession) -> None:
        self._request = request
        self._session = session
        self._asked: Asked | None = None

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Any:
        """In the form for a broker that knows these versions of each request."""
        asked = self._request
        oldest, newest = versions.get(FetchRequest.API_KEY, (0, -1))
        if not oldest <= FetchRequest_v11.API_VERSION <= newest:
            return asked.prepare(versions)
        self._asked = self._session.ask(asked._topics)
        # One that is cut off before it was answered leaves a session behind that nobody knows.
        wait = min(asked._max_wait_ms, BRIEFLY) if self._asked.briefly else asked._max_wait_ms
        head = (wait, asked._min_bytes, asked._max_bytes, asked._isolation_level)
        return _Encoded(head, self._asked, asked._rack_id)

    def brought_nothing(self, answer: Any) -> bool:
        """Tell the session of the answer; whether it is one, and brings neither news nor error."""
        if self._asked is None:
            return False
        error, session, nothing = answer.error_code, answer.session_id, not answer.topics
        self._session.answered(self._asked, error, session, nothing=nothing)
        return nothing and not error


@attrs.frozen
class _Ending:
    """What a connection is asked to send, to a broker that has given a session."""

    asked: Asked

    def prepare(self, _: Mapping[int, tuple[int, int]]) -> _Encoded:
        """In the form in which a session was asked for."""
        return _Encoded((0, 0, 0, 0), self.asked, "")


class _Encoded(FetchRequest_v11):  # type: ignore[misc]  # aiokafka has no types
    """What a connection sends, and asks how the answer is to be read."""

    def __init__(self, head: tuple[int, int, int, int], asked: Asked, rack: str) -> None:
        self._asked = (head, asked, rack)

    def encode(self) -> bytes:
        """As it goes over the wire. Source: Kafka's protocol guide, Fetch, version 11."""
        head, asked, rack = self._asked
        parts = [_HEAD.pack(_UNKNOWN, *head, asked.session, asked.epoch, len(asked.named))]
        for topic, partitions in asked.named:
            name = topic.encode()
            parts += _NAME.pack(len(name)), name
            if len(partitions) == 1:
                number, offset, most = partitions[0]
                parts.append(_ONE.pack(1, number, _UNKNOWN, offset, _UNKNOWN, most))
                continue
            parts.append(_COUNT.pack(len(partitions)))
            parts += [
                _PARTITION.pack(number, _UNKNOWN, offset, _UNKNOWN, most)
                for number, offset, most in partitions
            ]
        parts.append(_COUNT.pack(len(asked.forgotten)))
        for topic, numbers in asked.forgotten:
            name = topic.encode()
            count = len(numbers)
            parts += _NAME.pack(len(name)), name, struct.pack(f">i{count}i", count, *numbers)
        parts += _NAME.pack(len(rack.encode())), rack.encode()
        return b"".join(parts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._asked}"
