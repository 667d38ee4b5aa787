"""One topic of the broker: its partitions, retention, duplicates, and the groups that read it."""

from __future__ import annotations

import math
from zlib import crc32

from ..._config import MemoryOptions
from ..._envelope import Fields
from ..._errors import ConfigurationError, PublishRefused
from ..._message import Delivery, Headers, Position, Receipt
from ..._topic import TopicOptions
from ..._transport import FeedRequest, Lag, Outgoing, PartitionLag, Start
from ._group import Group
from ._log import FIRST_EPOCH, PartitionLog
from ._share import Share


class DuplicateWindow:
    """The messages stored within a window of seconds, by their id.

    Two dicts take turns, so that forgetting costs nothing per message: each holds the ids
    of one window, and the older one is dropped as a whole.
    """

    __slots__ = ("_turned", "earlier", "recent", "window")

    def __init__(self, window: float) -> None:
        self.window = window
        self._turned = -math.inf
        self.recent: dict[str, Delivery] = {}
        self.earlier: dict[str, Delivery] = {}

    def turn(self, now: float) -> float:
        """Forget what is too old for certain; returns when to call again."""
        if now - self._turned >= self.window:
            self.earlier = self.recent if now - self._turned < 2 * self.window else {}
            self.recent = {}
            self._turned = now
        return self._turned + self.window

    def is_repeat(self, timestamp: float, found: Delivery) -> bool:
        """Whether a message comes within the window after another one with its id."""
        # A microsecond of slack: these seconds since 1970 are no finer than that.
        return timestamp - found.timestamp < self.window - 1e-6

    def at(self, event_id: str) -> Delivery:
        """The last message with an id that was stored within the window."""
        return self.recent.get(event_id) or self.earlier[event_id]

    def knows(self, event_id: str, timestamp: float) -> bool:
        """Whether a message with this id would be a repeat."""
        found = self.recent.get(event_id) or self.earlier.get(event_id)
        return found is not None and self.is_repeat(timestamp, found)


