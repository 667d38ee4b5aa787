"""A consumer as the server keeps it: made, found, claimed, set back.

Lives in the clients' loop. A consumer or stream that was removed is an error, unless the server
lost it with its memory, or it is the bus's own (no group): then it is made again.

A consumer of a group with order belongs to one process at a time: its owner. Its pulls name a
priority group, `e<epoch>`, and to claim the consumer is to give it another one: from then on
the server refuses the pulls of an earlier owner, however late they come. What such an owner had
asked for before, and still waits at the server because its process is suspended and its connection
open, would get the next messages; so where anybody waits, the consumer is removed and made again.
(A pinned client is no such fence: a pull that waits without a pin is pinned with the next message,
whoever sent it, unpinning and resetting notwithstanding; and the pin's id is in each message.)

Where a consumer is removed and made again (also on servers from 2.11 to 2.13, which know no
reset), the floor is first kept in the group's bucket: a process that dies in between loses
nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from ..._errors import ConfigurationError, ConsumerGone, SubscriptionFailed
from ..._events import Event, RetentionTook
from ..._message import Position
from ..._transport import FeedRequest
from ._bucket import GroupBucket
from ._errors import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, ApiError
from ._session import Session
from ._streams import NANO, Config, Streams, to_options

SHARED_ACK_PENDING = 100_000
"""`max_ack_pending` of a consumer that several processes share without order."""

FORGET_AFTER = 300.0
"""Seconds after which the server removes the consumer of a feed without a group that nobody
reads any more."""

ORIGIN = "tbus.origin"
"""Names the consumer in its metadata: one that is removed and made anew for a claim or a reset is
the same, one that somebody else removed is not."""

POLICY = "overflow"
"""The server's least demanding priority policy: what counts is the group's name alone."""

ORDER_SINCE = (2, 11)

RESET_SINCE = (2, 14)


def check_order(session: Session, request: FeedRequest) -> None:
    """Whether the server can keep the order that a feed asks for.

    Raises:
        ConfigurationError: it is too old.
    """
    if request.order != "none" and session.version < ORDER_SINCE:
        raise ConfigurationError(
            f"this nats-server is {'.'.join(map(str, session.version))}; order by key through"
            " reconnects and over several processes needs 2.11, and better 2.14: upgrade it,"
            " or subscribe with order='none'",
            field="order",
            value=request.order,
        )


class ServedConsumer:
    """The server's side of one consumer.

    Args:
        partition: which one it reads, where the topic has several and there is a bucket.
        bucket: of its group, if the consumer is one that is claimed.

    Attributes:
        path: stream and consumer, as the API's subjects name them.
    """

    def __init__(
        self,
        request: FeedRequest,
        name: str,
        streams: Streams,
        emit: Callable[[Event], None],
        *,
        partition: int = 0,
        bucket: GroupBucket | None = None,
    ) -> None:
        self.partitions = 1
        """Of the topic; set when it is opened."""
        self.path = f"{streams.stream(request.topic)}.{name}"
        self._request = request
        self._name = name
        self._streams = streams
        self._emit = emit
        self._partition = partition
        self._bucket = bucket
        self._ordered = request.order != "none"
        self._seen_in: Session | None = None
        """The connection in which it was last seen."""
        self._was_in_memory = False
        """Whether the server kept its stream in memory, so that a restart takes it."""
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
        stream = await self._streams.look(session, topic)
        if stream is None:
            if self._was_removed(session):
                raise self._stream_gone()
            stream = await self._streams.ensure(session, topic)
        is_new = stream["created"] != self._created
        if is_new and self._was_removed(session):
            raise self._stream_gone()  # and somebody has made it again since
        self._look_at_partitions(to_options(stream["config"]).partitions)
        self._created = stream["created"]
        if is_new and frontier is not None:
            frontier = 0
        info = await self._find(session)
        if info is None:
            kept = await self._kept_floor(session)
            is_removed = kept is None and self._was_removed(session)
            if is_removed and self._request.group is not None:
                raise await self._consumer_gone(session)
            if frontier is None:
                frontier = kept
            info = await self._make(session, self._whole_config(frontier))
            if kept is not None:
                await self._keep_floor(session, "")
        else:
            self._check_use(info)
            if self._bucket is None and not self._is_wanted(info["config"]):
                config = {k: v for k, v in info["config"].items() if not k.startswith("priority")}
                info = await self._make(session, {**config, **self._config()})
            first = stream["state"]["first_seq"]
            floor = info["ack_floor"]["stream_seq"]
            # With several partitions, what is gone may have been another one's.
            if self.partitions == 1 and floor and floor + 1 < first and stream["state"]["messages"]:
                self._emit(RetentionTook(topic, self._request.group, floor + 1, first - 1))
        self._seen_in = session
        self._was_in_memory = stream["config"].get("storage") == "memory"
        return info, is_new

    def is_claimed(self, info: Config, epoch: int) -> bool:
        """Whether nobody has claimed it since this epoch."""
        return bool(info["config"].get("priority_groups") == [priority_group(epoch)])

    async def claim(self, session: Session, info: Config, epoch: int) -> Config:
        """Be its owner: nothing is delivered any more to who was so before."""
        config = info["config"]
        origin = config.get("metadata", {}).get(ORIGIN) or uuid.uuid4().hex
        config = {
            **config,
            **self._config(),
            "priority_policy": POLICY,
            "priority_groups": [priority_group(epoch)],
            "metadata": {**config.get("metadata", {}), ORIGIN: origin},
        }
        info = await self._make(session, config)
        if info["num_waiting"]:
            info = await self._make_again(session, info)
        return info

    async def reset(self, session: Session, info: Config) -> Config:
        """Have everything behind the ack floor delivered again, in order."""
        if session.version >= RESET_SINCE:
            return await session.api(f"CONSUMER.RESET.{self.path}")
        return await self._make_again(session, info)

    async def _make_again(self, session: Session, info: Config) -> Config:
        floor = info["ack_floor"]["stream_seq"]
        config = {
            **info["config"],
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": floor + 1,
        }
        config.pop("opt_start_time", None)
        await self._keep_floor(session, f"{self._created} {floor}")
        try:
            await session.api(f"CONSUMER.DELETE.{self.path}")
        except ApiError as error:
            if error.err_code != CONSUMER_NOT_FOUND:  # an owner before has just done the same
                raise
        info = await self._make(session, config)
        await self._keep_floor(session, "")
        return info

    async def _keep_floor(self, session: Session, text: str) -> None:
        if self._bucket is not None:
            await self._bucket.keep(session, self._floor_key, text)

    async def _kept_floor(self, session: Session) -> int | None:
        """The floor of a consumer that is being made again now, or whose owner died before it
        was: it is missing, and nobody has removed it."""
        if self._bucket is None:
            return None
        text = await self._bucket.read(session, self._floor_key)
        created, _, floor = (text or "").rpartition(" ")
        return int(floor) if created and created == self._created else None

    @property
    def _floor_key(self) -> str:
        return f"floor.{self._partition}"

    async def record(self, session: Session) -> str:
        """What the last owner has left of its end, or that it had none; see `_suspects`."""
        assert self._bucket is not None
        return await self._bucket.read(session, self._record_key) or ""

    async def keep_record(self, session: Session, text: str) -> None:
        """Store the same, and wait until it is stored."""
        assert self._bucket is not None
        await self._bucket.keep(session, self._record_key, text)

    @property
    def _record_key(self) -> str:
        return f"owner.{self._partition}"

    async def remove(self, session: Session, timeout: float) -> None:
        """Remove it."""
        await session.api(f"CONSUMER.DELETE.{self.path}", timeout=timeout)

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
        return self._seen_in is session or (self._seen_in is not None and not self._was_in_memory)

    def _stream_gone(self) -> ConsumerGone:
        return ConsumerGone(
            f"the stream of topic {self._request.topic!r} was removed: what it held is gone. Open"
            " the subscription again to start with a new one"
        )

    async def _consumer_gone(self, session: Session) -> ConsumerGone:
        """It is missing. A stream that is removed loses its consumers first."""
        topic = self._request.topic
        stream = await self._streams.look(session, topic)
        if stream is None or stream["created"] != self._created:
            return self._stream_gone()
        return ConsumerGone(
            f"the consumer {self._name!r} of topic {topic!r} was removed on the server: where its"
            " group stood is lost. Open the subscription again, with the `start` that you want"
        )

    def _look_at_partitions(self, partitions: int) -> None:
        if self._seen_in is not None and partitions != self.partitions:
            raise SubscriptionFailed(
                f"topic {self._request.topic!r} was made anew with {partitions} partitions, and had"
                f" {self.partitions} when this subscription was opened: open it again"
            )
        self.partitions = partitions

    def _check_use(self, info: Config) -> None:
        """Who reads with order and who reads without cannot share a group."""
        is_claimed = info["config"].get("priority_policy", "none") != "none"
        if self._seen_in is None and info["num_waiting"]:
            if is_claimed and self._bucket is None:
                there, here = "with order", "order='key'"
            elif not is_claimed and self._bucket is not None:
                there, here = "without order", "order='none'"
            else:
                return
            raise SubscriptionFailed(
                f"group {self._request.group!r} of topic {self._request.topic!r} is being read"
                f" {there} by another process: all of them must do the same: subscribe with {here},"
                " or end the other one"
            )

    def _is_wanted(self, config: Config) -> bool:
        return config.get("priority_policy", "none") == "none" and all(
            config.get(name) == value for name, value in self._config().items()
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
            "metadata": {
                "tbus.group": request.group or "",
                "tbus.order": request.order,
                ORIGIN: uuid.uuid4().hex,
            },
            **self._deliver_policy(frontier),
        }
        if self._bucket is not None:
            config["priority_policy"] = POLICY
            config["priority_groups"] = [priority_group(0)]
            if self.partitions > 1:
                config["filter_subject"] = self._streams.subject(request.topic, self._partition)
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


def priority_group(epoch: int) -> str:
    """What the pulls of an owner name."""
    return f"e{epoch}"
