"""Dead letters and their topics: stored, read, and published again.

A letter is stored, and that acknowledged, before its original is settled. It is read without
a group, so reading takes nothing from anybody. Redriving publishes the original again and
then puts that on record in a topic beside the dead-letter topic (`orders.dead.redriven`), one
empty message for each: whoever lists the letters, in whatever process, sees which of them
went back. The letters themselves stay until retention takes them.

Between the two stores of a redrive may lie a crash. The letter then counts as not redriven,
and is published again with the same id, which a broker that discards duplicates recognises.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime

import attrs

from ._config import BusConfig
from ._dead_letters import (
    DeadLetter,
    Failure,
    Redriven,
    dead_letter_headers,
    dead_letter_id,
    own_size,
    read_dead_letter,
    read_record,
    record_headers,
    redriven_headers,
    redriven_id,
    shortened,
)
from ._errors import PublishRefused
from ._message import Message, Position, moment
from ._publisher import Publisher
from ._runtime import Runtime
from ._stored import StoredMessages, open_stored
from ._topic import check_topic
from ._transport import Transport

Record = tuple[int, datetime]
"""How often a letter was redriven, and when it last was."""


class DeadLetters:
    """The letters of one topic, as an async iterator; made by `Bus.open_dead_letters`."""

    def __init__(
        self,
        stored: StoredMessages,
        records: dict[str, Record],
        target: str,
        topic: str,
        group: str | None,
    ) -> None:
        self._stored = stored
        self._records = records
        self._target = target
        self._topic = topic
        self._group = group
        self._seen: set[str] = set()

    def __aiter__(self) -> DeadLetters:
        return self

    async def __anext__(self) -> DeadLetter:
        async for delivery in self._stored:
            letter = read_dead_letter(self._target, delivery)
            if (
                letter is None
                or letter.topic != self._topic
                or (self._group is not None and letter.group != self._group)
                or letter.id in self._seen  # stored twice, around a crash
            ):
                continue
            self._seen.add(letter.id)
            record = self._records.get(letter.id)
            if record is None:
                return letter
            return attrs.evolve(letter, redriven=record[0], last_redriven=record[1])
        raise StopAsyncIteration


class Graveyard:
    """Where the messages of a bus go that cannot be handled."""

    def __init__(
        self, transport: Transport, publisher: Publisher, runtime: Runtime, config: BusConfig
    ) -> None:
        self._transport = transport
        self._publisher = publisher
        self._runtime = runtime
        self._config = config
        self._recorded_in: set[str] = set()

    async def bury(
        self,
        message: Message,
        target: str,
        reason: str,
        error: Exception | None,
        failed: tuple[float, float],
    ) -> None:
        """Store a message in a dead-letter topic; when this returns, the broker has it.

        A letter that is refused is tried again with less in it: what tbus adds may be what
        makes it too large.

        Args:
            message: the original.
            target: the dead-letter topic.
            reason: why it is given up.
            error: what was raised at last.
            failed: when handling it failed first and last, on the runtime's clock.

        Raises:
            PublishRefused: even the smallest letter was.
            TransportLost, OutcomeUnknown: try again; the letter keeps its id.
        """
        epoch = time.time() - self._runtime.clock()
        first, last = (epoch + instant for instant in failed)
        headers = dead_letter_headers(
            message,
            Failure(reason, error, first, last),
            self._config.source,
            traceback_limit=self._config.dead_letter_traceback,
        )
        while True:
            try:
                await self._publisher.store(
                    target, message.body, message.key, headers, dead_letter_id(message)
                )
            except PublishRefused as refusal:
                fewer = shortened(headers)
                if fewer is None:
                    raise PublishRefused(
                        f"{refusal} (a dead letter is its original and, here, at least"
                        f" {own_size(headers)} bytes of headers)"
                    ) from refusal
                headers = fewer
            else:
                return

    @asynccontextmanager
    async def open(
        self, topic: str, group: str | None, target: str, start: Position | None
    ) -> AsyncIterator[DeadLetters]:
        """See `Bus.open_dead_letters`."""
        records = await self._read_records(target)
        async with self._open_stored(target, start) as stored:
            yield DeadLetters(stored, records, target, topic, group)

    async def redrive(self, letter: DeadLetter, to: str | None) -> Redriven:
        """See `Bus.redrive`."""
        records = check_topic(_records_of(letter.stored_in))
        await self._make_records(letter.stored_in, records)
        event_id = redriven_id(letter)
        await self._publisher.wait_turn()
        receipt = await self._publisher.store(
            to or letter.topic, letter.body, letter.key, redriven_headers(letter), event_id
        )
        headers = record_headers(letter, event_id, receipt.position)
        await self._publisher.store(records, b"", letter.id, headers, f"{event_id}-record")
        return Redriven(letter.id, event_id, receipt)

    async def _read_records(self, target: str) -> dict[str, Record]:
        found: dict[str, Record] = {}
        async with self._open_stored(_records_of(target)) as stored:
            async for delivery in stored:
                letter = read_record(delivery)
                if letter is not None:
                    when = moment(delivery.timestamp)
                    found[letter] = (found[letter][0] + 1 if letter in found else 1, when)
        return found

    async def _make_records(self, target: str, records: str) -> None:
        """Records are kept as long as letters are."""
        if records in self._recorded_in:
            return
        options = await self._transport.get_topic(target)
        if options is not None and await self._transport.get_topic(records) is None:
            options = attrs.evolve(
                options,
                partitions=1,
                max_messages=None,
                max_bytes=None,
                description=f"which letters of {target} were redriven",
            )
            await self._transport.configure_topic(records, options, "create_or_update")
        self._recorded_in.add(records)

    def _open_stored(
        self, topic: str, start: Position | None = None
    ) -> AbstractAsyncContextManager[StoredMessages]:
        return open_stored(self._transport, self._runtime, self._config, topic, start)


def _records_of(target: str) -> str:
    return f"{target}.redriven"
