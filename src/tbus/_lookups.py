"""Name lookups for the clients' loop, in threads that hold up nobody.

asyncio looks names up in the loop's default executor, and the threads of the standard
one are waited for when the loop, and again when the interpreter, ends: a resolver that
does not answer holds both. A lookup cannot be cancelled. So each one gets a daemon
thread here; they are joined at the end for as long as the bridge allows, and one that
still hangs is named in the log.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("tbus.bridge")


class LookupThreads(concurrent.futures.ThreadPoolExecutor):
    """An executor with one daemon thread per call.

    asyncio insists on the standard class; nothing of it but the type is used.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._running: set[threading.Thread] = set()

    def submit(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            try:
                if future.set_running_or_notify_cancel():
                    try:
                        result = function(*args, **kwargs)
                    except BaseException as error:  # noqa: ASYNC103, BLE001 - handed to the future
                        future.set_exception(error)
                    else:
                        future.set_result(result)
            finally:
                self._running.discard(thread)

        thread = threading.Thread(target=run, name="tbus lookup", daemon=True)
        self._running.add(thread)
        thread.start()
        return future

    def names(self) -> list[str]:
        """The threads that are looking something up now."""
        return [thread.name for thread in tuple(self._running)]

    def join(self, timeout: float) -> None:
        """Wait for the threads, `timeout` seconds in all."""
        deadline = time.monotonic() + timeout
        for thread in tuple(self._running):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                logger.warning("a name lookup hangs in the resolver; its thread ends with it")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to end: every thread ends with its call."""
