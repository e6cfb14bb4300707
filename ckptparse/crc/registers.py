"""The CRC registers after every 4 bytes, or every byte, of a buffer.

They are computed in lanes: the library's checksum gives the register at the start of each lane, and
numpy advances all lanes together, one word at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import accumulate
from math import isqrt

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import combine_crc, crc32c
from ckptparse.crc.field import multiply_table, power_of_x
from ckptparse.crc.threads import in_threads

__all__ = [
    "byte_registers",
    "coarse_registers",
    "one_further",
    "registers_at",
    "word_registers",
]

Words = npt.NDArray[np.uint32]

_WORD = 4
_SHARE = 1 << 17
"""Registers that a thread takes at a time: they stay in the processor's cache."""
_BATCH = 1 << 13
"""Most registers that are advanced together: they and the tables fit into the processor's cache."""
_LANES_A_STEP = 32
"""How many times as many lanes as steps there are. A step costs as much as the checksums of so many
lanes: their calls take 0.3 µs each, the calls of numpy for a step 10 µs."""
_SEGMENT = 1 << 20
"""Words that a thread advances: 4 MiB, of which two segments give two threads work."""
_LARGE_STEP = 1 << 18
"""Bytes from which on a checksum takes longer than giving it to a thread."""
_ALL_ONES = 0xFFFFFFFF


def byte_registers(data: bytes | memoryview) -> Words:
    """Return the registers, started at all ones, before the first byte and after every byte."""
    after = np.empty(len(data) + 1, np.uint32)
    values = np.frombuffer(data, np.uint8)
    registers = word_registers(values)
    for byte in range(_WORD):
        here = after[byte::_WORD]
        here[:] = registers[: len(here)]
        registers = one_further(registers, values[byte::_WORD])
    return after


def coarse_registers(data: bytes | memoryview, step: int) -> Words:
    """Return the registers, started at all ones, before the first byte and after every `step`.

    There is a call of the library for each step; of large ones, threads share the calls.
    """
    data = memoryview(data)
    count = len(data) // step
    pieces = (data[number * step : (number + 1) * step] for number in range(count))
    if step < _LARGE_STEP:
        crcs = accumulate(pieces, _continued, initial=0)
    else:
        own = in_threads(crc32c, list(pieces))
        crcs = accumulate(own, lambda crc, one: combine_crc(crc, one, step), initial=0)
    after = np.fromiter(crcs, np.uint32, count + 1)
    after ^= np.uint32(_ALL_ONES)
    return after


def registers_at(data: bytes | memoryview, ends: Iterable[int], *, start: int = _ALL_ONES) -> Words:
    """Return the registers after each of some numbers of bytes, which rise; a call for each.

    Args:
        data: The bytes.
        ends: How many bytes.
        start: The register before the first byte.
    """
    view = memoryview(data)
    registers = []
    # The library takes and gives checksums: registers with all bits inverted.
    crc, before = start ^ _ALL_ONES, 0
    for end in ends:
        crc = crc32c(view[before:end], crc)
        registers.append(crc)
        before = end
    found: Words = np.array(registers, np.uint32) ^ np.uint32(_ALL_ONES)
    return found


def word_registers(data: npt.NDArray[np.uint8], start: int = _ALL_ONES) -> Words:
    """Return the registers after every 4 bytes; `start` is the one before the first."""
    words = data[: len(data) // _WORD * _WORD].view("<u4")
    after = np.empty(len(words) + 1, np.uint32)
    after[0] = register = start
    starts = []
    for first in range(0, len(words), _SEGMENT):
        starts.append((first, register))
        register = crc32c(words[first : first + _SEGMENT].data.cast("B"), register ^ _ALL_ONES)
        register ^= _ALL_ONES
    tables = _word_tables()

    def fill(start: tuple[int, int]) -> None:
        first, register = start
        part = words[first : first + _SEGMENT]
        after[first + 1 : first + 1 + len(part)] = _segment(part, register, tables)

    in_threads(fill, starts)
    return after


def one_further(before: Words, data: npt.NDArray[np.uint8]) -> Words:
    """Return the registers one byte after others; there may be one more of these than bytes."""
    after = np.empty(min(len(before), len(data)), np.uint32)
    table = multiply_table(power_of_x(8))[0]

    def fill(first: int) -> None:
        part = before[first : min(first + _SHARE, len(after))]
        place = (part ^ data[first : first + len(part)]).astype(np.uint8)
        np.take(table, place, out=after[first : first + len(part)], mode="clip")
        after[first : first + len(part)] ^= part >> 8

    in_threads(fill, range(0, len(after), _SHARE))
    return after


@cache
def _word_tables() -> tuple[Words, ...]:
    """Return the products of every low half and of every high half of a word."""
    table = multiply_table(power_of_x(8 * _WORD))
    return tuple((table[n + 1][:, None] ^ table[n]).reshape(-1) for n in (0, 2))


def _segment(words: Words, register: int, tables: tuple[Words, ...]) -> Words:
    # An odd number: columns at distances of powers of two would push each other out of the cache.
    length = max(-(-len(words) // _BATCH), isqrt(len(words) // _LANES_A_STEP) | 1)
    lanes = -(-len(words) // length)
    padded = np.zeros(lanes * length, np.uint32)
    padded[: len(words)] = words
    columns = np.ascontiguousarray(padded.reshape(lanes, length).T)
    registers = _lane_starts(padded, lanes, register)
    place, other = np.empty(lanes, np.intp), np.empty(lanes, np.uint32)
    for column in columns:
        registers ^= column
        np.bitwise_and(registers, 0xFFFF, out=place, casting="unsafe")
        np.take(tables[0], place, out=other, mode="clip")
        np.right_shift(registers, 16, out=place, casting="unsafe")
        np.take(tables[1], place, out=registers, mode="clip")
        registers ^= other
        column[:] = registers
    after: Words = columns.T.reshape(-1)[: len(words)]
    return after


def _lane_starts(words: Words, lanes: int, register: int) -> Words:
    view = words.data.cast("B")
    size = len(view) // lanes
    starts = np.empty(lanes, np.uint32)
    crc = register ^ _ALL_ONES
    for lane in range(lanes):
        starts[lane] = crc
        crc = crc32c(view[lane * size : (lane + 1) * size], crc)
    starts ^= np.uint32(_ALL_ONES)
    return starts


def _continued(crc: int, data: bytes | memoryview) -> int:
    return crc32c(data, crc)
