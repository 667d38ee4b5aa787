"""The marker `asyncio_too`: an async test runs once on Trio and once more on asyncio.

A test that asks for `backend` gets "trio" or "asyncio". On asyncio there are no async
fixtures and no virtual clock: use this for tests that open everything themselves. The
census holds there too, and a task of asyncio's that is left behind fails the test.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import anyio
import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("asyncio_too"):
        if "backend" not in metafunc.fixturenames:
            metafunc.fixturenames.append("backend")
        metafunc.parametrize("backend", ["trio", "asyncio"])


def _runs_on_asyncio(item: pytest.Item) -> bool:
    marked = item.get_closest_marker("asyncio_too") is not None
    return marked and getattr(item, "callspec").params["backend"] == "asyncio"  # noqa: B009


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _runs_on_asyncio(item):
            # Set by pytest-trio, which takes every async test for its own.
            item.own_markers[:] = [mark for mark in item.own_markers if mark.name != "trio"]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not _runs_on_asyncio(pyfuncitem):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    anyio.run(partial(_run, pyfuncitem.obj, arguments), backend="asyncio")
    return True


async def _run(test: Any, arguments: dict[str, Any]) -> None:
    before = asyncio.all_tasks()
    await test(**arguments)
    left = asyncio.all_tasks() - before
    assert not left, "left behind:\n" + "\n".join(f"  task {task.get_name()}" for task in left)
