"""The parts of the page that only Kafka has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tables import shown, table

LABELS = {
    "kafka_killed_tbus": "tbus on Trio, in key order",
    "kafka_killed_aiokafka": "aiokafka, `getmany`, handler, `commit`",
}


def kills_part(entry: Mapping[str, Any]) -> str:
    """What was handled again after a kill."""
    rows = [
        [
            LABELS[name],
            shown(found["handled_before"]),
            shown(found["repeats"]),
            shown(found["repeated_ms"]),
            shown(found["missing"]),
        ]
        for name, found in entry["contestants"].items()
    ]
    return "\n\n".join(
        [
            "## Kafka, a consumer that is killed: what is handled again",
            f"{entry['count']:,} events in three partitions, {entry['rounds']} kills of each: a"
            " process that handles them is killed with SIGKILL when 30 to 70 % are done, by chance,"
            " and another one goes on to the end. Each handler tells of its event through a pipe"
            " that outlives it. Both commit every 0.25 s; tbus also after 2000 events"
            " (`commit_count`). Repeats in milliseconds: how long the first one took for"
            " so many.",
            table(["consumer", "handled before", "repeats", "repeats, ms", "missing"], rows),
        ]
    )


def kills_laws(entry: Mapping[str, Any]) -> dict[str, bool]:
    """What is promised of kills, and whether it held."""
    ours = entry["contestants"]["kafka_killed_tbus"]
    return {"nothing is missing after a kill": ours["missing"]["max"] == 0}


def loops_part(entry: Mapping[str, Any]) -> str:
    """Tasks by topics."""
    rows = [[topics, str(found["idle"]), str(found["loop"])] for topics, found in entry.items()]
    return "\n\n".join(
        [
            "## Kafka, one pull loop for a group",
            "Tasks of the clients' loop, those of aiokafka among them: of a bus that is open, and"
            " of one whose one group reads so many topics of three partitions.",
            table(["topics of the group", "open", "subscribed"], rows),
        ]
    )


def loops_laws(entry: Mapping[str, Any]) -> dict[str, bool]:
    """What is promised of tasks, and whether it held."""
    counts = {found["loop"] for found in entry.values()}
    return {"the clients' loop holds as many for any number of topics": len(counts) == 1}
