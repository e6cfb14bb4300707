"""Find the blocks of a table without its index, by their own checksums.

    block 0 | type crc | block 1 | type crc | ...

A raw block ends in its restart array. The first offset in it is 0, and their number comes last
(docs/format.md, section 1.5). So the end of a block is recognised by these bytes, and its checksum
proves it.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import unmask_crc
from ckptparse.crc.field import WideTable, multiply, multiply_table, power_of_x
from ckptparse.crc.search import word_registers
from ckptparse.table.format import TRAILER_SIZE, Compression

__all__ = ["find_blocks", "fixed32", "likely_ends"]

_WORD = 4
"""Bytes of a restart offset, and of their number, at a block's end: docs/format.md, section 1.4."""
_LEAST_BLOCK = 8
"""Bytes of the smallest block: no entry, one restart, and the number of restarts."""
_OFTEN = 16
"""If more than one byte in 16 is 1, these are not types of compressed blocks: compressed bytes look
random, so that 1 in 256 is 1. Such ends are not tried: each try costs a checksum."""


def fixed32(data: bytes, position: int) -> int:
    """Return the little-endian 32-bit number at a position."""
    return int(struct.unpack_from("<I", data, position)[0])


def likely_ends(data: bytes, start: int) -> list[int]:
    """Return the positions from `start` where a block's contents may end: those of its type byte.

    A raw block ends in a restart array: offsets, the first of them 0, and then their number. Of a
    compressed block only the type byte is known.
    """
    view = np.frombuffer(data, np.uint8)
    last = len(data) - TRAILER_SIZE
    if last < _LEAST_BLOCK:
        return []
    kinds = view[: last + 1]
    raw = np.flatnonzero(kinds == Compression.NONE)
    raw = raw[raw >= max(_LEAST_BLOCK, start)]
    counts = _words_at(view, raw - _WORD)
    firsts = raw - _WORD - _WORD * counts
    good = (counts > 0) & (firsts >= 0)
    raw, firsts = raw[good], firsts[good]
    raw = raw[_words_at(view, firsts) == 0]
    snappy = np.flatnonzero(kinds == Compression.SNAPPY)
    # 64 more, so that a short block is not refused for a few such bytes.
    likely = snappy[snappy >= max(1, start)] if len(snappy) <= 64 + last // _OFTEN else snappy[:0]
    ends: list[int] = np.sort(np.concatenate((raw, likely))).tolist()
    return ends


def _words_at(
    view: npt.NDArray[np.uint8], positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    words = np.zeros(len(positions), np.int64)
    for byte in range(_WORD):
        words |= view[positions + byte].astype(np.int64) << 8 * byte
    return words


def find_blocks(data: bytes) -> list[int]:
    """Return the starts of the proved blocks that lie anywhere in the data, in order.

    R[i] is the register after i bytes, F is all ones. The bytes [s, e) have the checksum `crc` if
    and only if (F ^ R[s]) · x^-8s = (crc ^ F ^ R[e]) · x^-8e. So each end needs one search for an
    equal value.
    """
    ends = [end for end in likely_ends(data, 0) if data[end] == 0]
    if not ends:
        return []
    registers = _byte_registers(data)
    turned = _turn_back(registers ^ np.uint32(0xFFFFFFFF))
    found: list[int] = []
    position = 0
    for end in ends:
        stored = unmask_crc(fixed32(data, end + 1))
        # The checksum covers the type byte too (section 1.4): the run ends at `end + 1`.
        wanted = multiply(stored ^ 0xFFFFFFFF ^ int(registers[end + 1]), power_of_x(-8 * (end + 1)))
        starts = np.flatnonzero(turned[position : end - _LEAST_BLOCK + 1] == np.uint32(wanted))
        if len(starts):
            found.append(position + int(starts[0]))
            position = end + TRAILER_SIZE
    return found


def _byte_registers(data: bytes) -> npt.NDArray[np.uint32]:
    """Return the register, started at all ones, before the first byte and after every byte."""
    view = np.frombuffer(data, np.uint8)
    after = np.empty(len(data) + 1, np.uint32)
    words = word_registers(view)
    after[::_WORD] = words[: len(after[::_WORD])]
    step = multiply_table(power_of_x(8))[0]
    for byte in range(1, _WORD):
        here = after[byte::_WORD]
        before = after[byte - 1 :: _WORD][: len(here)]
        here[:] = step[(before ^ view[byte - 1 :: _WORD][: len(here)]) & 0xFF] ^ before >> 8
    return after


def _turn_back(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Multiply the value at each position by x to the -8 times that position, by doubling."""
    padded = np.zeros(1 << (len(values) - 1).bit_length(), np.uint32)
    padded[: len(values)] = values
    length = 1
    while length < len(padded):
        later = padded.reshape(-1, 2 * length)[:, length:]
        later[:] = WideTable(power_of_x(-8 * length)).multiply(later)
        length *= 2
    return padded[: len(values)]
