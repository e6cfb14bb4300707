"""Find the small change of bytes that explains a wrong checksum.

The difference of the stored and the computed checksum is the change itself, times a power of x that
says how far it is from the end (`field`). For one bit this is a logarithm, exact and fast at any
size. For one byte or one aligned word, every position is tried at once. A wrong position fits a
change of w bytes by chance 1 in 2^(32 - 8w). So the chance that a found change is wrong grows with
the size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ckptparse.crc.field import (
    ORDER,
    discrete_log_below,
    multiply,
    multiply_each,
    multiply_table,
    power_of_x,
    powers_of_x,
)

__all__ = [
    "HIGHEST_CHANCE",
    "Change",
    "chance_of_bit",
    "chance_of_word",
    "find_bit",
    "find_crc_bit",
    "find_words",
]

HIGHEST_CHANCE = 1e-3
"""A promised value (`corrected`, `derived`) is wrong with this chance at most: 1 in 1,000. For one
flipped bit it allows tensors of up to 512 KiB. A lower bound would promise less and offer the same
values as `unverified`."""
_POSITIONS = 1 << 16
"""Positions that are tried at once: their registers fit into the processor's cache."""


@dataclass(frozen=True, slots=True)
class Change:
    """Bits to flip: the bytes at `offset` are XORed with `mask`."""

    offset: int
    mask: bytes

    @property
    def bit(self) -> int:
        """Number of the lowest flipped bit in the first byte with one."""
        first = next(byte for byte in self.mask if byte)
        return (first & -first).bit_length() - 1

    @property
    def is_one_bit(self) -> bool:
        """Whether it flips exactly one bit."""
        return sum(byte.bit_count() for byte in self.mask) == 1

    def apply(self, data: bytes | bytearray) -> bytes:
        """Return the bytes with the change made."""
        changed = bytearray(data)
        for place, mask in enumerate(self.mask, self.offset):
            changed[place] ^= mask
        return bytes(changed)


def chance_of_bit(size: int) -> float:
    """Return the chance that other damage to `size` bytes looks like one flipped bit."""
    return min(1.0, 8 * size / 2**32)


def chance_of_word(size: int, width: int) -> float:
    """Return the chance that other damage looks like a change of one aligned word."""
    return float(min(1.0, (size // width) * ((1 << 8 * width) - 1) / 2**32))


@lru_cache(maxsize=1 << 14)
def find_bit(stored: int, computed: int, size: int) -> Change | None:
    """Find the one bit of `size` bytes whose flip gives `computed` instead of `stored`.

    The checksums are unmasked. Up to 2^31 - 1 bits there is at most one; for more bits None is
    returned.
    """
    if not 0 < 8 * size <= ORDER:
        return None
    # The register is the bytes' polynomial times x^32 (`field`).
    from_end = discrete_log_below(_rewound(stored ^ computed), 8 * size)
    if from_end is None:
        return None
    byte, bit = divmod(from_end, 8)
    return Change(size - 1 - byte, bytes([1 << 7 - bit]))


def find_crc_bit(stored_masked: int, computed_masked: int) -> bool:
    """Tell whether one bit of the stored checksum itself is flipped. Both are masked, as stored."""
    return (stored_masked ^ computed_masked).bit_count() == 1


def find_words(
    stored: int, computed: int, size: int, *, width: int = 1, limit: int = 64
) -> list[Change]:
    """Find the aligned words of `width` 1 to 3 bytes whose change explains the checksums.

    At most `limit` of them, from the end of the bytes. Takes about 10 ms for each MiB.
    """
    found: list[Change] = []
    count = size // width
    difference = _rewound(stored ^ computed)
    tail = size - count * width
    powers = _powers_back(width, min(count, _POSITIONS))
    beyond = np.uint32((1 << 32 - 8 * width) - 1)
    for first in range(0, count, _POSITIONS):
        start = multiply_table(_shifted(difference, -8 * (tail + first * width)))
        words = multiply_each(powers[: count - first], start)
        # A word's polynomial has only its lowest powers, and these are the highest bits.
        for place in np.flatnonzero(words & beyond == 0):
            offset = size - tail - (first + int(place) + 1) * width
            mask = int(words[place]) >> 32 - 8 * width
            if mask:
                found.append(Change(offset, mask.to_bytes(width, "little")))
            if len(found) >= limit:
                return found
    return found


def _powers_back(width: int, count: int) -> npt.NDArray[np.uint32]:
    """Return x to the powers by which words are taken back, from the last one on: `count` of them.

    Many payloads of like sizes are asked about: they share one array.
    """
    return _powers_of_size(width, max(0, count - 1).bit_length())[:count]


@lru_cache(maxsize=32)
def _powers_of_size(width: int, bits: int) -> npt.NDArray[np.uint32]:
    powers = powers_of_x(-8 * width, 1 << bits)
    powers.flags.writeable = False
    return powers


def _rewound(difference: int) -> int:
    return _shifted(difference, -32)


def _shifted(value: int, exponent: int) -> int:
    return multiply(value, power_of_x(exponent))
