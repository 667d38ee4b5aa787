"""Looking at a broker for `tbus top`: a few questions at once, which change nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import trio

from .._bus import Bus
from .._errors import ConfigurationError, ConsumerGone, TbusError, TransportLost
from ._top_state import GroupState, Snapshot, TopicState

T = TypeVar("T")
K = TypeVar("K")

AT_ONCE = 8
"""Questions that a broker is asked at the same time."""


async def look(bus: Bus, wanted: Sequence[str] = ()) -> Snapshot:
    """What the broker holds now, without rates.

    Args:
        bus: an open one.
        wanted: topics; none stands for all.

    Raises:
        TransportLost: the broker does not answer.
        TbusError: it does not allow it.
    """
    round_trip = await bus.ping()
    there = await bus.list_topics()
    names = [name for name in there if not wanted or name in wanted]
    # No list has a stream that `nats.stream` names.
    unlisted = await _ask_all(sorted({*wanted} - {*there}), bus.get_topic)
    names += [name for name, options in unlisted.items() if options is not None]
    groups = await bus.transport.list_groups(names)
    ends = await _ask_all(names, bus.transport.last_positions)
    pairs = [(name, group) for name in names for group in groups[name]]
    lags = await _ask_all(pairs, lambda pair: bus.lag(*pair))
    # On NATS the partitions of a topic share one sequence; elsewhere each has its own.
    combine = max if bus.config.backend == "nats" else sum
    topics = []
    for name in names:
        found = tuple(
            GroupState(group, None if (lag := lags[name, group]) is None else lag.partitions)
            for group in groups[name]
            if (name, group) in lags
        )
        last = ends.get(name)
        end = None if last is None else combine([offset + 1 for offset in last.values()] or [0])
        topics.append(TopicState(name, end, found))
    connections = tuple(one for one in bus.census().holdings if one.kind == "connection")
    return Snapshot(trio.current_time(), tuple(topics), connections, round_trip)


async def _ask_all(keys: Iterable[K], ask: Callable[[K], Awaitable[T]]) -> dict[K, T | None]:
    """An answer to each; None: this broker cannot tell. What has gone meanwhile is left out.

    Raises:
        TbusError: the first that came.
    """
    found: dict[K, T | None] = {}
    failures: list[TbusError] = []
    limit = trio.CapacityLimiter(AT_ONCE)

    async def ask_one(key: K) -> None:
        async with limit:
            try:
                found[key] = await ask(key)
            except ConsumerGone:
                return
            except ConfigurationError:
                found[key] = None
            except TbusError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(ask_one, key)
    if failures:
        raise failures[0]
    return found


async def look_again(bus: Bus, before: Snapshot | None, wanted: Sequence[str]) -> Snapshot:
    """Look, with rates since the look before. A broker that does not answer is told in the
    snapshot: the bus goes on trying to reach it, and so may whoever looks."""
    try:
        return (await look(bus, wanted)).since(before)
    except TransportLost as error:
        topics = () if before is None else before.topics
        return Snapshot(trio.current_time(), topics, error=str(error))
