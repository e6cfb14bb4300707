"""CRC-32C as arithmetic: a checksum is a polynomial over GF(2), modulo the Castagnoli polynomial P.

A run of n bytes is a polynomial M of degree below 8n. Its first bit (bit 0 of byte 0) has the
highest power. Its CRC register, started at zero, is M · x^32 mod P. The 32 bits are reflected:

    bit 31 = x^0    bit 30 = x^1    ...    bit 0 = x^31

The published CRC starts the register at all ones and inverts the result. For two runs a and b of
one length both cancel out: crc(a) ^ crc(b) = (a ^ b) · x^32.

P is (x + 1) · Q, and Q is primitive of degree 31. So the powers of x repeat after 2^31 - 1, and
every polynomial is a power of x modulo Q. Such logarithms are found by baby steps and giant steps,
with tables of 65,536 and 32,768 powers that are made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c, crc_of_zeros

__all__ = [
    "ONE",
    "ORDER",
    "WideTable",
    "discrete_log",
    "discrete_log_below",
    "linear_table",
    "multiply",
    "multiply_by",
    "multiply_each",
    "multiply_pairs",
    "multiply_table",
    "power_of_x",
    "powers_of_x",
    "raw_register",
    "times_x",
]

Registers = npt.NDArray[np.uint32]

ONE = 0x80000000
"""The polynomial 1: x^0 is the highest bit."""
ORDER = (1 << 31) - 1
"""How many different powers x has: those of a primitive polynomial of degree 31."""
_POLYNOMIAL = 0x82F63B78
"""P without x^32, reflected (docs/format.md, section 1.4)."""
_ALL_ONES = 0xFFFFFFFF
_BABY_STEPS = 1 << 16
"""Baby steps; then 32,768 giant steps reach `ORDER`. About the root of `ORDER` costs least: with
half as many, each logarithm takes twice as long."""
_FEW_GIANTS = 16
"""Up to so many products are quicker one by one than by a table."""
_PART = 1 << 14
_LOW_BITS = (1 << 20) - 1
"""Bits that are looked up first: 65,536 of 1,048,576 values are set, so 15 of 16 are ruled out, and
the table of 1 MiB stays in the processor's cache."""


def multiply(first: int, second: int) -> int:
    """Multiply two polynomials modulo P."""
    product = 0
    while first:
        if first & ONE:
            product ^= second
        first = first << 1 & _ALL_ONES
        second = second >> 1 ^ (_POLYNOMIAL if second & 1 else 0)
    return product


@lru_cache(maxsize=4096)
def power_of_x(exponent: int) -> int:
    """Return x to a power, which may be negative."""
    exponent %= ORDER
    result, digit = ONE, 0
    while exponent:
        if exponent & 0xFF:
            power = _powers(digit)[exponent & 0xFF]
            result = power if result == ONE else multiply(result, power)
        exponent >>= 8
        digit += 1
    return result


@cache
def _powers(digit: int) -> list[int]:
    """Return x to the powers that a digit of base 256 stands for."""
    factor = ONE >> 1
    for _ in range(8 * digit):
        factor = multiply(factor, factor)
    powers = np.array([ONE], np.uint32)
    while len(powers) < 256:
        powers = np.concatenate([powers, multiply_each(powers, multiply_table(factor))])
        factor = multiply(factor, factor)
    known: list[int] = powers.tolist()
    return known


def raw_register(data: bytes | memoryview) -> int:
    """Return M · x^32 for the bytes' polynomial M: their CRC register started at zero."""
    return crc32c(data) ^ crc_of_zeros(len(data))


@lru_cache(maxsize=256)
def multiply_table(factor: int) -> Registers:
    """Return the products of `factor` with every byte at each of the four places of a register.

    The table is kept (4 KiB each), and cannot be changed: small searches use the same ones.
    """
    images = [factor]
    for _ in range(31):
        # Bit 31 is 1, and each bit below it is x times the one above.
        images.append(images[-1] >> 1 ^ (_POLYNOMIAL if images[-1] & 1 else 0))
    return linear_table(images[::-1])


@lru_cache(maxsize=16)
def _rows_of(factor: int) -> list[list[int]]:
    rows: list[list[int]] = multiply_table(factor).tolist()
    return rows


def multiply_by(value: int, factor: int) -> int:
    """Multiply two polynomials modulo P by a table of one that is asked for again and again."""
    first, second, third, fourth = _rows_of(factor)
    return (
        first[value & 0xFF]
        ^ second[value >> 8 & 0xFF]
        ^ third[value >> 16 & 0xFF]
        ^ fourth[value >> 24]
    )


def linear_table(images: Sequence[int]) -> Registers:
    """Return the sums of images for every byte at each of the four places of a register.

    Args:
        images: What each of the 32 bits gives, the lowest first.
    """
    table = np.zeros((4, 256), np.uint32)
    places = np.array(images, np.uint32).reshape(4, 8)
    for bit in range(8):
        known = table[:, : 1 << bit]
        np.bitwise_xor(known, places[:, bit : bit + 1], out=table[:, 1 << bit : 2 << bit])
    table.flags.writeable = False
    return table


