"""Publishing: one event and its receipt, or a pipeline of them and their outcomes.

Every event has one of three outcomes: stored (a `Receipt`), refused or never sent (an
error after which it may be published again), or unknown (`OutcomeUnknown`, with the id
that makes a repeat recognisable). The transport decides which; here the caller waits.

Here, too, is the only place where a caller waits to be let in: for room among what is in
flight, then for its turn where there is a rate. What the bus itself stores, dead letters, waits
for neither.

(A long file: both ways of publishing, one by one and in a pipeline, share the checks, the turnstile
and the outcomes.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC
from types import TracebackType
from typing import Any

import attrs

from ._envelope import Envelope, EventIds
from ._errors import BusClosed, ConfigurationError, PublishFailed, TbusError, TransportLost
from ._keys import KEY_HEADERS
from ._message import Headers, PublishOutcome, Receipt
from ._pace import Pace, Rate
from ._rules import shown
from ._runtime import Answer, OneShot, Runtime
from ._throttle import Turnstile
from ._topic import check_topic
from ._transport import Keeper, Outgoing, Transport

SLICE = 0.001
"""Seconds for which `send` goes on without giving the loop to others."""

SLICE_SENDS = 512
"""The same in events, for clocks that stand still (virtual time)."""

LOOK_AT_CLOCK = 15
"""A mask: the clock is looked at once in sixteen sends."""

LEAST_TIMEOUT = 0.001
"""Seconds for the outcome of an event that had its turn at its very deadline."""

_BYTES = (bytes, bytearray, memoryview)

MAX_HEADER = 4096
"""Longest header value, in characters."""


def check_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """Header pairs that every broker carries unchanged.

    Raises:
        ConfigurationError: a name or value that would be cut, split or changed on its way.
    """
    if isinstance(headers, Mapping):
        raise ConfigurationError(
            "give pairs of name and value, as its items() are",
            field="headers",
            value=shown(headers),
        )
    checked = []
    for pair in (headers,) if isinstance(headers, str) else headers:
        try:
            if isinstance(pair, str):
                raise TypeError
            name, value = pair
        except (TypeError, ValueError):
            raise ConfigurationError(
                "every header is a pair of name and value", field="headers", value=pair
            ) from None
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError(
                "a header's name and value are strings", field="headers", value=pair
            )
        if not name or not name.isascii() or any(c <= " " or c in ":\x7f" for c in name):
            raise ConfigurationError(
                "a header's name is printable ASCII without space or colon",
                field="headers",
                value=name[:80],
            )
        if name.startswith("Nats-") or name == KEY_HEADERS[0]:
            raise ConfigurationError(
                f"{name!r} is reserved: names that begin with Nats- are the server's, and the key"
                " is given with key=",
                field="headers",
                value=name,
            )
        if not _is_unicode(value):
            raise ConfigurationError(
                f"the value of header {name!r} is no valid Unicode text",
                field="headers",
                value=ascii(value[:80]),
            )
        if "\r" in value or "\n" in value:
            raise ConfigurationError(
                f"the value of header {name!r} contains a line break",
                field="headers",
                value=value[:80],
            )
        if len(value) > MAX_HEADER or value != value.strip():
            raise ConfigurationError(
                f"the value of header {name!r} has more than {MAX_HEADER} characters, or space"
                " around it",
                field="headers",
                value=value[:80],
            )
        checked.append((name, value))
    return tuple(checked)


def _is_unicode(text: str) -> bool:
    """Whether it can be encoded: a lone surrogate cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Publisher:
    """Makes `Outgoing`s of what users pass, and waits for what becomes of them.

    Args:
        transport: where events go.
        runtime: of the program.
        timeout: seconds until an outcome must be known, unless the call says otherwise.
        rate: how fast callers are let in, or None.
    """

    def __init__(
        self, transport: Transport, runtime: Runtime, timeout: float, rate: Rate | None = None
    ) -> None:
        self.transport = transport
        self.runtime = runtime
        self.timeout = timeout
        # Who sends at a rate waits for its turn, and takes the long way.
        self.keeper = transport if rate is None and isinstance(transport, Keeper) else None
        self.turnstile = None if rate is None else Turnstile(Pace(rate, runtime.clock()), runtime)
        self.known_topics: set[str] = set()
        self.progressed: float | None = None
        """When an event was stored last, or one of the last few."""
        self._ids = EventIds()

    def prepare(
        self,
        on_outcome: Callable[[Outgoing, Receipt | TbusError], None],
        topic: str,
        body: Envelope | bytes,
        key: str | None,
        headers: Iterable[tuple[str, str]],
        id: str | None,
        timeout: float | None,
    ) -> Outgoing:
        """Check everything, encode, and give the event its id."""
        if topic not in self.known_topics:
            check_topic(topic)
            if len(self.known_topics) < 10_000:
                self.known_topics.add(topic)
        if type(body) is Envelope:
            data = body.encode()
            if key is not None and key != body.aggregate_id:
                raise ConfigurationError(
                    f"an envelope is ordered by its aggregate_id, {body.aggregate_id!r}:"
                    " leave key out",
                    field="key",
                    value=key,
                )
            key = body.aggregate_id
            event_id = body.event_id if id is None else id
        elif type(body) is bytes or isinstance(body, _BYTES):
            data = bytes(body)
            if key is not None:
                _check_text("key", key, 256)
            event_id = self._ids.new() if id is None else id
        else:
            raise ConfigurationError(
                f"the body is an Envelope or bytes, not {type(body).__name__}",
                field="body",
                value=f"<{type(body).__name__}>",
            )
        if id is not None:
            _check_text("id", id, 256)
        if timeout is None:
            timeout = self.timeout
        elif isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise ConfigurationError(
                "a number of seconds, more than 0", field="timeout", value=timeout
            )
        return Outgoing(
            topic,
            data,
            key,
            check_headers(headers) if headers else (),
            event_id,
            timeout,
            on_outcome,
            body if type(body) is Envelope else None,
        )

    async def publish(
        self,
        topic: str,
        body: Envelope | bytes,
        key: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        id: str | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Publish one event and wait for its outcome; see `Bus.publish`."""
        if (
            self.keeper is not None and type(body) is Envelope and key is None and id is None
            and timeout is None and not headers and topic in self.known_topics
            and body.timestamp.tzinfo is UTC
        ):  # fmt: skip
            await self.runtime.checkpoint_if_cancelled()
            now = self.runtime.clock()
            position = self.keeper.keep_nowait(topic, body, now)
            if position is not None:
                self.progressed = now
                await self.runtime.checkpoint()
                return Receipt(topic, position)
        answer = self.runtime.answer()
        outgoing = self.prepare(answer.resolve, topic, body, key, headers, id, timeout)
        if self.turnstile is not None:
            return await self._send_in_turn(self.turnstile, outgoing, answer)
        await self.runtime.checkpoint_if_cancelled()
        # As `_send`, which would be one coroutine more for every event.
        self.transport.send_nowait(outgoing)
        try:
            result = await answer.wait()
        except BaseException:
            outgoing.withdrawn = True
            raise
        if type(result) is Receipt:
            self.progressed = self.runtime.clock()
            return result
        raise result

    async def _send_in_turn(
        self, turnstile: Turnstile, outgoing: Outgoing, answer: Answer
    ) -> Receipt:
        await self._let_in(turnstile, outgoing)
        try:
            return await self._send(outgoing, answer)
        except TbusError:
            turnstile.pace.failed()
            raise

    async def _let_in(self, turnstile: Turnstile, outgoing: Outgoing) -> None:
        """Wait for its turn; the time counts against that until its outcome must be known."""
        clock = self.runtime.clock
        deadline = clock() + outgoing.timeout
        with self.runtime.open_scope() as scope:
            scope.deadline = deadline
            await turnstile.wait()
            outgoing.timeout = max(deadline - clock(), LEAST_TIMEOUT)
            return
        raise TransportLost(
            f"event {outgoing.id} to topic {outgoing.topic!r} was not sent: its turn did not come"
            f" within {outgoing.timeout} s at publish_rate={turnstile.pace.per_second:g} a second"
        )

    async def wait_turn(self) -> None:
        """Wait for one's turn before `store`, as `publish` does."""
        if self.turnstile is not None:
            await self.turnstile.wait()

    def close(self) -> None:
        """Let nobody in any more who still waits for its turn."""
        if self.turnstile is not None:
            self.turnstile.close()

    async def store(
        self, topic: str, body: bytes, key: str | None, headers: Headers, id: str
    ) -> Receipt:
        """Store bytes as they are, with headers that are the bus's own (a dead letter)."""
        answer = self.runtime.answer()
        outgoing = Outgoing(topic, body, key, headers, id, self.timeout, answer.resolve)
        await self.runtime.checkpoint_if_cancelled()
        return await self._send(outgoing, answer)

    async def _send(self, outgoing: Outgoing, answer: Answer) -> Receipt:
        self.transport.send_nowait(outgoing)
        try:
            result = await answer.wait()
        except BaseException:
            outgoing.withdrawn = True
            raise
        if isinstance(result, Receipt):
            self.progressed = self.runtime.clock()
            return result
        raise result


@attrs.frozen
class PublisherStatistics:
    """What a pipelined publisher has done so far.

    Attributes:
        sent: events taken by `send`.
        stored: of those, known to be stored.
        failed: of those, refused, not sent or unknown.
        in_flight: without an outcome yet.
        unread_failures: failures that nobody has read from `outcomes`.
    """

    sent: int
    stored: int
    failed: int
    in_flight: int
    unread_failures: int


class PipelinedPublisher:
    """Sends events without waiting for each; made by `Bus.open_publisher`.

    Events that one task sends are stored in the order of its calls. `outcomes` is an async
    iterator over every outcome from when it is first asked on; it ends when the publisher
    has been left and all is known.
    """

    def __init__(
        self, publisher: Publisher, max_in_flight: int, may_send: Callable[[], None]
    ) -> None:
        self._publisher = publisher
        self._runtime = publisher.runtime
        self._max_in_flight = max_in_flight
        self._may_send = may_send
        self._unresolved: set[Outgoing] = set()
        self._entering = 0
        """How many have room and wait for their turn."""
        self._kept = self._sent = self._stored = self._failed = 0  # kept: not in the other two
        self._failures: deque[PublishOutcome] = deque()
        self._successes: deque[PublishOutcome] | None = None
        self._room: OneShot | None = None
        self._news: OneShot | None = None
        self._waiting_readers = 0
        self._closed = False
        self._yielded = self._runtime.clock()
        self._since_yield = 0

    def statistics(self) -> PublisherStatistics:
        """What it has done so far."""
        return PublisherStatistics(
            self._kept + self._sent,
            self._kept + self._stored,
            self._failed,
            len(self._unresolved),
            len(self._failures),
        )

    async def send(
        self,
        topic: str,
        body: Envelope | bytes,
        *,
        key: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        id: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """Hand an event to the transport as soon as there is room; returns its id.

        Room is freed when an outcome is known, not when it is read. Checks for cancellation
        at every call, and gives the loop to others every millisecond. Cancelled while it
        waits for room, or for its turn where there is a `publish_rate`, it has sent nothing.

        Args:
            topic, body, key, headers, id, timeout: as for `Bus.publish`.

        Raises:
            PublishFailed: `max_in_flight` failures wait unread; they are handed over with
                it. The event of this call was not sent.
            BusClosed: the bus, or this publisher, has ended.
            ConfigurationError, InvalidEnvelope, InvalidTopic: nothing was sent.
        """
        runtime = self._runtime
        self._since_yield = since = self._since_yield + 1
        if since & LOOK_AT_CLOCK == 0 and (
            since >= SLICE_SENDS or runtime.clock() - self._yielded > SLICE
        ):
            await runtime.checkpoint()
            self._yielded = runtime.clock()
            self._since_yield = 0
        else:
            await runtime.checkpoint_if_cancelled()
        if self._closed:
            self._check_open()
        self._may_send()
        publisher = self._publisher
        outgoing = None
        if (
            type(body) is Envelope
            and key is None
            and id is None
            and timeout is None
            and not headers
        ):  # most are: then little is left to be checked
            keeper = publisher.keeper
            if (
                keeper is not None and not self._unresolved and not self._failures
                and body.timestamp.tzinfo is UTC
            ):  # fmt: skip
                now = runtime.clock()
                position = keeper.keep_nowait(topic, body, now)
                if position is not None:
                    publisher.progressed = now
                    self._kept += 1
                    if self._successes is not None:
                        self._note_success(body.event_id, topic, Receipt(topic, position))
                    return body.event_id
            if topic in publisher.known_topics:
                outgoing = Outgoing(
                    topic, body.encode(), body.aggregate_id, (), body.event_id,
                    publisher.timeout, self._resolve, body,
                )  # fmt: skip
        if outgoing is None:
            outgoing = publisher.prepare(self._resolve, topic, body, key, headers, id, timeout)
        while len(self._unresolved) + self._entering >= self._max_in_flight:
            self._check_failures(self._max_in_flight)
            if self._room is None:
                self._room = runtime.one_shot()
            await self._room.wait()
            self._check_open()
        if self._failures:
            self._check_failures(self._max_in_flight)
        if publisher.turnstile is not None:
            await self._wait_turn(publisher.turnstile)
        self._unresolved.add(outgoing)
        self._sent += 1
        try:
            publisher.transport.send_nowait(outgoing)
        except BaseException:  # nobody has it, so nobody will tell what became of it
            self._unresolved.discard(outgoing)
            self._sent -= 1
            raise
        return outgoing.id

    async def _wait_turn(self, turnstile: Turnstile) -> None:
        """Wait for a turn, with the room that was found kept meanwhile."""
        self._entering += 1
        try:
            await turnstile.wait()
            self._check_open()
        except BaseException:
            if self._room is not None:
                self._room.set()
                self._room = None
            raise
        finally:
            self._entering -= 1

    @property
    def outcomes(self) -> AsyncIterator[PublishOutcome]:
        """Every outcome from when this is first asked for. Read it in a task beside the one that
        sends: it ends only when the publisher has been left and all is known, so a loop over it
        inside the publisher's block waits for ever.

        Failures are kept until they are read; of successes, no more than `max_in_flight` wait
        for a slow reader, the others are only counted (`statistics`). A reader that is cancelled
        has taken nothing that it did not return.
        """
        if self._successes is None:
            self._successes = deque()
        return _Outcomes(self)

    async def _next_outcome(self) -> PublishOutcome:
        while True:
            await self._runtime.checkpoint_if_cancelled()
            if self._failures:
                return self._failures.popleft()
            if self._successes:
                return self._successes.popleft()
            if self._closed and not self._unresolved:
                raise StopAsyncIteration
            if self._news is None:
                self._news = self._runtime.one_shot()
            self._waiting_readers += 1
            try:
                await self._news.wait()
            finally:
                self._waiting_readers -= 1

    def _resolve(self, outgoing: Outgoing, result: Receipt | TbusError) -> None:
        self._unresolved.discard(outgoing)
        if isinstance(result, Receipt):
            self._stored += 1
            if not self._unresolved or not self._stored & LOOK_AT_CLOCK:
                self._publisher.progressed = self._runtime.clock()
            if self._successes is not None:
                self._note_success(outgoing.id, outgoing.topic, result)
        else:
            self._failed += 1
            self._failures.append(PublishOutcome(outgoing.id, outgoing.topic, error=result))
            if self._publisher.turnstile is not None and not outgoing.withdrawn:
                self._publisher.turnstile.pace.failed()
        if self._room is not None:
            self._room.set()
            self._room = None
        if self._news is not None:
            self._tell()

    def _note_success(self, event_id: str, topic: str, receipt: Receipt) -> None:
        assert self._successes is not None
        if len(self._successes) < self._max_in_flight:
            self._successes.append(PublishOutcome(event_id, topic, receipt))
        self._tell()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosed("this publisher has been left; open another one")
        self._may_send()

    def _check_failures(self, limit: int) -> None:
        if len(self._failures) >= limit:
            failures = tuple(self._failures)
            self._failures.clear()
            first = failures[0]
            raise PublishFailed(
                f"{len(failures)} events were not stored, or may not have been; the first is"
                f" {first.event_id} of topic {first.topic!r}: {first.error}",
                failures,
            )

    async def __aenter__(self) -> PipelinedPublisher:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        try:
            while self._unresolved and (error is None or isinstance(error, Exception)):
                if self._room is None:
                    self._room = self._runtime.one_shot()
                await self._room.wait()  # noqa: ASYNC102 - the user's own time
        finally:
            for outgoing in self._unresolved:
                outgoing.withdrawn = True
            self._tell()
        if error is None:
            # Who waits for outcomes gets the last of them before they are raised here.
            while self._failures and self._waiting_readers:
                await self._runtime.checkpoint()  # noqa: ASYNC102 - the user's own time
            self._check_failures(1)
        elif self._failures:
            error.add_note(f"tbus: {len(self._failures)} events of this publisher failed, too")


def _check_text(field: str, value: Any, limit: int) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise ConfigurationError(
            f"it must be text of 1 to {limit} printable characters", field=field, value=value
        )


class _Outcomes:
    """The outcomes of a publisher. Not a generator, for one that is left half read would
    have to be closed."""

    def __init__(self, publisher: PipelinedPublisher) -> None:
        self._publisher = publisher

    def __aiter__(self) -> _Outcomes:
        return self

    async def __anext__(self) -> PublishOutcome:
        return await self._publisher._next_outcome()
