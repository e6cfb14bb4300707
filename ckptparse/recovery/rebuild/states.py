"""Find the states of iterators over datasets between other tensors, by their checksums.

A state is a vector of variants. Each begins with its length and the name of its type; behind it
comes the checksum of all up to there (docs/format.md, section 2.4).
"""

from __future__ import annotations

import struct

from ckptparse.coding.checksum import crc32c, unmask_crc
from ckptparse.coding.varint import decode_varint
from ckptparse.files.storage import Source
from ckptparse.recovery.rebuild.counted import Counted

__all__ = ["LARGEST", "find_states"]

LARGEST = 1 << 26
"""Bytes that are searched at most: they are held in memory."""
_TYPE = b"\n\x14tensorflow::Iterator"
"""Field 1 of a variant: the name of its type."""
_CRC_SIZE = 4
_LONGEST_LENGTH = 5
"""Bytes of a length of up to 35 bits."""
_MOST_READ = 4
"""How many times the bytes are read at most: lengths that are none may say anything."""


def find_states(source: Source, start: int, stop: int) -> list[tuple[int, Counted]]:
    """Return where states lie within a range of 64 MiB at most, and how many variants each has."""
    data = memoryview(source.read_at(start, stop - start))
    whole = bytes(data)
    left = _MOST_READ * len(data)
    found: list[tuple[int, Counted]] = []
    place = whole.find(_TYPE)
    while place >= 0 and left > 0:
        following = place + 1
        for begin in range(place - 1, max(-1, place - 1 - _LONGEST_LENGTH), -1):
            counted, read = _measure(data, begin, place)
            left -= read
            if counted is not None:
                found.append((start + begin, counted))
                following = begin + counted.size
                break
        place = whole.find(_TYPE, following)
    return found


def _measure(data: memoryview, begin: int, first: int) -> tuple[Counted | None, int]:
    """Measure the variants from one on, and say how many bytes were read.

    Args:
        data: The bytes.
        begin: Where the length of the first one may begin,
        first: and where the first one itself begins.
    """
    position, count, running, read = begin, 0, 0, 0
    known: tuple[int, int, int] | None = None
    while True:
        try:
            length, start = decode_varint(data, position, len(data))
        except ValueError:
            break
        end = start + length
        if (not count and start != first) or end + _CRC_SIZE > len(data):
            break
        read += length
        # Of variants each length counts as 8 bytes, and the stored checksum itself.
        running = crc32c(data[start:end], crc32c(struct.pack("<Q", length), running))
        stored = data[end : end + _CRC_SIZE]
        if unmask_crc(int.from_bytes(stored, "little")) != running:
            break
        position, count = end + _CRC_SIZE, count + 1
        running = crc32c(stored, running)
        known = position, count, running
    if known is None:
        return None, read
    position, count, running = known
    return Counted(count, position - begin, running), read
