"""Members of a group through everything that can go wrong: never two owners of a partition."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.mechanisms.ownership_kit import Network, Node, World

MOST = 6
RATES = st.sampled_from([0.9, 0.95, 1.0, 1.05, 1.1])


class AnythingGoes(RuleBasedStateMachine):
    """What must hold at every moment, the world checks after each event: see `World.check`."""

    @initialize(
        partitions=st.integers(1, 8), seed=st.integers(0, 2**32), rates=st.lists(RATES, max_size=4)
    )
    def start(self, partitions: int, seed: int, rates: list[float]) -> None:
        self.world = World(partitions, seed)
        for rate in rates:
            self.world.join(rate)

    def some(self, number: int, fits: Callable[[Node], bool]) -> Node | None:
        nodes = [node for node in self.world.alive() if fits(node)]
        return nodes[number % len(nodes)] if nodes else None

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.01, 0.03, 0.2, 0.7, 1.5, 2.0, 2.6, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    @precondition(lambda self: len(self.world.alive()) < MOST)
    @rule(rate=RATES, drain=st.sampled_from([0.0, 0.02, 0.5, 3.0]))
    def one_joins(self, rate: float, drain: float) -> None:
        self.world.join(rate).drain_time = drain

    @rule(number=st.integers(0, MOST))
    def one_leaves(self, number: int) -> None:
        if node := self.some(number, lambda node: True):
            node.leave()

    @rule(number=st.integers(0, MOST))
    def one_is_killed(self, number: int) -> None:
        if node := self.some(number, lambda node: True):
            node.kill()

    @rule(number=st.integers(0, MOST))
    def one_is_suspended(self, number: int) -> None:
        if node := self.some(number, lambda node: not node.is_suspended):
            node.suspend()

    @rule(number=st.integers(0, MOST))
    def one_is_resumed(self, number: int) -> None:
        if node := self.some(number, lambda node: node.is_suspended):
            node.resume()
            self.world.check()

    @rule(number=st.integers(0, MOST))
    def one_is_cut_off(self, number: int) -> None:
        if node := self.some(number, lambda node: node.is_linked):
            node.is_linked = False

    @rule(number=st.integers(0, MOST))
    def one_is_connected_again(self, number: int) -> None:
        if node := self.some(number, lambda node: not node.is_linked):
            node.connect()

    @rule(number=st.integers(0, MOST))
    def one_is_told_that_somebody_else_reads(self, number: int) -> None:
        if node := self.some(number, lambda node: bool(node.owned())):
            partition = node.owned()[0]
            epoch, _ = node.member.holdings[partition]
            node.feed(lambda now: node.member.lost(now, partition, epoch, "status 423"))

    @rule(
        latency=st.sampled_from([0.001, 0.01, 0.1, 0.4]),
        loss=st.sampled_from([0.0, 0.1, 0.5]),
        repeat=st.sampled_from([0.0, 0.3]),
        late=st.sampled_from([0.0, 0.1, 0.4]),
    )
    def the_network_changes(self, latency: float, loss: float, repeat: float, late: float) -> None:
        self.world.network = Network(latency, loss, repeat, late)

    @rule()
    def everything_goes_well_for_a_while(self) -> None:
        self.come_to_rest()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.come_to_rest()

    def come_to_rest(self) -> None:
        world = self.world
        world.calm()
        # What was late arrives, what is silent is found dead, what drains has drained.
        world.run(14)
        assert world.is_settled()
        before = world.takes, {node.name: node.sent for node in world.alive()}
        written = world.bucket.puts["document"]
        world.run(10)
        assert world.is_settled()
        assert world.takes == before[0], "something moved although nothing happened"
        assert world.bucket.puts["document"] == written
        for node in world.alive():
            assert node.sent - before[1][node.name] < 2 * 10
        if world.alive():
            # Nothing is left of who is gone.
            assert len(world.bucket.entries) == 1 + len(world.alive())


AnythingGoes.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestAnythingGoes = AnythingGoes.TestCase
