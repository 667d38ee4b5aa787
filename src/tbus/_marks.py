"""What a group has done beyond its frontier, as a short text.

A committed offset says that everything before it is settled. What is settled *beyond* it,
and how often what is not settled has failed, is packed into a text that travels with the
commit, so that the next owner of the partition does not do it all again.

Laws:

- A text is never longer than it may be. What does not fit is left out from the far end:
  an omitted run is handled again, an omitted count starts anew. Both are safe, so a mark
  that was read never says more than the one that was written.
- Whatever else is read, be it empty, another program's, another version's, damaged or for
  another base, is None, and never an exception.

The text is `tbus1:BASE:CHECKSUM:RUNS:ATTEMPTS`, all ASCII:

- BASE in decimal: the text is good for no other.
- CHECKSUM: CRC-32 of all that follows it and its colon, as eight hexadecimal digits.
- RUNS: `b` and a bitmap (the highest bit of its first byte is the base, which is not
  settled), or `d` and a list of deltas, a pair for each run: how many positions before it
  are not settled, less one, and its length, less one.
- ATTEMPTS: a list with a pair for each position: its distance from the one after the
  last (for the first: from the base), and how many handler runs have failed, less one.

Bitmaps and lists are base64 without padding. The numbers in a list are varints: seven
bits a byte, the lowest first, the eighth set in all bytes but the last. A change of any of
this takes another version.

Pure: no clock, no I/O. Writing takes 2 us, and about 0.3 us more for each run.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Iterator
from zlib import crc32

import attrs

Pairs = tuple[tuple[int, int], ...]

_MAGIC = "tbus1"
_AROUND = len("12345678:d:")  # what stands between the base and the content, and within that
_HIGHEST = 2**63 - 1
_SETTLED = re.compile("1+")


@attrs.frozen
class Mark:
    """How far a group has come in one partition.

    Attributes:
        base: the first position that is not settled: what is committed.
        runs: settled positions beyond it, as inclusive runs in ascending order. At least
            one position that is not settled lies before each: the base, or what parts it
            from the run before.
        attempts: positions from the base on that are not settled, ascending, each with how
            many of its handler runs have failed, at least one.
    """

    base: int
    runs: Pairs = ()
    attempts: Pairs = ()


def encode(mark: Mark, limit: int) -> str:
    """The mark as text, or as much of it as fits.

    Runs and attempts are kept from the lowest position on. A quarter of the room is the
    attempts' where they need it, and what the runs leave: without them, a message that
    always fails would be tried for ever by processes that never live long.

    Args:
        mark: what is to be written.
        limit: the longest text allowed, in characters, which are also bytes. Kafka's
            brokers take 4096 unless they are configured otherwise.

    Returns:
        ASCII text; empty where not even the base would fit.

    Raises:
        ValueError: the mark breaks the rules of its attributes.
    """
    if not 0 <= mark.base <= _HIGHEST:
        raise ValueError(f"base={mark.base}: a position lies between 0 and {_HIGHEST}")
    gaps = _gaps_of(mark)
    failures = _failures_of(mark)
    head = f"{_MAGIC}:{mark.base}:"
    room = limit - len(head) - _AROUND
    if room < 0:
        return ""
    attempts, _ = _listed(failures, _bytes_in(room))
    reserved = min(_characters_for(len(attempts)), room // 4)
    kind, runs = _packed(gaps, _bytes_in(room - reserved))
    left = _bytes_in(room - _characters_for(len(runs)))
    if len(attempts) > left:
        attempts, _ = _listed(failures, left)
    content = f"{kind}{_text(runs)}:{_text(attempts)}"
    return f"{head}{_checksum(content)}:{content}"


def decode(text: str, base: int) -> Mark | None:
    """What `encode` wrote for this base; None for anything else.

    Args:
        text: whatever was found with the commit.
        base: the position that it was found with.
    """
    head = f"{_MAGIC}:{base}:"
    if not text.isascii() or not text.startswith(head):
        return None
    checksum, _, content = text[len(head) :].partition(":")
    if checksum != _checksum(content):
        return None
    kind, (runs, _, attempts) = content[:1], content[1:].partition(":")
    try:
        if kind == "b":
            settled = tuple(_runs_of_bitmap(base, _data(runs)))
        elif kind == "d":
            settled = tuple(_runs_of_deltas(base, _data(runs)))
        else:
            return None
        return Mark(base, settled, tuple(_attempts_of(base, _data(attempts))))
    except ValueError:  # the sum is right and what it is about is not: none that we wrote
        return None


# A mark as pairs of small numbers, and back ------------------------------------------------


def _gaps_of(mark: Mark) -> list[tuple[int, int]]:
    pairs = []
    end = mark.base - 1
    for first, last in mark.runs:
        if not end + 2 <= first <= last:
            raise ValueError(
                f"runs: ({first}, {last}) must ascend, and a position that is not settled"
                f" lie between it and {end}"
            )
        pairs.append((first - end - 2, last - first))
        end = last
    if end > _HIGHEST:
        raise ValueError(f"runs: {end} is beyond the highest position, {_HIGHEST}")
    return pairs


def _failures_of(mark: Mark) -> list[tuple[int, int]]:
    pairs = []
    least = mark.base
    for position, failed in mark.attempts:
        if not (least <= position <= _HIGHEST and 1 <= failed <= _HIGHEST):
            raise ValueError(
                f"attempts: ({position}, {failed}) must be a position of at least {least}, for"
                " they ascend from the base, and how often it has failed, at least once"
            )
        pairs.append((position - least, failed - 1))
        least = position + 1
    return pairs


def _runs_of_deltas(base: int, data: bytes) -> Iterator[tuple[int, int]]:
    end = base - 1
    for gap, more in _pairs(data):
        first = end + gap + 2
        end = _checked(first + more)
        yield first, end


def _runs_of_bitmap(base: int, data: bytes) -> Iterator[tuple[int, int]]:
    bits = f"{int.from_bytes(data):0{len(data) * 8}b}" if data else ""
    if bits.startswith("1"):
        raise ValueError("the base is not settled")
    for found in _SETTLED.finditer(bits):
        yield base + found.start(), _checked(base + found.end() - 1)


def _attempts_of(base: int, data: bytes) -> Iterator[tuple[int, int]]:
    least = base
    for distance, more in _pairs(data):
        position = _checked(least + distance)
        yield position, _checked(more + 1)
        least = position + 1


def _checked(number: int) -> int:
    if number > _HIGHEST:
        raise ValueError("neither a position nor a count is as high")
    return number


# As bytes --------------------------------------------------------------------------------


def _packed(gaps: list[tuple[int, int]], room: int) -> tuple[str, bytes]:
    """The runs in the shorter way; where neither has room for all, as that which reaches
    farther."""
    span = sum(gap + more + 2 for gap, more in gaps)
    size = (span + 7) // 8
    if size > room or size > 2 * len(gaps):  # a pair takes two bytes or more
        listed, count = _listed(gaps, room)
        if size <= room:
            better = count == len(gaps) and len(listed) < size
        else:
            better = sum(gap + more + 2 for gap, more in gaps[:count]) >= room * 8
        if better:
            return "d", listed
    return "b", _bitmap(gaps, room)


def _bitmap(gaps: list[tuple[int, int]], room: int) -> bytes:
    parts = []
    left = room * 8
    for gap, more in gaps:
        if gap + 1 >= left:
            break
        ones = min(more + 1, left - gap - 1)
        parts.append("0" * (gap + 1) + "1" * ones)
        left -= gap + 1 + ones
    bits = "".join(parts)
    size = (len(bits) + 7) // 8
    return int(bits.ljust(size * 8, "0"), 2).to_bytes(size) if size else b""


def _listed(pairs: list[tuple[int, int]], room: int) -> tuple[bytes, int]:
    """As many pairs from the first on as have room, and how many those are."""
    data = bytearray()
    for count, pair in enumerate(pairs):
        fits = len(data)
        for number in pair:
            while number > 127:
                data.append(number & 127 | 128)
                number >>= 7
            data.append(number)
        if len(data) > room:
            return bytes(data[:fits]), count
    return bytes(data), len(pairs)


def _pairs(data: bytes) -> Iterator[tuple[int, int]]:
    numbers = []
    number = shift = 0
    for byte in data:
        number |= (byte & 127) << shift
        if byte > 127:
            shift += 7
        else:
            numbers.append(number)
            number = shift = 0
    if shift or len(numbers) % 2:
        raise ValueError("half a pair")
    return zip(numbers[::2], numbers[1::2], strict=True)


# As text ---------------------------------------------------------------------------------


def _checksum(content: str) -> str:
    return f"{crc32(content.encode('ascii')):08x}"


def _text(data: bytes) -> str:
    return b2a_base64(data, newline=False).rstrip(b"=").decode("ascii")


def _data(text: str) -> bytes:
    return a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)


def _characters_for(size: int) -> int:
    return (size * 4 + 2) // 3


def _bytes_in(characters: int) -> int:
    return characters * 3 // 4


def joined(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same positions as runs in ascending order that do not touch.

    Args:
        runs: inclusive, in any order; they may overlap.
    """
    result: list[tuple[int, int]] = []
    for first, last in sorted(runs):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result
