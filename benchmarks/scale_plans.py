"""Along which axes cost is measured, and what is told of each. Data only."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

TRANSPORTS = ("memory", "nats", "kafka")

LABELS: Mapping[str, str] = {"memory": "memory", "nats": "NATS", "kafka": "Kafka"}


@attrs.frozen
class Figure:
    """One curve's axis.

    Attributes:
        name: in the results.
        label: for people, with the unit.
        share: what the results' figure is divided by.
        better: whether more is better, or less.
        log: on a logarithmic scale.
    """

    name: str
    label: str
    share: float = 1.0
    better: str = "less"
    log: bool = False


@attrs.frozen
class Axis:
    """One thing of which there is ever more.

    Attributes:
        name: on the command line.
        title: for people.
        unit: of the values.
        about: how it is measured; Markdown.
        values: where it is measured.
        figures: what is drawn, one plot each.
        count: messages at most at one point.
        bends: why a curve bends where it does; Markdown.
        at_most: the largest value over a transport, where that is not the last one.
    """

    name: str
    title: str
    unit: str
    about: str
    values: tuple[int, ...]
    figures: tuple[Figure, ...]
    count: int
    bends: str
    at_most: Mapping[str, int] = {}

    def values_over(self, transport: str) -> tuple[int, ...]:
        """Where it is measured over one transport."""
        most = self.at_most.get(transport, self.values[-1])
        return tuple(value for value in self.values if value <= most)


RATE = Figure("rate", "handled, thousand messages/s", 1e3, "more")
CPU = Figure("cpu_us", "CPU, µs/message", log=True)
KIB = 1024.0

AXES: Mapping[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis(
            "topics",
            "Topics",
            "topics with a subscription each",
            "One bus subscribes to all topics and is left alone: for twelve seconds, in which what"
            " the subscriptions have begun comes to rest, and for ten more, which are called idle;"
            " then messages of 256 bytes go through all of them in turn. Memory of an idle topic is"
            " what our process has grown by since the first one, by topic. Over Kafka it ends at"
            " 100: its one broker takes minutes to make 500.",
            (1, 5, 20, 100, 500),
            (
                Figure("kib_per_topic", "memory of an idle topic, KiB", KIB),
                Figure("idle_percent", "CPU while idle, %"),
                CPU,
                Figure("settling_percent", "CPU of the twelve seconds before, %"),
            ),
            20_000,
            "Memory is flat: an idle topic is a pull loop, a feed and its consumer, whatever their"
            " number; with few of them it is blurred by what the process takes once. CPU while idle"
            " rises in a line over NATS, where a group keeps a lease for every topic and renews it"
            " every 1.1 s, those of a process together. Over Kafka most of it is one fetch for all"
            " topics, twice a second, which names none that is idle; what grows is the look,"
            " every three seconds, whether all of them are still there. CPU by message bends up"
            " where so many topics share the messages that only a few come at once: a batch costs"
            " the same, whether it holds one message or five hundred.",
            {"kafka": 100},
        ),
        Axis(
            "declared",
            "Topics that are declared",
            "topics named as the bus is opened",
            "The same, but the bus is told of its topics beforehand (`open_bus(..., topics=...)`),"
            " as is advised where a group on Kafka reads many: it joins once. What an idle topic"
            " takes is the slope of the process's memory.",
            (1, 100),
            (Figure("kept", "memory of our process, MiB", 1 << 20), Figure("tasks", "tasks")),
            20_000,
            "Over Kafka an idle topic takes half of what one takes that is subscribed to later:"
            " each of those makes the group share its partitions anew, and the client leaves"
            " garbage of the size of all that the group reads.",
        ),
        Axis(
            "keys",
            "Keys",
            "keys, in turn",
            "A topic is filled, then handled in the order of its keys. As many messages as keys at"
            " least.",
            (1, 100, 10_000, 100_000, 1_000_000),
            (RATE, CPU, Figure("kept_bytes", "memory kept, bytes/message")),
            100_000,
            "Nothing bends: a key takes an entry in a table while messages of it are here, and"
            " nothing afterwards. One key alone, which is one message at a time, costs no more"
            " where handlers do not wait.",
        ),
        Axis(
            "concurrency",
            "Concurrency",
            "handlers at once",
            "Each handler waits 2 ms. Every message has a key of its own, so that keys hold up"
            " nobody.",
            (1, 4, 16, 64, 256, 1024, 4096),
            (RATE, CPU, Figure("peak_mib", "memory at the peak, MiB more", 1 << 20)),
            60_000,
            "The rate rises in a line, half a thousand a second for each handler, and bends where"
            " our core is busy: a handler that waits costs a timer and two switches of Trio's. From"
            " there on no more handlers are begun at once than the loop can wake, for they would"
            " only wait for the core. As many bare Trio tasks slow each other down: Trio makes"
            " fifteen objects for each timer that has run out before it wakes the first task, so"
            " more than 46 of them in a pass set off Python's garbage collector.",
        ),
        Axis(
            "size",
            "Message size",
            "bytes",
            "Plain messages without a key are published by a pipelined publisher, then handled.",
            (100, 1000, 10_000, 100_000, 1_000_000),
            (
                Figure("megabytes", "handled, MB/s", better="more", log=True),
                CPU,
                Figure("publish_cpu_us", "CPU of publishing, µs/message", log=True),
            ),
            50_000,
            "Up to some kilobytes a message costs what a message costs; beyond, what its bytes do:"
            " they are read from a socket, copied out of its buffer and handed over. The memory"
            " transport hands over the very object, so its cost does not depend on the size.",
        ),
        Axis(
            "subscriptions",
            "Subscriptions",
            "groups that read one topic",
            "Every group gets every message, while a pipelined publisher sends them. Figures are of"
            " deliveries: messages times groups.",
            (1, 4, 16, 64),
            (RATE, CPU, Figure("tasks", "tasks")),
            100_000,
            "Publishing is shared by more and more deliveries, so each gets cheaper, until that is"
            " no part of it any more. A subscription is one task; Kafka wants a client of its own"
            " in each group besides, and aiokafka runs ten tasks there.",
        ),
        Axis(
            "in-flight",
            "In flight",
            "`max_in_flight`",
            "A topic is filled, then handled with ever more in flight. Memory of a message in"
            " flight: as many as may be are held by a handler that waits, and what the process has"
            " grown by is divided by them; from a thousand on, for that of fewer is lost in that"
            " of the subscription.",
            (1, 10, 100, 1000, 3000, 10_000),
            (RATE, CPU, Figure("kib_in_flight", "memory in flight, KiB/message", KIB)),
            50_000,
            "With one message in flight each waits for a way to the broker and back. The line bends"
            " where what is in flight covers that way, at some hundreds, and the core is busy;"
            " beyond, more in flight gains nothing and takes its memory.",
        ),
    )
}

IDLE_TOPIC = 20 * KIB
"""Bytes of our process that an idle topic may take."""

IDLE_CPU = 0.5
"""Percent of one core that an idle bus may use."""
