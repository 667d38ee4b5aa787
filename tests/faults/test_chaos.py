"""Short forms of `python -m tests.chaos`, and whether its own judgement can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from tests.brokers.nats import NatsServer
from tests.chaos.book import Book, Completion, line
from tests.chaos.brokers import before_nats, in_memory
from tests.chaos.observer import Observer
from tests.chaos.run import Plan, run


def check(found: dict[str, Any], plan: Plan, *, in_flight: int = 1000) -> None:
    """Nothing lost or out of order, and no more repeats than there were messages in flight."""
    # What a killed broker did not acknowledge may be unknown; it is never called stored.
    assert found["stored"] + sum(found["not acknowledged"].values()) == plan.events, found
    assert found["stored"] <= found["handled"] <= plan.events, found
    assert (found["lost"], found["inversions"], found["unclean ends"]) == (0, 0, []), found
    assert found["repeated after one fault, at most"] <= in_flight, found


async def test_on_memory_members_that_come_and_go_lose_nothing_and_invert_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    plan = Plan(
        events=8_000, rate=200, keys=100, topics=2, partitions=3,
        kills=5, stops=5, suspends=5, longest=8.0, cuts=20, seed=1,
    )  # fmt: skip
    async with in_memory() as broker:
        found = await run(plan, broker, tmp_path)
    check(found, plan)
    assert found["done"]["killed"] == found["done"]["stopped"] == found["done"]["suspended"] == 5


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_on_nats_members_that_are_killed_and_suspended_lose_nothing_and_invert_nothing(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    plan = Plan(
        events=4000, rate=500, keys=200, partitions=4, gap=0.5,
        kills=1, stops=1, suspends=1, longest=4.0, cuts=2, broker_kills=1,
    )  # fmt: skip
    async with before_nats(nats_server) as broker:
        found = await run(plan, broker, tmp_path)
    check(found, plan)


# --- what judges -------------------------------------------------------------------------


def write(path: Path, *lines: bytes) -> None:
    with path.open("ab") as file:
        file.write(b"".join(lines))


def test_a_book_tells_what_is_lost_repeated_and_out_of_order(tmp_path: Path) -> None:
    told: list[Completion] = []
    book = Book(tmp_path / "book", told.append)
    write(book.path, line(("t", "a", 1), 7, 0, 1, 1.0), line(("t", "a", 3), 7, 0, 1, 1.1))
    assert book.read_on() == 2
    write(book.path, line(("t", "a", 3), 8, 0, 2, 1.2), line(("t", "a", 2), 8, 0, 2, 1.3))
    write(book.path, line(("t", "b", 1), 8, 1, 2, 1.4), b"t b 2 8 1")  # half a line
    found = book.judge({("t", "a", 1), ("t", "a", 2), ("t", "a", 3), ("t", "a", 4)})
    assert (found.stored, found.handled, found.lost) == (4, 4, 1)
    assert (found.repeated, found.inversions) == (1, 1)
    assert book.inversions == [("t", "a", 2)]
    assert [one.repeated for one in told] == [False, False, True, False, False]


def test_a_repeat_that_comes_behind_a_later_event_is_no_inversion(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    for number in (1, 2, 1, 3, 2):
        write(book.path, line(("t", "a", number), 7, 0, 1, 1.0))
    assert book.judge(set()).inversions == 0


class Times:
    """A book whose lines have times that the test says."""

    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self.observer = Observer(lambda: self.now)
        self.book = Book(path, self.observer.note_completion)
        self._number = 0

    def handled(self, when: float, member: int, partition: int, epoch: int = 1) -> None:
        self.now = when
        self._number += 1
        write(self.book.path, line(("t", "k", self._number), member, partition, epoch, when))
        self.book.read_on()

    def fault(self, when: float, kind: str, member: int) -> None:
        self.now = when
        self.observer.note_fault(kind, member)

    def standstills(self, kind: str, *, disturbed: bool = False) -> list[float]:
        return self.observer.standstills(kind, disturbed=disturbed)


@pytest.fixture
def times(tmp_path: Path) -> Times:
    return Times(tmp_path / "book")


def test_a_standstill_ends_when_the_last_partition_of_who_was_killed_goes_on(times: Times) -> None:
    for partition, member in ((0, 7), (1, 7), (2, 8)):
        times.handled(1.0, member, partition)
    times.fault(2.0, "kill", 7)
    times.handled(2.1, 8, 2)
    times.handled(4.0, 8, 0, epoch=2)
    assert times.standstills("kill") == [float("inf")]
    times.handled(4.5, 9, 1, epoch=2)
    assert times.standstills("kill") == [2.5]


def test_who_was_only_suspended_may_go_on_itself(times: Times) -> None:
    times.handled(1.0, 7, 0)
    times.fault(2.0, "suspend", 7)
    times.handled(2.6, 7, 0)
    assert times.standstills("suspend") == [0.6]


def test_who_had_nothing_leaves_nothing_standing_still(times: Times) -> None:
    times.handled(1.0, 7, 0)
    times.fault(2.0, "kill", 8)
    assert times.standstills("kill") == []


def test_a_second_fault_meanwhile_sets_a_standstill_apart(times: Times) -> None:
    times.handled(1.0, 7, 0)
    times.handled(1.0, 8, 1)
    times.fault(2.0, "kill", 7)
    times.fault(3.0, "kill", 8)
    times.handled(5.0, 9, 0, epoch=2)
    times.handled(5.0, 9, 1, epoch=2)
    assert times.standstills("kill", disturbed=True) == [3.0]
    assert times.standstills("kill") == [2.0]


def test_a_completion_under_an_old_epoch_is_late_and_gives_nobody_a_partition(
    times: Times,
) -> None:
    times.handled(1.0, 7, 0, epoch=1)
    times.fault(2.0, "suspend", 7)
    times.handled(5.0, 8, 0, epoch=2)
    times.handled(5.1, 7, 0, epoch=1)
    assert times.observer.late == 1
    times.fault(6.0, "kill", 7)
    assert times.standstills("kill") == []