def multiply_each(values: Registers, table: Registers) -> Registers:
    """Multiply every polynomial of an array by the factor of a `multiply_table`."""
    product: Registers = table[0][values & 0xFF]
    product ^= table[1][values >> 8 & 0xFF]
    product ^= table[2][values >> 16 & 0xFF]
    product ^= table[3][values >> 24]
    return product


def multiply_pairs(first: Registers, second: Registers) -> Registers:
    """Multiply every polynomial of an array by that at its place in another."""
    product = np.zeros(len(first), np.uint32)
    for bit in range(31, -1, -1):
        product ^= second * (first >> np.uint32(bit) & np.uint32(1))
        second = times_x(second)
    return product


def times_x(values: Registers) -> Registers:
    """Multiply every polynomial of an array by x."""
    lowest = values & np.uint32(1)
    product: Registers = values >> np.uint32(1) ^ lowest * np.uint32(_POLYNOMIAL)
    return product


class WideTable:
    """The products of a factor with every pair of bytes: twice as fast for large arrays."""

    __slots__ = ("_high", "_low")

    def __init__(self, table: Registers) -> None:
        """Take a `multiply_table`, or a `linear_table`."""
        self._low = (table[1][:, None] ^ table[0]).reshape(-1)
        self._high = (table[3][:, None] ^ table[2]).reshape(-1)

    def multiply(self, values: Registers) -> Registers:
        """Multiply every polynomial of an array by the factor."""
        product = np.empty(values.shape, np.uint32)
        # A part at a time: what is in between stays in the processor's cache.
        for start in range(0, len(values), _PART):
            part, here = values[start : start + _PART], product[start : start + _PART]
            np.take(self._low, part & 0xFFFF, out=here, mode="clip")
            here ^= np.take(self._high, part >> 16, mode="clip")
        return product


def powers_of_x(step: int, count: int) -> Registers:
    """Return x^0, x^step, x^(2·step) ...: `count` of them. `step` may be negative."""
    powers = np.empty(max(count, 1), np.uint32)
    powers[0] = ONE
    known = 1
    while known < count:
        more = min(known, count - known)
        table = multiply_table(power_of_x(step * known))
        powers[known : known + more] = multiply_each(powers[:more], table)
        known += more
    return powers[:count]


class _Steps(NamedTuple):
    """The tables for logarithms: sorted small powers with their exponents, and large powers.

    `ends` tells which values the low 20 bits of a small power have: one in sixteen.
    """

    ends: npt.NDArray[np.bool_]
    powers: Registers
    exponents: npt.NDArray[np.intp]
    giants: Registers


@cache
def _steps() -> _Steps:
    babies = powers_of_x(1, _BABY_STEPS)
    order = np.argsort(babies)
    giants = powers_of_x(-_BABY_STEPS, ORDER // _BABY_STEPS + 1)
    ends = np.zeros(1 << 20, np.bool_)
    ends[babies & _LOW_BITS] = True
    return _Steps(ends, babies[order], order, giants)


def discrete_log_below(value: int, bound: int) -> int | None:
    """Return the k below `bound` with x^k = value modulo P; None if there is none.

    Takes time in proportion to `bound`: 2-3 ms for the largest, `ORDER`.
    """
    # Modulo x + 1 a power of x is 1, so its number of terms is odd.
    if value.bit_count() % 2 == 0:
        return None
    steps = _steps()
    count = min(-(-bound // _BABY_STEPS), len(steps.giants))
    if count <= _FEW_GIANTS:
        reduced = np.array([multiply(int(one), value) for one in steps.giants[:count]], np.uint32)
    else:
        reduced = multiply_each(steps.giants[:count], multiply_table(value))
    likely = np.flatnonzero(steps.ends[reduced & _LOW_BITS])
    places = np.searchsorted(steps.powers[:-1], reduced[likely])
    hits = np.flatnonzero(steps.powers[places] == reduced[likely])
    if not len(hits):
        return None
    hit = int(hits[0])
    exponent = int(likely[hit]) * _BABY_STEPS + int(steps.exponents[places[hit]])
    return exponent if exponent < bound else None


def discrete_log(value: int) -> int | None:
    """Return the k below `ORDER` with x^k = value modulo Q; None for zero modulo Q."""
    # Q has an odd number of terms. Adding it changes the parity, and nothing modulo Q.
    odd = value if value.bit_count() % 2 else value ^ _large_factor()
    return discrete_log_below(odd, ORDER)


@cache
def _large_factor() -> int:
    """Return Q = P / (x + 1), by long division with bits in the usual order (not reflected)."""
    remainder = 1 << 32 | int(f"{_POLYNOMIAL:032b}"[::-1], 2)
    quotient = 0
    for degree in range(31, -1, -1):
        if remainder >> degree + 1 & 1:
            remainder ^= 0b11 << degree
            quotient |= 1 << degree
    return int(f"{quotient:032b}"[::-1], 2)
