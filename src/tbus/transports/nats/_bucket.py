"""The bucket in which groups keep who owns which partition. Lives in the clients' loop.

One stream for all groups of all topics, laid out like NATS's own key-value buckets, so their tools
can read it. Each group has keys of its own, `<topic>.<group>.<key>`. Reads go to the stream's
leader; a value is stored at the revision that its writer names, or not at all. Source: NATS
ADR-8, key-value stores.

Questions are sent and forgotten: what comes back is told by its number, and who hears nothing asks
again. So nothing here waits, but for the bucket and the watch to be made.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from ..._config import NatsOptions
from ..._errors import TbusError
from ..._ownership import (
    DOCUMENT,
    Absent,
    Answer,
    Delete,
    Document,
    Found,
    Get,
    Put,
    Refused,
    Stored,
    decode_document,
)
from ._errors import (
    FULL,
    MESSAGE_NOT_FOUND,
    STREAM_EXISTS,
    STREAM_NOT_FOUND,
    WRONG_REVISION,
    ApiError,
    NoAnswer,
    not_possible,
)
from ._names import API, stream_name
from ._session import Session, Subscription, publish_command
from ._streams import NANO

logger = logging.getLogger("tbus.nats")

BUCKET = "KV_tbus"
"""The stream of the bucket `tbus`."""

_SUBJECT = "$KV.tbus."

FORGET_WATCH_AFTER = 10.0
"""Seconds after which the server removes the watch of a member that is gone."""

WARN_EVERY = 10.0
"""Seconds between two warnings that the server has no room."""

_OPERATION = b"KV-Operation:"
"""Names the header of a marker: what stood there was removed."""


def group_prefix(topic: str, group: str = "") -> str:
    """What the keys of a group begin with; without one, those of all groups of a topic."""
    return f"{_SUBJECT}{stream_name(topic)}.{stream_name(group)}{'.' if group else ''}"


async def forget_topic(session: Session, topic: str) -> None:
    """Remove what the groups of a topic have left."""
    try:
        await session.api(f"STREAM.PURGE.{BUCKET}", {"filter": group_prefix(topic) + ">"})
    except ApiError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise not_possible(f"cannot remove the groups of topic {topic!r}", error) from error


async def read_document(session: Session, topic: str, group: str) -> Document:
    """Who is in a group, and owns which partitions of it."""
    found = await _read(session, group_prefix(topic, group) + DOCUMENT)
    return decode_document(found.value) if isinstance(found, Found) else Document()


async def _read(session: Session, subject: str) -> Answer:
    try:
        answer = await session.api(f"STREAM.MSG.GET.{BUCKET}", {"last_by_subj": subject})
        return _found(answer)
    except ApiError as error:
        if error.err_code in (MESSAGE_NOT_FOUND, STREAM_NOT_FOUND):
            return Absent()
        raise


class GroupBucket:
    """One group's keys.

    Args:
        on_answer: told what became of a `Put` or `Get`: its number, and the answer.
        on_news: told that a key was changed: key, revision, and value, or None if removed.
        fail: told that the bucket cannot be used.
    """

    def __init__(
        self,
        topic: str,
        group: str,
        options: NatsOptions,
        *,
        on_answer: Callable[[int, Answer], None],
        on_news: Callable[[str, int, bytes | None], None],
        fail: Callable[[TbusError], None],
    ) -> None:
        self._what = f"keep who reads topic {topic!r} for group {group!r}"
        self._prefix = group_prefix(topic, group)
        self._options = options
        self._on_answer = on_answer
        self._on_news = on_news
        self._fail = fail
        self._session: Session | None = None
        self._inbox = ""
        self._watch = ""
        self._warn_after = 0.0
        self._subscriptions: list[Subscription] = []

    async def attach(self, session: Session) -> None:
        """Use this connection: make the bucket if it does not exist, and watch the keys. What
        stands there now is told first.

        Raises:
            TbusError: the server would not have it.
            SessionLost, NoAnswer, NoResponders: ask again.
        """
        self._session = None
        for subscription in self._subscriptions:  # of an attempt that had no answer
            await session.unsubscribe(subscription)
        try:
            await self._find_or_make(session)
            inbox = session.new_inbox()
            answers = await session.subscribe(inbox + ".*", self._on_reply)
            news = await session.subscribe(inbox, self._on_change)
            self._subscriptions = [answers, news]
            self._inbox = inbox + "."
            self._watch = f"tbus-{uuid.uuid4().hex}"
            config = {
                "name": self._watch,
                "deliver_subject": inbox,
                "deliver_policy": "last_per_subject",
                "filter_subject": self._prefix + ">",
                "ack_policy": "none",
                "max_deliver": 1,
                "mem_storage": True,
                "num_replicas": 1,
                "inactive_threshold": round(FORGET_WATCH_AFTER * NANO),
            }
            body = {"stream_name": BUCKET, "config": config}
            await session.api(f"CONSUMER.CREATE.{BUCKET}.{self._watch}", body)
        except ApiError as error:
            if error.err_code in FULL:
                raise NoAnswer(f"the server has no room to {self._what}: {error}") from error
            raise not_possible(f"cannot {self._what}", error) from error
        self._session = session

    def detach(self) -> None:
        """The connection is gone, and the watch with it."""
        self._session = None
        self._subscriptions = []

    async def close(self) -> None:
        """Watch no more."""
        session, self._session = self._session, None
        if session is None or session.lost.is_set():
            return
        for subscription in self._subscriptions:
            await session.unsubscribe(subscription)
        session.write(publish_command(f"{API}.CONSUMER.DELETE.{BUCKET}.{self._watch}", b""))

    async def _find_or_make(self, session: Session) -> None:
        try:
            await session.api(f"STREAM.INFO.{BUCKET}")
        except ApiError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise
        else:
            return
        config = {
            "name": BUCKET,
            "subjects": [_SUBJECT + ">"],
            "description": "tbus: who reads which partition for which group",
            "max_msgs_per_subject": 1,
            "discard": "new",
            "storage": self._options.storage,
            "num_replicas": self._options.replicas,
            "allow_rollup_hdrs": True,
            "allow_direct": False,
        }
        try:
            await session.api(f"STREAM.CREATE.{BUCKET}", config, timeout=10.0)
        except ApiError as error:
            if error.err_code != STREAM_EXISTS:  # somebody else made it just now
                raise

    # Asking

    def put(self, asked: Put) -> None:
        """Store a value, if the key has still that revision."""
        if self._session is not None:
            headers = f"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {asked.revision}\r\n\r\n"
            size = len(headers)  # `publish_command` in one piece: heartbeats are all that idles
            to = f"{self._prefix}{asked.key} {self._inbox}p{asked.request}"
            start = f"HPUB {to} {size} {size + len(asked.value)}\r\n{headers}"
            self._session.write(b"%b%b\r\n" % (start.encode(), asked.value))

    def get(self, asked: Get) -> None:
        """Read what stands under a key."""
        body = json.dumps({"last_by_subj": self._prefix + asked.key}).encode()
        self._send(f"{API}.STREAM.MSG.GET.{BUCKET}", body, f"g{asked.request}")

    def delete(self, asked: Delete) -> None:
        """Remove one revision, and with it its key if that is the last; leaves no marker."""
        self._send(
            f"{API}.STREAM.MSG.DELETE.{BUCKET}", json.dumps({"seq": asked.revision}).encode()
        )

    def _send(self, subject: str, payload: bytes, token: str = "") -> None:
        if self._session is not None:
            reply = self._inbox + token if token else ""
            self._session.write(publish_command(subject, payload, reply=reply))

    def _on_reply(self, subject: bytes, _: bytes, data: bytes, __: bytes | None) -> None:
        if not data:
            return  # nobody answers: the stream has no leader now, or is gone
        token = subject[subject.rindex(b".") + 1 :]
        try:
            answer = _put_answer(data) if token.startswith(b"p") else _found(json.loads(data))
            self._on_answer(int(token[1:]), answer)
        except ApiError as error:
            # With no room on the server nothing was stored: as good as no answer. What cannot be
            # renewed runs out, and nobody reads until there is room.
            if error.err_code in FULL:
                self._warn(error)
            else:
                self._fail(not_possible(f"cannot {self._what}", error))

    def _warn(self, error: ApiError) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._warn_after:
            self._warn_after = now + WARN_EVERY
            logger.warning("the server has no room to %s: %s", self._what, error)

    def _on_change(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if not reply:
            return  # a heartbeat, or a status
        gone = headers is not None and _OPERATION in headers
        revision = int(reply.rsplit(b".", 4)[1])
        self._on_news(subject[len(self._prefix) :].decode(), revision, None if gone else data)

    # What a partition's consumer needs while it is made anew

    async def keep(self, session: Session, key: str, value: str) -> None:
        """Store a value whatever stands there, and wait until it is stored."""
        data, _ = await session.request(self._prefix + key, value.encode())
        if not data:
            raise NoAnswer(f"nobody stores {key!r}")
        try:
            _put_answer(data)
        except ApiError as error:
            if error.err_code in FULL:
                raise NoAnswer(f"the server has no room for {key!r}: {error}") from error
            raise

    async def read(self, session: Session, key: str) -> str | None:
        """What stands under a key, or None."""
        found = await _read(session, self._prefix + key)
        return found.value.decode() if isinstance(found, Found) else None


class _Stored(msgspec.Struct):
    """What JetStream answers to a publish."""

    seq: int = 0
    error: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Stored).decode


def _put_answer(data: bytes) -> Answer:
    answer = _decode(data)
    if answer.error is None:
        return Stored(answer.seq)
    problem = ApiError(answer.error)
    if problem.err_code == WRONG_REVISION:
        return Refused()
    raise problem


def _found(answer: dict[str, object]) -> Answer:
    error = answer.get("error")
    if isinstance(error, dict):
        problem = ApiError(error)
        if problem.err_code == MESSAGE_NOT_FOUND:
            return Absent()
        raise problem
    message = answer["message"]
    assert isinstance(message, dict)
    revision = int(message["seq"])
    if _OPERATION in base64.b64decode(message.get("hdrs", "")):
        return Absent(revision)
    return Found(revision, base64.b64decode(message.get("data", "")))
