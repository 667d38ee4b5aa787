"""The broker: topics by name, for one transport or for all that name it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from anyio.lowlevel import current_token

from ..._config import BusConfig, MemoryOptions
from ..._errors import ConfigurationError
from ..._runtime import Runtime
from ..._topic import TopicOptions
from ._topic_store import TopicStore


class Broker:
    """Topics, groups and all that they hold.

    Its clock is the event loop's; what it calls the time of a message begins with the
    real time when the broker was made and goes on as that clock does, so that under a
    virtual clock days pass in the timestamps too.

    Args:
        limits: of topics that set none themselves.
    """

    def __init__(self, runtime: Runtime, limits: MemoryOptions) -> None:
        self.clock = runtime.clock
        self.epoch = time.time() - runtime.clock()
        self.topics: dict[str, TopicStore] = {}
        self._limits = limits

    def find_or_make(
        self, topic: str, options: TopicOptions | None = None
    ) -> tuple[TopicStore, bool]:
        """A topic, and whether it had to be made."""
        store = self.topics.get(topic)
        if store is not None:
            return store, False
        store = TopicStore(topic, options or TopicOptions(), self.epoch, self._limits)
        self.topics[topic] = store
        return store, True

    def remove(self, topic: str) -> bool:
        """Remove a topic; who reads it finds out."""
        store = self.topics.pop(topic, None)
        if store is None:
            return False
        store.end()
        return True


# The one piece of state that outlives a call: two buses that give the same name must meet
# somewhere, and the name is all that they have in common. An entry is here while a
# transport that named it is open. The lock is for event loops in several threads.
_named: dict[str, tuple[Broker, object, int]] = {}
_lock = Lock()


@contextmanager
def use_broker(config: BusConfig, runtime: Runtime) -> Iterator[Broker]:
    """A broker of the caller's own, or the one that all of this name share.

    Raises:
        ConfigurationError: the name is in use in another event loop.
    """
    memory = config.memory
    name = memory.name
    if not name:
        yield Broker(runtime, memory)
        return
    loop = current_token()
    with _lock:
        broker, home, users = _named.get(name) or (
            Broker(runtime, memory),
            loop,
            0,
        )
        if home != loop:
            raise ConfigurationError(
                "this broker is open in another event loop, and lives in that one;"
                " use another name, or nats+embedded:// to connect event loops",
                field="memory.name",
                value=name,
            )
        _named[name] = (broker, home, users + 1)
    try:
        yield broker
    finally:
        with _lock:
            broker, home, users = _named[name]
            if users > 1:
                _named[name] = (broker, home, users - 1)
            else:
                del _named[name]
