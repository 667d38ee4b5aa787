"""A month of a service on virtual time: what ran when is what a model of a page says, to the
second.

The service reads by key, is restarted each night, and each night the broker has forgotten the last
settlements. Some messages fail a few times, some always.
"""

from __future__ import annotations

import random
from collections import defaultdict

import attrs
import trio
from trio.testing import MockClock

from tbus import DeadLetter, Message, Retry, TopicOptions, open_bus
from tbus.transports.memory import MemoryTransport

DAYS = 30
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
STOPPED, STARTED = 3 * HOUR, 3 * HOUR + 10 * MINUTE
FORGOTTEN = 3
ALWAYS = 99
RETRY = Retry(attempts=5, initial=60.0, factor=6.0, maximum=6 * HOUR, jitter=0.0)

Run = tuple[float, str, int]
"""When, for which message, and which attempt."""


@attrs.frozen
class Planned:
    """A message: its number is its offset."""

    number: int
    key: str
    when: float
    fails: int


def plan() -> list[Planned]:
    """One message every 20 minutes."""
    draw = random.Random(30)
    count = int(DAYS * DAY / (20 * MINUTE))
    chances = [0] * 30 + [1, 1, 1, 2, 2, 3, 4, ALWAYS]
    return [
        Planned(number, draw.choice("abcde"), number * 20 * MINUTE + 7, draw.choice(chances))
        for number in range(1, count)
    ]


class Model:
    """What must happen: each key by itself, life by life of the service."""

    def __init__(self, planned: list[Planned]) -> None:
        self.runs: dict[str, list[Run]] = defaultdict(list)
        self.letters: dict[int, float] = {}
        self._planned = planned
        self._settled: set[int] = set()
        self._failed: dict[int, int] = defaultdict(int)

    def live(self, begin: float, end: float) -> None:
        """The service runs from one time to another."""
        for key in "abcde":
            self._live(key, begin, end)

    def _live(self, key: str, begin: float, end: float) -> None:
        now = begin
        for message in self._planned:
            if message.key != key or message.number in self._settled:
                continue
            now = max(now, message.when)
            while now < end:
                attempt = self._failed[message.number] + 1
                self.runs[key].append((now, str(message.number), attempt))
                if attempt > message.fails:
                    break
                self._failed[message.number] = attempt
                if attempt == RETRY.attempts:
                    self.letters.setdefault(message.number, now)
                    break
                now += min(RETRY.maximum, RETRY.initial * RETRY.factor ** (attempt - 1))
            else:
                return  # the next life goes on with it, at once
            self._settled.add(message.number)
            self._failed.pop(message.number, None)

    def forget(self) -> None:
        """The broker does not know the last settlements any more."""
        floor = 1
        while floor in self._settled:
            floor += 1
        self._settled -= set(range(floor - FORGOTTEN, floor))


async def test_thirty_days_of_retries_redelivery_and_dead_letters_are_exact_to_the_second(
    autojump_clock: MockClock,
) -> None:
    planned = plan()
    fails = {str(message.number): message.fails for message in planned}
    runs: dict[str | None, list[Run]] = defaultdict(list)
    offset = 0.0

    async def handle(message: Message) -> None:
        nonlocal offset
        now = trio.current_time() - start
        body = message.body.decode()
        offset = message.timestamp.timestamp() - (message.position.offset * 20 * MINUTE + 7)
        runs[message.key].append((round(now, 3), body, message.attempt))
        if message.attempt <= fails[body]:
            raise ValueError(body)

    async def publish() -> None:
        for message in planned:
            await trio.sleep_until(start + message.when)
            receipt = await keeper.publish("t", str(message.number).encode(), key=message.key)
            assert receipt.position.offset == message.number

    model = Model(planned)
    lives = [
        (STARTED - DAY + day * DAY if day else 0.0, STOPPED + day * DAY) for day in range(DAYS)
    ]
    async with open_bus("memory://month") as keeper, trio.open_nursery() as nursery:
        assert isinstance(keeper.transport, MemoryTransport)
        await keeper.configure_topic("t.dead", TopicOptions(retention_time=None))
        start = trio.current_time()
        nursery.start_soon(publish)
        for begin, end in lives:
            model.live(begin, end)
            await trio.sleep_until(start + begin)
            async with open_bus("memory://month") as bus:
                await bus.subscribe("t", handle, group="g", retry=RETRY)
                await trio.sleep_until(start + end)
            model.forget()
            keeper.transport.faults.forget_settlements("t", "g", FORGOTTEN)
        letters: dict[int, DeadLetter] = {}
        async with keeper.open_dead_letters("t", group="g") as found:
            async for letter in found:
                letters[letter.position.offset] = letter
    assert dict(runs) == dict(model.runs)
    assert letters.keys() == model.letters.keys()
    for number, letter in letters.items():
        assert letter.attempts == RETRY.attempts
        assert abs(letter.stored.timestamp() - offset - model.letters[number]) < 0.01
    # It was no quiet month.
    everything = [run for key in model.runs.values() for run in key]
    assert len(letters) > 20
    assert sum(1 for _, _, attempt in everything if attempt > 1) > 300
    assert len(everything) - len({(body, attempt) for _, body, attempt in everything}) > 60
