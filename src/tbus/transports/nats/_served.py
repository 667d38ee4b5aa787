"""A consumer as the server keeps it: made, found, set back, and what is left in its metadata.

Lives in the clients' loop. A consumer or stream that was removed is an error, unless the server
lost it with its memory, or it is the bus's own (no group): then it is made again.

On servers from 2.11 to 2.13, which know no reset, the consumer is removed and made again
behind the ack floor.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from ..._errors import ConsumerGone, SubscriptionFailed
from ..._events import Event, RetentionTook
from ..._message import Position
from ..._transport import FeedRequest
from ..._watermark import Watermark
from ._errors import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, ApiError
from ._session import Session
from ._streams import NANO, Config, Streams

logger = logging.getLogger("tbus.nats")

SHARED_ACK_PENDING = 100_000
"""`max_ack_pending` of a consumer that several processes share without order."""

FORGET_AFTER = 300.0
"""Seconds after which the server removes the consumer of a feed without a group that nobody
reads any more."""

SETTLED = "tbus.settled"
"""Where in the consumer's metadata the runs beyond the floor are left."""

MAX_RUNS = 4096
"""The server bounds metadata to 128 KiB; runs beyond this many are repeated."""

RESET_SINCE = (2, 14)


class _Left(msgspec.Struct, array_like=True):
    """What a reader leaves to the next one."""

    stream: str
    floor: int
    runs: list[tuple[int, int]]


_decode_left = msgspec.json.Decoder(_Left).decode


