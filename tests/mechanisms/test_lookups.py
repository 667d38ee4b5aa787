"""Threads for name lookups: one for each, gone with it, waited for no longer than allowed."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tbus._lookups import LookupThreads


def test_a_call_runs_in_a_daemon_thread_of_its_own_that_ends_with_it() -> None:
    lookups = LookupThreads()
    thread = lookups.submit(threading.current_thread).result()
    assert thread.daemon
    lookups.join(5)
    assert not thread.is_alive()
    assert lookups.names() == []


def test_a_call_gives_back_what_it_returns_or_raises() -> None:
    lookups = LookupThreads()
    assert lookups.submit(divmod, 7, 2).result() == (3, 1)
    assert lookups.submit(dict, a=1).result() == {"a": 1}
    with pytest.raises(ZeroDivisionError):
        lookups.submit(divmod, 1, 0).result()
    lookups.join(5)


def test_calls_do_not_wait_for_each_other() -> None:
    lookups = LookupThreads()
    meeting = threading.Barrier(5)
    futures = [lookups.submit(meeting.wait, 10) for _ in range(5)]
    assert sorted(future.result() for future in futures) == [0, 1, 2, 3, 4]
    lookups.join(5)


def test_the_threads_that_hang_are_waited_for_only_so_long_all_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lookups = LookupThreads()
    answer = threading.Event()
    futures = [lookups.submit(answer.wait) for _ in range(10)]
    assert lookups.names() == ["tbus lookup"] * 10
    began = time.monotonic()
    lookups.join(0.01)
    assert time.monotonic() - began < 5  # not ten times anything
    assert caplog.text.count("a name lookup hangs") == 10
    lookups.shutdown(wait=True)
    assert len(lookups.names()) == 10
    answer.set()
    assert all(future.result() for future in futures)
    lookups.join(5)
    assert lookups.names() == []


def test_asyncio_takes_it_for_its_executor() -> None:
    async def look_up() -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(lookups)
        found = await loop.getaddrinfo("127.0.0.1", 80)
        assert found
        return await loop.run_in_executor(None, threading.get_ident)

    lookups = LookupThreads()
    assert asyncio.run(look_up()) != threading.get_ident()
    lookups.join(5)
