"""Publishes in flight: what was taken, what was sent, and what became of it.

Lives in the clients' loop. The laws:

1. Events of a topic are sent in the order in which they were taken. After a connection was
   lost, those without an answer are sent again, in that order and with the same ids, before
   anything new; the server discards what it had stored.
2. An event is not sent again when a later one of its key is known to be stored, when the
   server may have forgotten its id, or when nobody waits for it: its outcome is unknown.
3. Every event has a deadline. One that was never sent is `TransportLost` then, one that
   was is `OutcomeUnknown`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from ..._errors import OutcomeUnknown, PublishRefused, TbusError, TransportLost
from ..._message import Position, Receipt
from ..._transport import Outgoing
from ._errors import ApiError, NoAnswer, NoResponders, SessionLost, refused
from ._headers import decode_status, encode_headers
from ._partitions import find_partition
from ._session import Session, publish_command
from ._streams import Streams

DEADLINES_EVERY = 0.05
"""Seconds between looks at the deadlines: an outcome may be that late."""

OVERHEAD = 512
"""Bytes that a message needs beside headers and body."""


class _Entry(msgspec.Struct, eq=False):
    """One event in flight."""

    number: int
    outgoing: Outgoing
    deadline: float
    command: tuple[str, bytes] | None = None
    """Subject and header block, made when it is first sent."""
    partition: int = 0
    first_sent: float | None = None
    overtaken: bool = False
    """A later event of its key is stored."""
    remade: bool = False
    """It was sent again because its stream was gone; that is done once."""


Outcome = tuple[Outgoing, Receipt | TbusError]
"""What became of an event."""


class _Answer(msgspec.Struct):
    """What JetStream answers to a publish."""

    seq: int = 0
    duplicate: bool = False
    error: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Outbox:
    """The table of publishes in flight.

    Args:
        tell: hands an outcome to the program.
    """

    def __init__(
        self,
        streams: Streams,
        start: Callable[..., None],
        tell: Callable[[Outcome], None],
    ) -> None:
        self._streams = streams
        self._start = start
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._entries: dict[int, _Entry] = {}
        self._unsent: dict[str, deque[_Entry]] = {}
        """Topics whose stream is being looked for, and what waits for it."""
        self._count = 0
        self._session: Session | None = None
        self._prefix = ""
        self._ready = False
        self._watched = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, crossed: deque[Outgoing]) -> None:
        """Take events to be published, all that there are."""
        now = self._loop.time()
        entries = self._entries
        try:
            while crossed:
                outgoing = crossed.popleft()
                if outgoing.withdrawn:
                    self._tell((outgoing, TransportLost("withdrawn before it was sent")))
                    continue
                self._count = number = self._count + 1
                entries[number] = entry = _Entry(number, outgoing, now + outgoing.timeout)
                if self._ready:
                    self._send(entry)
        finally:  # also for the one that could not be taken to its end
            if entries:
                self._empty.clear()
                if not self._watched:
                    self._watched = True
                    self._loop.call_later(DEADLINES_EVERY, self._look_at_deadlines)

    async def wait_empty(self) -> None:
        """Wait until every event has its outcome."""
        await self._empty.wait()

    def abandon(self) -> None:
        """Give every event that has no outcome the one that is true now."""
        for entry in list(self._entries.values()):
            self._expire(entry, "the bus ended")

    # The connection

    async def attach(self, session: Session) -> None:
        """There is a connection: repeat what is unresolved, then send what waits."""
        inbox = session.new_inbox()
        self._prefix = inbox + "."
        await session.subscribe(self._prefix + "*", self._on_answer)
        self._session = session
        self._ready = True
        self._unsent.clear()
        window = self._streams.defaults().duplicate_window
        now = self._loop.time()
        for entry in list(self._entries.values()):
            if entry.first_sent is None:
                self._send(entry)
            elif entry.overtaken:
                self._resolve(entry, _unknown(entry, "a later event of its key was stored"))
            elif entry.outgoing.withdrawn or now - entry.first_sent > window * 0.9:
                self._expire(entry, "it cannot be repeated safely")
            else:
                self._send(entry)

    def detach(self) -> None:
        """The connection is gone: what was sent has no answer, what comes waits."""
        self._ready = False
        self._session = None
        self._unsent.clear()

    # Sending

    def _send(self, entry: _Entry) -> None:
        topic = entry.outgoing.topic
        waiting = self._unsent.get(topic)
        if waiting is not None:
            waiting.append(entry)
        elif self._streams.is_known(topic):
            self._write(entry)
        else:
            self._unsent[topic] = deque((entry,))
            self._start(self._find_stream, topic, self._session)

    def _write(self, entry: _Entry) -> None:
        session = self._session
        outgoing = entry.outgoing
        assert session is not None
        if entry.first_sent is None and outgoing.withdrawn:
            self._resolve(entry, TransportLost("withdrawn before it was sent"))
            return
        if entry.command is None:
            key = outgoing.key if outgoing.envelope is None else None
            headers = encode_headers(outgoing.headers, outgoing.id, key)
            topic = outgoing.topic
            partitions = self._streams.partitions(topic)
            by = outgoing.id if outgoing.key is None else outgoing.key
            entry.partition = 0 if partitions == 1 else find_partition(by, partitions)
            entry.command = (self._streams.subject(topic, entry.partition), headers)
        subject, headers = entry.command
        if len(headers) + len(outgoing.body) > session.max_payload:
            self._resolve(
                entry,
                PublishRefused(
                    f"an event of {len(headers) + len(outgoing.body)} bytes for topic"
                    f" {outgoing.topic!r} is larger than the server's max_payload,"
                    f" {session.max_payload} bytes: send a reference, or raise the limit"
                ),
            )
            return
        if entry.first_sent is None:
            entry.first_sent = self._loop.time()
        reply = f"{self._prefix}{entry.number}"
        session.write(publish_command(subject, outgoing.body, reply=reply, headers=headers))

    async def _find_stream(self, topic: str, session: Session) -> None:
        """Look for the topic's stream, make it if need be, then send what waits for it."""
        failure: TbusError | None = None
        try:
            await self._streams.ensure(session, topic)
        except TbusError as error:
            failure = error
        except SessionLost:
            return  # sent when there is a connection again
        except ApiError as error:
            failure = refused(topic, error)
        except (NoAnswer, NoResponders) as error:
            failure = PublishRefused(f"no stream for topic {topic!r}: {error}")
        if session is not self._session:
            return
        waiting = sorted(self._unsent.pop(topic, ()), key=lambda entry: entry.number)
        for entry in waiting:
            if entry.number not in self._entries:
                continue  # its deadline has passed
            if failure is None:
                self._write(entry)
            elif entry.first_sent is None:
                self._resolve(entry, failure)
            else:
                self._resolve(entry, _unknown(entry, str(failure)))

    # Outcomes

    def _on_answer(self, subject: bytes, _: bytes, data: bytes, headers: bytes | None) -> None:
        entry = self._entries.get(int(subject[len(self._prefix) :]))
        if entry is None:
            return  # its deadline has passed
        outgoing = entry.outgoing
        topic = outgoing.topic
        if not data:
            if headers is None or decode_status(headers)[0] != "503":
                return  # somebody else answers on that subject, too
            # No responders: the stream is gone (a memory stream, after a restart), or was made
            # anew with other partitions.
            self._streams.miss(topic)
            entry.command = None
            if entry.remade:
                self._resolve(entry, PublishRefused(f"there is no stream for topic {topic!r}"))
            else:
                entry.remade = True
                self._send(entry)
            return
        try:
            answer = _decode(data)
        except msgspec.MsgspecError:
            return  # the same
        if answer.error is None and answer.seq < 1:
            return  # the same
        if answer.error is not None:
            self._resolve(entry, refused(topic, ApiError(answer.error)))
            return
        if next(iter(self._entries)) != entry.number:
            self._mark_overtaken(entry)
        self._resolve(
            entry, Receipt(topic, Position(entry.partition, answer.seq), answer.duplicate)
        )

    def _mark_overtaken(self, stored: _Entry) -> None:
        """Answers come in order; an earlier event without one must not come after this."""
        key, topic = stored.outgoing.key, stored.outgoing.topic
        for entry in self._entries.values():
            if entry is stored:
                return
            if entry.first_sent is not None and (entry.outgoing.topic, entry.outgoing.key) == (
                topic,
                key,
            ):
                entry.overtaken = True

    def _resolve(self, entry: _Entry, result: Receipt | TbusError) -> None:
        del self._entries[entry.number]
        if not self._entries:
            self._empty.set()
        self._tell((entry.outgoing, result))

    def _expire(self, entry: _Entry, why: str) -> None:
        if entry.first_sent is None:
            topic = entry.outgoing.topic
            self._resolve(
                entry,
                TransportLost(f"an event for topic {topic!r} was not sent: {why}"),
            )
        else:
            self._resolve(entry, _unknown(entry, why))

    def _look_at_deadlines(self) -> None:
        now = self._loop.time()
        state = "connected" if self._ready else "not connected"
        for entry in [e for e in self._entries.values() if e.deadline <= now]:
            self._expire(entry, f"no answer within {entry.outgoing.timeout} s ({state})")
        self._watched = bool(self._entries)
        if self._watched:
            self._loop.call_later(DEADLINES_EVERY, self._look_at_deadlines)


def _unknown(entry: _Entry, why: str) -> OutcomeUnknown:
    outgoing = entry.outgoing
    return OutcomeUnknown(
        f"event {outgoing.id} for topic {outgoing.topic!r} was sent, and may be stored or not:"
        f" {why}. Publish it again with this id, and it is stored once",
        event_id=outgoing.id,
    )