class ServedConsumer:
    """The server's side of one consumer.

    Attributes:
        path: stream and consumer, as the API's subjects name them.
    """

    def __init__(
        self, request: FeedRequest, name: str, streams: Streams, emit: Callable[[Event], None]
    ) -> None:
        self.path = f"{streams.stream(request.topic)}.{name}"
        self._request = request
        self._name = name
        self._streams = streams
        self._emit = emit
        self._ordered = request.order != "none"
        self._seen_in: Session | None = None
        """The connection in which it was last seen."""
        self._created = ""
        """When the stream was made, by which a new one of the same name is recognised."""

    async def find_or_make(self, session: Session, frontier: int | None) -> tuple[Config, bool]:
        """What the server says of it, and whether its stream is another one than before.

        Args:
            session: the connection to ask.
            frontier: up to here everything is settled; None: nothing was read yet.

        Raises:
            ConsumerGone: it, or its stream, was removed.
            SubscriptionFailed: somebody else is reading in its place.
        """
        topic = self._request.topic
        stream = await self._streams.info(session, topic)
        if stream is None:
            if self._was_removed(session):
                raise ConsumerGone(
                    f"the stream of topic {topic!r} was removed: what it held is gone. Open the"
                    " subscription again to start with a new one"
                )
            stream = await self._streams.ensure(session, topic)
        elif not self._streams.is_known(topic):
            stream = await self._streams.ensure(session, topic)
        is_new = stream["created"] != self._created
        self._created = stream["created"]
        if is_new and frontier is not None:
            frontier = 0
        info = await self._find(session)
        if info is None:
            if self._was_removed(session) and self._request.group is not None:
                raise ConsumerGone(
                    f"the consumer {self._name!r} of topic {topic!r} was removed on the server:"
                    " where its group stood is lost. Open the subscription again, with the"
                    " `start` that you want"
                )
            info = await self._make(session, self._whole_config(frontier))
        else:
            self._check_alone(info)
            wanted = self._config()
            if any(info["config"].get(name) != value for name, value in wanted.items()):
                info = await self._make(session, {**info["config"], **wanted})
            first = stream["state"]["first_seq"]
            floor = info["ack_floor"]["stream_seq"]
            if floor and first > floor + 1 and stream["state"]["messages"]:
                self._emit(RetentionTook(topic, self._request.group, floor + 1, first - 1))
        self._seen_in = session
        return info, is_new

    async def reset(self, session: Session, info: Config) -> Config:
        """Have everything behind the ack floor delivered again, in order."""
        if session.version >= RESET_SINCE:
            return await session.api(f"CONSUMER.RESET.{self.path}")
        floor = info["ack_floor"]["stream_seq"]
        config = {
            **info["config"],
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": floor + 1,
        }
        config.pop("opt_start_time", None)
        await session.api(f"CONSUMER.DELETE.{self.path}")
        return await self._make(session, config)

    async def remove(self, session: Session, timeout: float) -> None:
        """Remove it."""
        await session.api(f"CONSUMER.DELETE.{self.path}", timeout=timeout)

    def read_settled(self, info: Config) -> list[tuple[int, int]]:
        """The runs that an earlier reader settled beyond the floor."""
        text = info["config"].get("metadata", {}).get(SETTLED)
        if not self._ordered or text is None:
            return []
        try:
            left = _decode_left(text)
        except msgspec.MsgspecError:
            logger.warning("%s: the mark of an earlier reader cannot be read", self._name)
            return []
        if left.stream != self._created or left.floor > info["ack_floor"]["stream_seq"]:
            return []  # of another stream; or somebody has set the group back, to read again
        return left.runs

    async def leave_settled(self, session: Session, mark: Watermark, timeout: float) -> None:
        """Leave the runs beyond the floor to the next reader."""
        left = _Left(self._created, mark.frontier, mark.runs()[:MAX_RUNS])
        info = await session.api(f"CONSUMER.INFO.{self.path}", timeout=timeout)
        config = info["config"]
        text = msgspec.json.encode(left).decode()
        config["metadata"] = {**config.get("metadata", {}), SETTLED: text}
        await self._make(session, config)

    async def _find(self, session: Session) -> Config | None:
        try:
            return await session.api(f"CONSUMER.INFO.{self.path}")
        except ApiError as error:
            if error.err_code in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                return None
            raise

    async def _make(self, session: Session, config: Config) -> Config:
        stream, _, name = self.path.rpartition(".")
        body = {"stream_name": stream, "config": config}
        return await session.api(f"CONSUMER.CREATE.{stream}.{name}", body, timeout=10.0)

    def _was_removed(self, session: Session) -> bool:
        """Whether what is missing was there, and cannot have gone with the server's memory."""
        return self._seen_in is session or (
            self._seen_in is not None and not self._streams.was_in_memory(self._request.topic)
        )

    def _check_alone(self, info: Config) -> None:
        """With order, one process reads for a group at a time."""
        if self._seen_in is None and self._ordered and info["num_waiting"]:
            raise SubscriptionFailed(
                f"group {self._request.group!r} of topic {self._request.topic!r} is being read by"
                " another process: with order='key' one process reads for a group at a time; end"
                " it, or subscribe with order='none' to share the messages"
            )

    def _config(self) -> Config:
        """What tbus keeps as it wants it."""
        request = self._request
        return {
            "ack_wait": round(request.ack_wait * NANO),
            "max_ack_pending": request.max_in_flight if self._ordered else SHARED_ACK_PENDING,
        }

    def _whole_config(self, frontier: int | None) -> Config:
        request = self._request
        config: Config = {
            **self._config(),
            "durable_name": self._name,
            "name": self._name,
            "ack_policy": "explicit",
            "max_deliver": -1,
            "replay_policy": "instant",
            "metadata": {"tbus.group": request.group or "", "tbus.order": request.order},
            **self._deliver_policy(frontier),
        }
        if request.group is None:
            config["inactive_threshold"] = round(FORGET_AFTER * NANO)
        return config

    def _deliver_policy(self, frontier: int | None) -> Config:
        start = self._request.start
        if frontier is not None:  # made again: go on, or begin anew with a new stream
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": frontier + 1}
        if isinstance(start, datetime):
            if start.tzinfo is None:
                start = start.replace(tzinfo=UTC)
            return {"deliver_policy": "by_start_time", "opt_start_time": start.isoformat()}
        if isinstance(start, Position):
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": max(1, start.offset)}
        return {"deliver_policy": "new" if start == "latest" else "all"}
