"""An owner's record: how it ends, and which messages it may die of; see `_suspects`.

Read when a partition is taken over, and stored in the group's bucket at once, before a suspect is
handled, and when nothing of the partition runs any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..._suspects import Suspects
from ..._transport import FeedRequest
from ._errors import ApiError, NoAnswer, NoResponders, SessionLost
from ._progress import Progress
from ._served import ServedConsumer
from ._session import Session

logger = logging.getLogger("tbus.nats")

TROUBLES = (ApiError, NoAnswer, NoResponders, SessionLost)


class Record:
    """The record of one partition, for one time of owning it.

    Args:
        request: of the feed.
        served: keeps it.
        progress: of the group in the partition.
        session: the connection that there is now, if any.
    """

    __slots__ = ("_progress", "_request", "_served", "_session", "_stopped", "_suspects")

    def __init__(
        self,
        request: FeedRequest,
        served: ServedConsumer,
        progress: Progress,
        session: Callable[[], Session | None],
    ) -> None:
        self._request = request
        self._served = served
        self._progress = progress
        self._session = session
        self._suspects: Suspects | None = None
        self._stopped = False

    @property
    def is_known(self) -> bool:
        """Whether it was read."""
        return self._suspects is not None

    async def read(self, session: Session) -> None:
        """Look how the last owner has ended, and store that there is another one."""
        limit = self._request.max_deliveries
        progress = self._progress
        base = progress.base
        if limit is None:
            self._suspects = Suspects(limit, self._request.max_in_flight)
            return
        record = await self._served.record(session)
        text = record.removeprefix(f"{progress.origin} ")  # else of a consumer that was removed
        suspects = Suspects(limit, self._request.max_in_flight, text, base)
        await self._keep(session, suspects.text())
        self._suspects = suspects
        progress.watched = suspects if suspects else None

    def forget(self) -> None:
        """It was of another stream."""
        self._suspects = None

    def begin(self, position: int) -> bool:
        """A suspect is about to be handled: whether that is to be stored before."""
        return self._suspects is not None and self._suspects.begin(position)

    async def store(self, stored: Callable[[], None]) -> None:
        """Store what is begun, and say so."""
        assert self._suspects is not None
        while not self._stopped:
            session = self._session()
            try:
                if session is not None:
                    await self._keep(session, self._suspects.text())
                    stored()
                    return
            except TROUBLES as error:
                logger.debug("%s: storing what is begun: %s", self._served.path, error)
            await asyncio.sleep(0.25)

    async def end(self) -> None:
        """Nothing of it runs any more: tell the next owner that nobody has died."""
        session = self._session()
        if session is None or self._suspects is None or self._request.max_deliveries is None:
            return
        try:
            await self._keep(session, self._suspects.text(owned=False))
        except TROUBLES as error:
            logger.debug("%s: storing that it has ended: %s", self._served.path, error)

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True

    async def _keep(self, session: Session, text: str) -> None:
        await self._served.keep_record(session, f"{self._progress.origin} {text}")
