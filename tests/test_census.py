"""A snapshot sees everything that comes and goes between two of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import anyio
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests import census


def test_two_snapshots_with_nothing_between_them_are_equal():
    assert census.snapshot() == census.snapshot()


def test_a_thread_is_there_until_it_is_joined():
    before = census.snapshot()
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="worker")
    thread.start()
    assert census.snapshot().beyond(before) == ["thread 'worker'"]
    over.set()
    thread.join()
    assert census.snapshot() == before


def test_a_process_is_there_until_it_is_waited_for():
    before = census.snapshot()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        lines = census.snapshot().beyond(before)
        assert any(line.startswith(f"process {process.pid}:") for line in lines)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert any(f"process {process.pid}: (state Z" in line for line in _new(before))
    finally:
        process.communicate()
    assert census.snapshot() == before


def test_an_open_file_is_there_until_it_is_closed(tmp_path):
    before = census.snapshot()
    with (tmp_path / "file").open("w") as file:
        assert _new(before) == [f"open file {file.fileno()}: {tmp_path / 'file'}"]
    assert census.snapshot() == before


def test_a_file_in_the_place_of_another_is_seen(tmp_path):
    first = (tmp_path / "first").open("w")
    before = census.snapshot()
    descriptor = first.fileno()
    first.close()
    with (tmp_path / "second").open("w") as second:
        assert second.fileno() == descriptor
        assert _new(before) == [f"open file {descriptor}: {tmp_path / 'second'}"]


async def test_a_trio_task_is_there_until_its_nursery_is_left():
    before = census.snapshot()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever, name="child")
        assert _new(before) == ["task child"]
        nursery.cancel_scope.cancel()
    assert census.snapshot() == before


async def test_a_task_of_any_depth_and_a_system_task_are_seen():
    async def parent():
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever, name="grandchild")
            await trio.sleep_forever()

    before = census.snapshot()
    over = trio.Event()
    trio.lowlevel.spawn_system_task(over.wait, name="system task")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent, name="parent")
        await wait_all_tasks_blocked()
        assert _new(before) == ["task grandchild", "task parent", "task system task"]
        nursery.cancel_scope.cancel()
    over.set()
    await wait_all_tasks_blocked()
    assert census.snapshot() == before


def test_an_asyncio_task_is_there_until_it_has_ended():
    async def main():
        before = census.snapshot()
        async with asyncio.TaskGroup() as group:
            over = asyncio.Event()
            group.create_task(over.wait(), name="child")
            assert _new(before) == ["task child"]
            over.set()
        assert census.snapshot() == before

    asyncio.run(main())


async def test_a_job_in_a_worker_thread_is_seen_and_the_idle_thread_is_not():
    before = census.snapshot()
    running, over = trio.Event(), threading.Event()

    def job():
        trio.from_thread.run_sync(running.set)
        over.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, job)
        await running.wait()
        assert any(line.startswith("thread ") for line in _new(before))
        over.set()
    assert census.snapshot() == before


def test_what_the_harness_owns_is_in_no_snapshot(tmp_path, monkeypatch):
    monkeypatch.setattr(census, "_harness", list(census._harness))
    before = census.snapshot()
    with census.owned_by_the_harness():
        file = (tmp_path / "file").open("w")
    assert census.snapshot() == before
    file.close()


def test_outside_of_an_event_loop_there_are_no_tasks():
    assert census.snapshot().tasks == frozenset()


@pytest.mark.asyncio_too
async def test_it_sees_the_task_that_asks(backend):
    await anyio.lowlevel.checkpoint()
    assert census.snapshot().tasks


def _new(before: census.Snapshot) -> list[str]:
    return census.snapshot().beyond(before)
