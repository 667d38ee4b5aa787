"""How a key finds its partition, and where a partition stands on the server.

A key has one place in the order only while everybody who publishes it picks the same
partition. So the hash and the number of partitions are part of the stream's metadata, and the
number is part of each partition's subject as well: who publishes by an old number finds nobody
there, and looks the stream up again.
"""

from __future__ import annotations

from functools import lru_cache

HASH = "fnv1a-32"
"""What stands in the stream's metadata."""

KEPT = 8192
"""Hashes that are remembered: keys come again and again."""


def fnv1a_32(data: bytes) -> int:
    """The 32-bit FNV-1a hash. Source: G. Fowler, L. C. Noll, K.-P. Vo, RFC 9923."""
    digest = 0x811C9DC5
    for byte in data:
        digest = (digest ^ byte) * 0x01000193 & 0xFFFFFFFF
    return digest


@lru_cache(KEPT)
def find_partition(key: str, partitions: int) -> int:
    """The partition of a key, or, where a message has none, of its id."""
    return fnv1a_32(key.encode()) % partitions


def partition_subject(subject: str, partitions: int, partition: int | str) -> str:
    """The subject of one partition, or with `*` of all of them; `+` is in no topic's name, so
    no other topic's subject is among them."""
    return subject if partitions == 1 else f"{subject}.+{partitions}.{partition}"


def partition_of_subject(subject: bytes) -> int:
    """The partition that a message's subject names."""
    return int(subject[subject.rindex(b".") + 1 :])
