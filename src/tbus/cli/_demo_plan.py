"""What the demo publishes: orders of customers, planned before anything starts.

The whole plan follows from the seed, so that two runs do the same work. The laws: every
customer has one topic and one producer, and its orders carry the versions 1, 2, 3, ...
"""

from __future__ import annotations

from random import Random

import attrs

REGIONS = ("eu", "us", "uk", "jp", "br", "in", "au", "ca", "mx", "za")
STEPS = ("OrderPlaced", "OrderPaid", "OrderPacked", "OrderShipped", "OrderDelivered")

FAILING = 0.01
"""The part of all orders whose first attempt fails."""

SHORTEST, LONGEST = 0.001, 0.005
"""Seconds that a handler waits, as if for a database."""


@attrs.frozen
class Order:
    """One event to be.

    Attributes:
        topic: where it goes.
        customer: its key.
        version: 1 for the customer's first.
        wait: seconds that handling it takes.
        fails: whether its first attempt fails.
    """

    topic: str
    customer: str
    version: int
    wait: float
    fails: bool

    @property
    def event_type(self) -> str:
        """What happened."""
        return STEPS[(self.version - 1) % len(STEPS)]


@attrs.frozen
class Plan:
    """Everything that one demo publishes.

    Attributes:
        topics: their names.
        shares: the orders of each producer, in the order in which it sends them.
    """

    topics: tuple[str, ...]
    shares: tuple[tuple[Order, ...], ...]

    @property
    def orders(self) -> dict[tuple[str, int], Order]:
        """By customer and version."""
        return {(order.customer, order.version): order for share in self.shares for order in share}


def make_plan(
    *, events: int, customers: int, topics: int, seed: int, producers: int = 8, prefix: str = ""
) -> Plan:
    """Plan a demo.

    Args:
        events: how many, over all topics.
        customers: how many keys; no more than there are events are used.
        topics: how many.
        seed: what everything random follows from.
        producers: how many send at once.
        prefix: of the topics' names.
    """
    random = Random(seed)  # noqa: S311 - it has to be repeatable, and guards nothing
    customers = min(customers, events)
    names = [f"{prefix}orders.{_region(number)}" for number in range(topics)]
    # Every customer has an order; whose the others are is left to chance.
    whose = [*range(customers), *random.choices(range(customers), k=events - customers)]
    random.shuffle(whose)
    failing = set(random.sample(range(events), max(1, round(events * FAILING))))
    versions = [0] * customers
    shares: list[list[Order]] = [[] for _ in range(min(producers, customers))]
    for number, customer in enumerate(whose):
        versions[customer] += 1
        shares[customer % len(shares)].append(
            Order(
                # Not the same customers for one producer and one topic.
                topic=names[customer // len(shares) % topics],
                customer=f"customer-{customer + 1}",
                version=versions[customer],
                wait=random.uniform(SHORTEST, LONGEST),
                fails=number in failing,
            )
        )
    return Plan(tuple(names), tuple(map(tuple, shares)))


def _region(number: int) -> str:
    return REGIONS[number] if number < len(REGIONS) else f"region-{number + 1}"
