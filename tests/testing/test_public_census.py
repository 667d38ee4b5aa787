"""The census finds what is left, and what it finds is told in words."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import anyio
import anyio.lowlevel
import pytest
import trio

from tbus.testing import take_census


def test_two_counts_with_nothing_between_them_are_equal():
    assert take_census() == take_census()


def test_a_thread_a_process_and_a_file_are_found_and_told():
    before = take_census()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left over")
    thread.start()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        during = take_census()
        assert child.stdin is not None
        child.stdin.close()
    stop.set()
    thread.join()
    told = during.difference(before)
    assert during != before
    assert "+ thread 'left over'" in told
    assert f"+ process {child.pid}: {sys.executable}" in told
    assert "+ open file" in told
    assert take_census() == before
    assert "- thread 'left over'" in before.difference(during)


def test_one_that_goes_while_another_comes_is_seen():
    first = os.open(os.devnull, os.O_RDONLY)
    before = take_census()
    other = os.pipe()
    os.close(first)
    os.dup2(other[0], first)
    after = take_census()
    for descriptor in {*other, first}:
        os.close(descriptor)
    assert len(after.files) == len(before.files) + 2
    assert any("pipe" in line for line in after.beyond(before))


async def test_a_thread_that_waits_in_trio_s_cache_is_nobody_s_leak():
    before = take_census()
    await trio.to_thread.run_sync(lambda: None)
    assert take_census().threads == before.threads


@pytest.mark.asyncio_too
async def test_a_task_is_found_on_either_backend():
    before = take_census()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever, name="left over")
        await anyio.lowlevel.checkpoint()
        during = take_census()
        tasks.cancel_scope.cancel()
    assert during.beyond(before) == ["task left over"]
    assert take_census() == before