class TopicStore:
    """What the broker keeps of one topic.

    Args:
        epoch: seconds to add to the loop's clock to get seconds since 1970.
        limits: where the options set none.
    """

    def __init__(
        self, name: str, options: TopicOptions, epoch: float, limits: MemoryOptions
    ) -> None:
        self.name = name
        self.is_gone = False
        self.logs = [PartitionLog(partition) for partition in range(options.partitions)]
        self._is_single = options.partitions == 1
        self._epoch = epoch
        self._limits = limits
        self._groups: dict[str, Group] = {}
        self._all_groups: dict[Group, None] = {}  # those without a name, too
        self._readers: list[list[Share]] = [[] for _ in self.logs]
        self._known = DuplicateWindow(options.duplicate_window)
        self._turn = 0
        self._size = 0  # of the last one: those as long share it, for a new int is 32 bytes more
        self._look_again = -math.inf  # nothing is too old before
        self.configure(options)

    def configure(self, options: TopicOptions) -> None:
        """Take other options, with as many partitions as before."""
        self.options = options
        self._age = math.inf if options.retention_time is None else options.retention_time
        # The topic's own limit, else the broker's, else none.
        self._max_messages = options.max_messages or self._limits.max_messages or math.inf
        self._max_bytes = options.max_bytes or self._limits.max_bytes or math.inf
        self.is_limited = min(self._max_messages, self._max_bytes) < math.inf
        # Counted on from here while there is a limit.
        self._messages = sum(len(log) for log in self.logs)
        self._bytes = sum(log.count_bytes() for log in self.logs) if self.is_limited else 0
        self._known.window = options.duplicate_window
        self._look_again = -math.inf

    # --- storing ---

    def store(self, outgoing: Outgoing, now: float) -> Receipt | PublishRefused:
        """Store an event, once within the window; a full topic refuses it."""
        key = outgoing.key
        body = outgoing.body
        headers = outgoing.headers
        size = len(body) if key is None else len(body) + len(key)
        for header, value in headers:
            size += len(header) + len(value)
        if self.is_limited:
            self.expire_if_due(now)
            if not self._has_room(size) and not self._known.knows(outgoing.id, now + self._epoch):
                return self._refuse(size)
        stored = self.put(outgoing.id, key, body, headers, size, now)
        if stored is None:
            return Receipt(self.name, self._known.at(outgoing.id).position, True)
        return Receipt(self.name, stored)

    def put(
        self,
        event_id: str,
        key: str | None,
        body: bytes | Fields,
        headers: Headers,
        size: int,
        now: float,
    ) -> Position | None:
        """Store an event, limits or no; tells where. None: it is a repeat."""
        if now >= self._look_again:
            self.expire(now)
        partition = 0 if self._is_single else self._partition_of(key)
        log = self.logs[partition]
        rows = log.rows
        if size == self._size:
            size = self._size
        else:
            self._size = size
        position = Position(partition, log.base + len(rows))
        row = Delivery(
            position, body, headers, now + self._epoch, key, True, FIRST_EPOCH, 0, size
        )  # fmt: skip
        known = self._known
        recent = known.recent
        found = recent.setdefault(event_id, row)
        if found is row and known.earlier:
            found = known.earlier.get(event_id, row)
        if found is not row:
            if known.is_repeat(row.timestamp, found):
                if recent[event_id] is row:
                    del recent[event_id]
                return None
            recent[event_id] = row
        rows.append(row)
        if self.is_limited:
            self._messages += 1
            self._bytes += size
        for share in self._readers[partition]:
            owner = share.owner
            if owner is None or owner.is_waiting:
                share.notify()
        return position

    def _has_room(self, size: int) -> bool:
        return self._messages < self._max_messages and self._bytes + size <= self._max_bytes

    def _refuse(self, size: int) -> PublishRefused:
        if self._messages >= self._max_messages:
            full = f"max_messages={self._max_messages} is reached"
        else:
            full = (
                f"{self._bytes} bytes are stored, and {size} more"
                f" would exceed max_bytes={self._max_bytes}"
            )
        return PublishRefused(
            f"topic {self.name!r} is full: {full}; raise the limit, or shorten its retention"
        )

    def _partition_of(self, key: str | None) -> int:
        count = len(self.logs)
        if key is None:
            self._turn += 1
            return self._turn % count
        return crc32(key.encode("utf-8", "surrogatepass")) % count

    def wall_time(self, instant: float) -> float:
        """Seconds since 1970 of an instant on the loop's clock."""
        return instant + self._epoch

    def expire_if_due(self, now: float) -> None:
        """Remove what is too old, if anything can be."""
        if now >= self._look_again:
            self.expire(now)

    def expire(self, now: float) -> None:
        """Remove what is older than the retention allows."""
        limit = now + self._epoch - self._age
        oldest = now + self._epoch
        for log in self.logs:
            messages, size = log.take_older_than(limit)
            self._messages -= messages
            self._bytes -= size
            oldest = min(oldest, log.oldest() or oldest)
        self._look_again = min(oldest - self._epoch + self._age, self._known.turn(now))

    # --- reading ---

    def open_group(self, request: FeedRequest) -> Group:
        """The request's group, made if it has not been seen; without a name always a new one."""
        is_shared = request.order == "none" and request.group is not None
        group = self._groups.get(request.group) if request.group is not None else None
        if group is None:
            starts = zip(self.logs, self._starts(request.start), strict=True)
            group = Group(request.group, is_shared, list(starts))
            for share in group.shares:
                self._readers[share.log.partition].append(share)
            self._all_groups[group] = None
            if request.group is not None:
                self._groups[request.group] = group
        elif group.is_shared != is_shared:
            raise ConfigurationError(
                f"group {request.group!r} reads topic {self.name!r} in another order already:"
                ' "none" cannot be mixed with "key" or "partition"; use another group',
                field="order",
                value=request.order,
            )
        return group

    def close_group(self, group: Group) -> None:
        """Forget a group, as its last member goes that nobody can come after."""
        self._all_groups.pop(group, None)
        for readers in self._readers:
            readers[:] = [share for share in readers if share not in group.shares]

    def remove_group(self, name: str) -> bool:
        """Remove a group and all that it has settled; its members find out."""
        group = self._groups.pop(name, None)
        if group is None:
            return False
        self.close_group(group)
        group.end()
        return True

    def groups(self) -> list[str]:
        """The names of those that have one, sorted."""
        return sorted(self._groups)

    def find_group(self, name: str) -> Group | None:
        return self._groups.get(name)

    def end(self) -> None:
        """The topic was removed: who reads it finds out."""
        self.is_gone = True
        for group in self._all_groups:
            group.end()

    def _starts(self, start: Start) -> list[int]:
        if start == "earliest":
            return [log.first for log in self.logs]
        if start == "latest":
            return [log.end for log in self.logs]
        if isinstance(start, Position):
            if not 0 <= start.partition < len(self.logs):
                raise ConfigurationError(
                    f"topic {self.name!r} has partitions 0 to {len(self.logs) - 1}",
                    field="start",
                    value=start,
                )
            return [
                max(1, start.offset) if log.partition == start.partition else log.first
                for log in self.logs
            ]
        if start.tzinfo is None:
            raise ConfigurationError(
                "a time needs a time zone, e.g. datetime(2026, 1, 1, tzinfo=UTC)",
                field="start",
                value=start,
            )
        return [log.first_since(start.timestamp()) for log in self.logs]

    def last_positions(self, now: float) -> dict[int, int]:
        """The last offset of each partition that holds anything."""
        self.expire(now)
        return {log.partition: log.end - 1 for log in self.logs if len(log)}

    def lag(self, name: str, now: float) -> Lag:
        """How far a group is behind. One that was never seen has everything before it."""
        self.expire(now)
        group = self._groups.get(name)
        unseen = [Share(log, log.first) for log in self.logs]
        shares = unseen if group is None else group.shares
        partitions = []
        for share in shares:
            oldest = share.oldest_behind()
            age = None if oldest is None else max(0.0, now + self._epoch - oldest)
            partitions.append(PartitionLag(share.log.partition, share.count_behind(), age))
        return Lag(self.name, name, tuple(partitions))
