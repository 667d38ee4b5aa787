"""How a key finds its partition, as clients in other languages do it.

A key has one place in the order only while everybody who writes it picks the same
partition. So each rule here is another client's, to the last bit:

- "murmur2": the Java client's, and so that of Kafka Streams and Connect: murmur2 of the
  key, its sign bit masked off, modulo the number of partitions. The hash is aiokafka's.
- "fnv1a": the default of Sarama, for Go: 32-bit FNV-1a of the key read as a signed
  number, its remainder *truncated toward zero*, negated if negative. librdkafka's "fnv1a"
  and "fnv1a_random" agree with it. For half of all keys the hash is negative, and there a
  mask, or a remainder that is rounded down, would name another partition.

Both are pure Python: 4.9 and 2.5 us for a key of 36 bytes. Keys come again and again in
what is ordered by key, so the latest hashes are kept: 0.2 us.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

from aiokafka.partitioner import murmur2

Partitioner = Callable[[bytes | None, Sequence[int], Sequence[int]], int]
"""What `AIOKafkaProducer` calls for each record: with its key, the numbers of all
partitions, and of those that have a leader now."""

KEPT = 8192
"""Hashes that are remembered: a quarter of a kilobyte each."""

LONGEST_KEPT = 256
"""Bytes of a key that is remembered, so that the memory is bounded by bytes, too."""


def _murmur2(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


def _fnv1a(key: bytes) -> int:
    digest = 0x811C9DC5
    for byte in key:
        digest = (digest ^ byte) * 0x01000193 & 0xFFFFFFFF
    # Truncating toward zero and dropping the sign commute: the remainder of the magnitude
    # is the magnitude of the remainder.
    return digest if digest < 0x80000000 else 0x100000000 - digest


_HASHES: dict[str, Callable[[bytes], int]] = {"murmur2": _murmur2, "fnv1a": _fnv1a}


def partitioner(name: Literal["murmur2", "fnv1a"]) -> Partitioner:
    """The rule of that name, with a memory of its own.

    A record with a key goes to the partition *numbered* hash modulo the number of all
    partitions, whether it has a leader or not: to go elsewhere meanwhile would break the
    key's order. An empty key is a key.

    A record without one has no order to keep, so it goes to any partition, each as likely
    as the others, and with a leader where there is one. It does not stick to one
    partition for a while: aiokafka sends what waits for one broker in one request, however
    many partitions it is for, so sticking would save next to nothing, and the
    records of a burst would all wait for one reader.

    Args:
        name: "murmur2" or "fnv1a", as in `KafkaConfig.partitioner`.

    Returns:
        What `AIOKafkaProducer(partitioner=...)` takes. It raises nothing as long as there
        is a partition.
    """
    digest = _HASHES[name]
    remembered = lru_cache(KEPT)(digest)
    # Not an instance of our own: the module's is seeded anew in a forked process.
    fraction = random.random

    def pick(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
        if key is None:
            choice = available or partitions
            return choice[int(fraction() * len(choice))]
        known = remembered(key) if len(key) <= LONGEST_KEPT else digest(key)
        return known % len(partitions)

    return pick
