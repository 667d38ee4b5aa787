"""Where nothing but the own lease has changed, a member looks at nothing else: with what effect?

None but that it is sooner done: whatever happens, it does what it would have done otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest

from tbus._ownership import Answer, Effect, Member, Put, Stored
from tbus._ownership._member import EMPTY
from tests.mechanisms import ownership_kit
from tests.mechanisms.ownership_kit import Network, World


class Compared(Member):
    """Looks at everything, too, each time it does not."""

    short = 0

    def wake(self, now: float) -> list[Effect]:
        return self._both(Member.wake, now)

    def answered(self, now: float, request: int, answer: Answer) -> list[Effect]:
        return self._both(Member.answered, now, request, answer)

    def noticed(self, now: float, key: str, revision: int, value: bytes | None) -> list[Effect]:
        return self._both(Member.noticed, now, key, revision, value)

    def _both(self, tell: Callable[..., list[Effect]], *news: object) -> list[Effect]:
        if not self._is_decided:
            return tell(self, *news)
        thorough = deepcopy(self, {id(EMPTY): EMPTY})  # which is known by its identity
        thorough._is_decided = False
        expected = tell(thorough, *news)
        found = tell(self, *news)
        assert found == expected
        assert self.wake_at == thorough.wake_at
        assert self.lease_until == thorough.lease_until
        assert self.holdings == thorough.holdings
        Compared.short += 1
        return found


@pytest.mark.parametrize("seed", range(12))
def test_who_looks_at_its_lease_alone_decides_as_who_looks_at_everything(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership_kit, "Member", Compared)
    monkeypatch.setattr(Compared, "short", 0)
    world = World(partitions=4, seed=seed)
    random = world.random
    for _ in range(3):
        world.join(random.choice([0.9, 1.0, 1.1]))
    for _ in range(25):
        world.run(random.choice([0.1, 0.7, 1.5, 2.6]))
        alive = world.alive()
        deed = random.randrange(7)
        if deed == 0 and len(alive) < 4:
            world.join()
        elif not alive:
            continue
        elif deed == 1 and len(alive) > 1:
            random.choice(alive).leave()
        elif deed == 2 and len(alive) > 1:
            random.choice(alive).kill()
        elif deed == 3:
            node = random.choice(alive)
            node.resume() if node.is_suspended else node.suspend()
        elif deed == 4:
            world.network = Network(
                random.choice([0.01, 0.1, 0.4]), random.choice([0.0, 0.2]), late=0.1
            )
        elif deed == 5:
            world.calm()
        elif deed == 6:
            node = random.choice(alive)
            if node.owned():
                partition = node.owned()[0]
                epoch, _ = node.member.holdings[partition]
                node.feed(
                    partial(node.member.lost, partition=partition, epoch=epoch, reason="status 423")
                )
    world.calm()
    world.run(14)
    assert world.is_settled()
    assert Compared.short > 20


def test_an_idle_member_that_is_alone_looks_at_its_lease_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(partitions=3)
    node = world.join()
    world.run(5)
    member = node.member
    looks: list[float] = []
    monkeypatch.setattr(member, "_look_at_document", lambda now: looks.append(now) or [])  # type: ignore[func-returns-value]
    now, revision = node.clock(), world.bucket.revision
    for _ in range(20):
        now = max(now, member.wake_at)
        (beat,) = member.wake(now)
        assert isinstance(beat, Put)
        revision += 1
        assert member.answered(now + 0.01, beat.request, Stored(revision)) == []
        assert member.knows(beat.key, revision)
        assert not member.knows(beat.key, revision + 1)
        assert not member.knows("document", revision)
        assert member.noticed(now + 0.02, beat.key, revision, beat.value) == []
        assert member.wake_at > now + 0.5
    assert looks == []
