"""What is compared with what, and the figure that is to be reached. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs


@attrs.frozen
class Contestant:
    """One side of a comparison: a function that runs in a process of its own.

    Attributes:
        name: of the function, see `contestants`.
        label: for people.
        share: of the events, for one that is so slow that all of them would take minutes.
    """

    name: str
    label: str
    share: float = 1.0


@attrs.frozen
class Target:
    """A figure that is to be reached.

    Attributes:
        kind: whether `value` is the least or the most that will do.
        value: the figure.
        figure: which of the contestants' figures it is about.
        against: a ratio to this contestant; None: our own figure itself.
        fair: `against` is the peer with the same guarantees and the same work. Others are
            told for completeness, and are harder or easier to beat.
    """

    kind: Literal["at least", "at most"]
    value: float
    figure: str
    against: str | None = None
    fair: bool = True

    def is_met(self, reached: float) -> bool:
        """Whether the figure does."""
        return reached >= self.value if self.kind == "at least" else reached <= self.value


@attrs.frozen
class Comparison:
    """Contestants that do the same work in turn.

    Attributes:
        name: on the command line.
        title: for people.
        about: how it is measured, and who is the fair peer; Markdown.
        count: events for each contestant and round.
        contestants: in the order in which they run; the first is ours.
        targets: what is to be reached.
        figures: names and units of the figures that are shown.
        topic: what a contestant finds: no topic, an empty one, or one with `count` events.
        partitions: of that topic; None: as tbus makes it.
    """

    name: str
    title: str
    about: str
    count: int
    contestants: tuple[Contestant, ...]
    targets: tuple[Target, ...]
    figures: Mapping[str, str] = {"rate": "events/s"}
    topic: Literal["none", "empty", "filled"] = "none"
    partitions: int | None = None

    @property
    def warms_up(self) -> bool:
        """Whether each runs once uncounted: Kafka's broker loads and compiles what it is made of
        when that is first used."""
        return self.partitions is not None

    @property
    def ours(self) -> Contestant:
        """The one that the ratios are about."""
        return self.contestants[0]


PUBLISH = Comparison(
    name="publish",
    title="Publish: 100 concurrent publishers",
    about=(
        "100 tasks publish the same bodies, each task one after another, and wait for every"
        " acknowledgement. tbus gives every event an id, by which the server discards a repeat."
        " nats-py as its documentation shows it sends none, so that a repeat after a lost"
        " acknowledgement is stored twice: **the fair peer is nats-py with a `Nats-Msg-Id`**"
        " (made before the clock starts; tbus makes its own while it runs). The row without it"
        " promises less and is shown beside it."
    ),
    count=60_000,
    contestants=(
        Contestant("publish_tbus", "tbus on Trio, `bus.publish` of bytes"),
        Contestant("publish_nats_py_with_id", "nats-py, `js.publish` with a message id"),
        Contestant("publish_nats_py", "nats-py, `js.publish`"),
        Contestant("publish_faststream", "FastStream, `broker.publish`"),
        Contestant("publish_tbus_envelopes", "tbus on Trio, `bus.publish` of envelopes"),
        Contestant("publish_tbus_pipelined", "tbus on Trio, one task, `open_publisher().send`"),
    ),
    targets=(
        Target("at least", 1.3, "rate", "publish_nats_py_with_id"),
        Target("at least", 1.5, "rate", "publish_nats_py_with_id", fair=False),
        Target("at least", 1.3, "rate", "publish_nats_py", fair=False),
        Target("at least", 2.0, "rate", "publish_faststream"),
    ),
    topic="empty",
)

LATENCY = Comparison(
    name="latency",
    title="Latency: one publish after another",
    about=(
        "One task publishes and waits, again and again. tbus crosses into its clients' thread"
        " and back for each, which here nothing shares the cost of. The fair peer is nats-py with"
        " a `Nats-Msg-Id`, as above."
    ),
    count=5000,
    figures={"p50": "us", "p99": "us"},
    contestants=(
        Contestant("latency_tbus", "tbus on Trio, `bus.publish`"),
        Contestant("latency_nats_py", "nats-py, `js.publish` with a message id"),
    ),
    targets=(
        Target("at most", 2.0, "p50", "latency_nats_py"),
        Target("at most", 2.0, "p99", "latency_nats_py"),
    ),
    topic="empty",
)

CONSUME = Comparison(
    name="consume",
    title="Consume: pull, decode, handle, acknowledge",
    about=(
        "The topic is filled by a tbus publisher before each contestant starts: 1000 keys in"
        " turn, an envelope and a `Nats-Msg-Id` in each message. The clock runs from before the"
        " consumer is made until the last message is handled and the server has heard every"
        " acknowledgement; afterwards the server is asked whether nothing is pending and nothing"
        " was delivered twice. The handler counts, and checks each key's order by"
        " `event_version`. **The fair peer is nats-py with msgspec**, which calls the same handler"
        " after decoding; it decodes only the fields that the handler needs, with msgspec, tbus"
        " all of them. nats-py and FastStream ask for 500 at once. tbus runs with its defaults in"
        " the first row (1000 in flight)."
    ),
    count=50_000,
    contestants=(
        Contestant("consume_tbus", "tbus on Trio, in key order"),
        Contestant("consume_nats_py", "nats-py, `fetch(500)`, msgspec, handler"),
        Contestant("consume_nats_py_json", "nats-py, `fetch(500)`, json, handler"),
        Contestant("consume_nats_py_undecoded", "nats-py, `fetch(500)`, acks only"),
        Contestant("consume_faststream", "FastStream, `PullSub(500)`, handler"),
        Contestant("consume_faststream_batch", "FastStream, `PullSub(500, batch=True)`, handler"),
        Contestant("consume_bare_pulls", "bare overlapping pulls, acks only: the upper bound"),
        Contestant("consume_tbus_more_in_flight", "tbus on Trio, `max_in_flight=4000`"),
    ),
    targets=(
        Target("at least", 2.2, "rate", "consume_nats_py"),
        Target("at least", 3.0, "rate", "consume_nats_py", fair=False),
        Target("at least", 8.0, "rate", "consume_faststream"),
        Target("at least", 0.6, "rate", "consume_bare_pulls", fair=False),
    ),
    topic="filled",
)

ARRIVAL = Comparison(
    name="arrival",
    title="End to end: one event after another",
    about=(
        "From the call that publishes an event to the first line of its handler, in one process;"
        " the next one is published when this one is stored and its handler has begun. All keep"
        " a durable consumer, give an id, and acknowledge each message. nats-py consumes in the two"
        " ways of its documentation, `fetch(1)` and a push consumer with a callback: **the fair"
        " peer is `fetch(1)`**, which pulls as tbus does; the push consumer is told beside it."
        " tbus crosses into its clients' thread and back twice for each event."
    ),
    count=3000,
    figures={"p50": "us", "p99": "us"},
    contestants=(
        Contestant("arrival_tbus", "tbus on Trio, `bus.publish`, handler"),
        Contestant("arrival_nats_py_fetch", "nats-py, `js.publish`, `fetch(1)`"),
        Contestant("arrival_nats_py_push", "nats-py, `js.publish`, push, callback"),
        Contestant("arrival_faststream", "FastStream, `broker.publish`, handler"),
    ),
    targets=(
        Target("at most", 2.0, "p50", "arrival_nats_py_fetch"),
        Target("at most", 2.0, "p50", "arrival_nats_py_push", fair=False),
    ),
    topic="empty",
)

LOADED = Comparison(
    name="loaded",
    title="End to end: at half of the peak",
    about=(
        "In one process that publishes and consumes: first the peak, with at most 1000 events"
        " between sender and handler; then three seconds at half of that, at a steady pace. An"
        " event's latency runs from the moment that the pace gives it, whenever it was really"
        " sent, to the first line of its handler. Each contestant bears half of its own peak: the"
        " faster one bears more. tbus sends with `open_publisher`, nats-py with `publish_async`;"
        " both give an id, encode while the clock runs, and acknowledge each message."
    ),
    count=40_000,
    figures={"p50": "ms", "p99": "ms", "peak": "events/s"},
    contestants=(
        Contestant("loaded_tbus", "tbus on Trio, in key order"),
        Contestant("loaded_nats_py_fetch", "nats-py, `publish_async`, `fetch(500)`"),
        Contestant("loaded_nats_py_push", "nats-py, `publish_async`, push, callback"),
    ),
    targets=(Target("at most", 20.0, "p99"),),
    topic="empty",
)

MEMORY = Comparison(
    name="memory",
    title="Memory transport: sent to handled",
    about=(
        "One task sends, the subscription handles in key order; three blocks, each with a topic"
        " of its own, after a short one that is not counted. The figure is the median block's."
    ),
    count=200_000,
    contestants=(
        Contestant("memory_tbus", "tbus on Trio, handler that only counts"),
        Contestant("memory_tbus_checked", "the same, with the handler of the consumers above"),
    ),
    targets=(Target("at least", 300_000, "rate"),),
)

MEMORY_WAITING = Comparison(
    name="memory-waiting",
    title="Memory transport: handlers that wait 2 ms, 256 at once",
    about=(
        "A topic that is filled before, 1000 keys in turn, and a handler that sleeps 2 ms: 256 of"
        " them could end 128,000 times a second, if one core could run so many wakes. So the fair"
        " peer is **Trio itself**: 256 tasks, each of which sleeps 2 ms and takes the next from one"
        " list, with no broker, key or settlement. The clock runs from `subscribe` to the last"
        " handler's end. tbus may run 256 handlers at once, and runs fewer: as many as keep the"
        " core busy, about 160. Bare tasks would be faster by a third, too, were there 180 to 200"
        " of them; but nobody knows that number beforehand."
    ),
    count=60_000,
    contestants=(
        Contestant("memory_tbus_waiting", "tbus on Trio, in key order"),
        Contestant("memory_bare_waiting", "256 bare Trio tasks"),
    ),
    targets=(Target("at least", 0.9, "rate", "memory_bare_waiting"),),
)

SLICES = (0.2, 2.0, 10.0)
"""Milliseconds that a busy side burns between two passes of its loop."""

SIDES = ("program", "clients")

CROSSING = Target("at most", 20.0, "p99")
"""Milliseconds for a crossing into or out of a busy side."""

CURE_COST = Target("at most", 5.0, "percent")

IDLE_TASKS = 12
"""Tasks of an open, idle bus at most; beyond them one for each subscription."""
