"""The list of faults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from .deeds import changes, memory, outages, removals, shortages, way
from .grounds import PASSWORD, USER, Ground, kafka_wants, nats_wants
from .job import COMMIT_COUNT, IN_FLIGHT, Facts
from .places import Place
from .stage import Stage

GONE = ("ConsumerGone",)


@attrs.frozen
class Bound:
    """How many events may be handled again.

    Attributes:
        each: for each time that it was done.
        why: how many, in words, and why.
    """

    each: int
    why: str

    def allows(self, times: int, facts: Facts, ground: Ground) -> int:
        """How many, of how often it was done and what the program said. Where the broker cannot
        recognise them, publishes that the program repeated are events of their own."""
        return self.each * times + (0 if ground.recognises else facts.again)


@attrs.frozen
class Fault:
    """One fault.

    Attributes:
        name: what happens.
        place: where.
        breaks: does it.
        repeats: how many events may be handled again, and why.
        ends: why a bus ends by itself, each time that it does so because of it.
        leaves: the program leaves while it lasts; another one reads the rest.
    """

    name: str
    place: Place
    breaks: Callable[[Stage], Awaitable[None]]
    repeats: Bound
    ends: tuple[str, ...] = ()
    leaves: bool = False


MEMORY = Place("memory", "memory")
NATS = Place("nats, file", "nats")
NATS_MEMORY = Place("nats, memory", "nats", options={"storage": "memory"})
KAFKA = Place("kafka, 1 node", "kafka")
KAFKA_3 = Place("kafka, 3 nodes", "kafka", nodes=3)

LOGIN = {"user": USER, "password": PASSWORD}


def asking_password(place: Place) -> Place:
    """The same, with a password."""
    if place.kind == "nats":
        config = nats_wants(PASSWORD)
    else:
        config = "\n".join(f"{name}={value}" for name, value in kafka_wants(PASSWORD).items())
    return attrs.evolve(place, config=config, options={**place.options, **LOGIN})


SEEN = Bound(0, "nothing: what is in flight, or was settled, is recognised when it comes again")
EMPTY = Bound(0, "nothing: what is gone with its topic was handled, and does not come again")
FORGOTTEN = Bound(
    0,
    "all that was handled until then: where the group stood is gone, and the next bus reads from"
    " the beginning",
)
UNHEARD = Bound(
    IN_FLIGHT + COMMIT_COUNT,
    f"{IN_FLIGHT + COMMIT_COUNT} each time: the next owner has not heard of what was settled last,"
    f" up to {IN_FLIGHT} in flight, and on Kafka {COMMIT_COUNT} between two commits",
)

FAULTS = (
    # The way between.
    *(
        Fault(name, place, breaks, SEEN)
        for place in (NATS, NATS_MEMORY, KAFKA, KAFKA_3)
        for name, breaks in (
            ("cuts", way.cut),
            ("delays", way.delay),
            ("half-closes", way.half_close),
            ("all three", way.trouble),
        )
    ),
    Fault("cuts", MEMORY, memory.again_and_again("disconnect"), SEEN),
    Fault("delays", MEMORY, memory.again_and_again("delay", 0.3), SEEN),
    Fault("answers lost", MEMORY, memory.again_and_again("lose_outcomes", 50), SEEN),
    # Brokers.
    *(
        Fault(name, place, breaks, SEEN)
        for place in (NATS, KAFKA, KAFKA_3)
        for name, breaks in (
            ("kills", outages.kill),
            ("restarts", outages.restart),
            ("suspensions", outages.suspend),
        )
    ),
    Fault("long suspension", NATS, outages.suspend_long, SEEN),
    Fault("long suspension", KAFKA, outages.suspend_long, SEEN),
    Fault("long suspension", KAFKA_3, outages.suspend_long, SEEN),
    Fault("kills", NATS_MEMORY, outages.restart_empty, EMPTY),
    Fault("suspensions", NATS_MEMORY, outages.suspend, SEEN),
    Fault("long suspension", NATS_MEMORY, outages.suspend_long, SEEN),
    Fault("suspensions", MEMORY, memory.again_and_again("suspend"), SEEN),
    # Leaving, with nobody there.
    *(
        Fault(name, place, breaks, UNHEARD, leaves=True)
        for place in (NATS, KAFKA, KAFKA_3)
        for name, breaks in (
            ("leaving, killed", outages.kill_all),
            ("leaving, silent", outages.suspend_all),
        )
    ),
    # Removals.
    Fault("consumer deleted", NATS, removals.remove_consumer, FORGOTTEN, GONE),
    Fault("consumer deleted", NATS_MEMORY, removals.remove_consumer, FORGOTTEN, GONE),
    Fault("consumer deleted", MEMORY, removals.remove_group, FORGOTTEN, GONE),
    Fault("topic deleted", NATS, removals.remove_stream, EMPTY, GONE),
    Fault("topic deleted", NATS_MEMORY, removals.remove_stream, EMPTY, GONE),
    Fault("topic deleted", MEMORY, removals.remove_topic, EMPTY, GONE),
    Fault("topic deleted", KAFKA, removals.remove_kafka_topic, EMPTY, GONE),
    # No room.
    Fault("full disk", attrs.evolve(NATS, disk=24), shortages.fill_disk, SEEN),
    Fault("full disk", attrs.evolve(KAFKA, disk=64), shortages.fill_disk, SEEN),
    Fault(
        "full store",
        attrs.evolve(NATS, config="jetstream { max_file_store: 4MB }\n"),
        shortages.fill_store, SEEN,
    ),
    Fault(
        "full memory",
        attrs.evolve(NATS_MEMORY, config="jetstream { max_memory_store: 4MB }\n"),
        shortages.fill_store, SEEN,
    ),
    Fault("full memory", MEMORY, memory.again_and_again("refuse_publishes", 1.0), SEEN),
    # Credentials.
    Fault("wrong password", asking_password(NATS), changes.change_password, SEEN),
    Fault("wrong password", asking_password(KAFKA), changes.change_password, SEEN),
    # Clocks.
    *(
        Fault("clock steps", attrs.evolve(place, clock="program"), changes.step_clock, SEEN)
        for place in (MEMORY, NATS, KAFKA)
    ),
    Fault(
        "broker's clock steps", attrs.evolve(KAFKA, clock="broker"), changes.step_clock, SEEN
    ),
    # The program.
    Fault("program suspended", NATS, outages.suspend_program, SEEN),
    Fault("program suspended", KAFKA, outages.suspend_program, SEEN),
)  # fmt: skip

SHORT = (
    ("cuts", MEMORY),
    ("all three", NATS),
    ("kills", NATS),
    ("leaving, killed", NATS),
    ("topic deleted", NATS),
    ("full store", NATS),
    ("all three", KAFKA),
)
"""What the suite runs, for a moment each."""

SHORT_SECONDS = 1.2
"""For which things are broken then; each is done once at least."""


def short_form() -> list[Fault]:
    """Those of the list that the suite runs."""
    wanted = {(name, place.name) for name, place in SHORT}
    return [fault for fault in FAULTS if (fault.name, fault.place.name) in wanted]
