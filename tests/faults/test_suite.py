"""The short form of the fault suite: some rows of its list, for a moment each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tbus.servers._kafka_node import Distribution
from tests.faults.suite.driver import run
from tests.faults.suite.faults import FAULTS, SHORT_SECONDS, Fault, short_form
from tests.faults.suite.page import line


def name(fault: Fault) -> str:
    return f"{fault.name} on {fault.place.name}"


def faults_on(kind: str) -> pytest.MarkDecorator:
    faults = [fault for fault in short_form() if fault.place.kind == kind]
    return pytest.mark.parametrize("fault", faults, ids=name)


async def check(fault: Fault, directory: Path, distribution: Distribution | None = None) -> None:
    ground, row = directory / "ground", directory / "row"
    ground.mkdir()
    row.mkdir()
    async with fault.place.open(ground, distribution) as place:
        found = await run(fault, place, row, SHORT_SECONDS)
    assert not found.broken, line(found)


@faults_on("memory")
async def test_what_was_promised_holds_in_memory(fault: Fault, tmp_path: Path) -> None:
    await check(fault, tmp_path)


@faults_on("nats")
async def test_what_was_promised_holds_on_nats(
    fault: Fault, start_nats_server: object, tmp_path: Path
) -> None:
    await check(fault, tmp_path)  # the fixture is wanted for skipping this where there is none


@faults_on("kafka")
async def test_what_was_promised_holds_on_kafka(
    fault: Fault, kafka_distribution: Distribution, tmp_path: Path
) -> None:
    await check(fault, tmp_path, kafka_distribution)


def test_no_two_faults_of_the_list_have_one_name() -> None:
    names = [name(fault) for fault in FAULTS]
    assert len(names) == len(set(names))
