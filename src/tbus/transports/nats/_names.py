"""Names on the server, and back.

A topic has a stream of its own, since the server discards duplicates per stream whatever
the subject. Its subject is the topic itself, as the original's services use it. Stream and
consumer names may not contain dots: a dot becomes `=`, which no topic or group contains,
so the name can be turned back and two topics never share one.

A group's consumer is named like the group; where a topic gets partitions, `+` and the
partition follow, which no group contains either.
"""

from __future__ import annotations

import re

API = "$JS.API"

_is_nobodys = re.compile(r"tbus-[0-9a-f]{32}").fullmatch
"""What a consumer is called that reads for no group."""


def stream_name(topic: str) -> str:
    """The stream of a topic."""
    return topic.replace(".", "=")


def topic_of_stream(stream: str) -> str:
    """The topic of a stream that tbus named."""
    return stream.replace("=", ".")


def consumer_name(group: str, partition: int | None = None) -> str:
    """The durable consumer of a group; `partition` where the topic has several."""
    name = group.replace(".", "=")
    return name if partition is None else f"{name}+{partition}"


def group_of_consumer(consumer: str) -> str | None:
    """The group whose consumer has this name, or None if it was made for one without a group."""
    if _is_nobodys(consumer):
        return None
    return consumer.partition("+")[0].replace("=", ".")
