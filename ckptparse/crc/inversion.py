"""Find values whose bytes are lost from their checksum alone.

- CRC-32C is a bijection on 4 bytes. So a payload of up to 4 bytes follows from its checksum.
- An 8-byte integer does not. Every checksum fits exactly one value below 2^32; that the true value
  is small is an assumption, and the smaller the value found, the safer it is.
- A tensor with one value in all elements, or that counts up from 0, is recognised if the value is
  in a short list (`CONSTANTS`). A longer list would prove less: almost every checksum fits some
  4-byte value repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from ckptparse.coding.checksum import crc32c, crc_of_zeros
from ckptparse.crc.field import (
    ORDER,
    discrete_log,
    multiply,
    multiply_by,
    power_of_x,
    raw_register,
)

__all__ = [
    "CONSTANTS",
    "COUNTER_NAMES",
    "Derivation",
    "chance_of_zeros",
    "constant_crcs",
    "derive_bools",
    "derive_constant",
    "derive_integer",
    "derive_tail",
    "derive_word",
    "find_zeros",
    "integer_is_proved",
    "is_counter",
]

CONSTANTS: Final = (0.0, 1.0, -1.0, 0.5, 2.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
"""The constants that are recognised: initial values, common rates and epsilons. With these 13 and
counting from 0, a wrong one fits by chance 14 in 2^32."""
COUNTER_NAMES: Final = frozenset({"global_step", "save_counter", "iterations", "iter"})
"""Last parts of the names of variables that count steps."""
_SMALL_INTEGER = 1 << 22
"""Integers below this are believed: of all checksums 2^22 in 2^32 fit one, 1 in 1,024, just within
`HIGHEST_CHANCE`. 4 million steps are more than most training runs have."""
_MOST_BOOLS = 22
"""Bools that are solved for: of all checksums 2^22 in 2^32 fit that many, 1 in 1,024."""
_LARGEST_ARANGE = 1 << 20
"""Elements of a float range that is computed to compare its checksum: it takes 1 ms. Those of
integers are computed from the checksums of halves, at any size."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """A payload that follows from its checksum.

    Attributes:
        method: How it was found, in a few words.
        chance: Chance that the payload is another one.
        pattern: The payload's bytes, or those of one of `count` equal elements.
        count: How many elements.
        counting: Whether the elements count up from 0. `pattern` is empty then.
    """

    method: str
    chance: float
    pattern: bytes
    count: int = 1
    counting: bool = False

    def payload(self, dtype: np.dtype[Any] | None) -> bytes:
        """Return the payload's bytes; `dtype` is that of elements that count up, as stored."""
        if self.counting:
            return np.arange(self.count).astype(dtype).tobytes()
        return self.pattern * self.count


def derive_word(crc: int, size: int) -> bytes | None:
    """Return the payload of `size` 1 to 4 bytes with that checksum; None if there is none.

    For 4 bytes there is always exactly one, for fewer at most one.
    """
    return derive_tail(crc, crc32c(b""), size)


def derive_tail(crc: int, head_crc: int, size: int) -> bytes | None:
    """Return the `size` 1 to 4 bytes that give `crc` when they follow bytes of `head_crc`."""
    zeros = _with_zeros(head_crc, size)
    word = multiply_by(crc ^ zeros, power_of_x(-32))
    spare = 32 - 8 * size
    if word & (1 << spare) - 1:
        return None
    return (word >> spare).to_bytes(size, "little")


@lru_cache(maxsize=1024)
def _with_zeros(crc: int, size: int) -> int:
    return multiply(crc ^ 0xFFFFFFFF, power_of_x(8 * size)) ^ 0xFFFFFFFF


def is_counter(name: str) -> bool:
    """Tell whether a variable of that name counts steps."""
    stem = name.partition("/.ATTRIBUTES/")[0]
    return stem.rpartition("/")[2].lstrip("_") in COUNTER_NAMES


def derive_integer(crc: int, *, big_endian: bool = False) -> tuple[int, float]:
    """Return the one integer below 2^32 whose 8 bytes have that checksum, and a chance.

    The chance is that of any checksum to fit a value with as few bits.
    """
    if big_endian:
        word = derive_tail(crc, crc_of_zeros(4), 4)
        value = int.from_bytes(word or b"", "big")
    else:
        register = multiply_by(crc ^ crc_of_zeros(8), power_of_x(-64))
        value = register  # Bit 0 of byte 0 has the highest power, and that is bit 0 here.
    return value, 2.0 ** (max(value.bit_length(), 1) - 32)


def integer_is_proved(value: int) -> bool:
    """Tell whether a value from `derive_integer` is small enough to be believed."""
    return value < _SMALL_INTEGER


def derive_bools(crc: int, count: int) -> tuple[bytes, float] | None:
    """Return the `count` bytes of 0 and 1 with that checksum, and the chance that they are wrong.

    Each byte that is 1 adds a value to the register. Up to 31 of these values are independent, so
    there is at most one solution. Any other checksum has one with the chance 2^(count - 32).
    """
    if not 0 < count <= _MOST_BOOLS:
        return None
    zeros = crc_of_zeros(count)
    rows: list[tuple[int, int]] = []  # A register, and a bit for each byte that gives it.
    for place in range(count):
        register = crc32c(bytes(place) + b"\1" + bytes(count - place - 1)) ^ zeros
        register, bytes_of = _reduced(register, 1 << place, rows)
        rows.append((register, bytes_of))
    left, bytes_of = _reduced(crc ^ zeros, 0, rows)
    if left:
        return None
    return bytes(bytes_of >> place & 1 for place in range(count)), 2.0 ** (count - 32)


def _reduced(register: int, bytes_of: int, rows: list[tuple[int, int]]) -> tuple[int, int]:
    """Subtract rows from a register, by their highest bits."""
    for row, row_bytes in rows:
        if register ^ row < register and register >> row.bit_length() - 1 & 1:
            register ^= row
            bytes_of ^= row_bytes
    return register, bytes_of


@lru_cache(maxsize=1 << 14)
def derive_constant(crc: int, dtype: np.dtype[Any], count: int) -> Derivation | None:
    """Recognise the checksum of a constant tensor of `count` elements.

    Args:
        crc: The unmasked checksum.
        dtype: Type of the elements as stored, with their byte order.
        count: How many elements.
    """
    number = constant_crcs(dtype, count).get(crc) if count else None
    if number is None:
        return None
    patterns = _patterns(dtype)
    chance = (len(patterns) + 1) / 2**32
    if number < len(patterns):
        name, pattern = patterns[number]
        return Derivation(f"the constant {name}", chance, pattern, count)
    method = f"the numbers from 0 to {count - 1}"
    return Derivation(method, chance, b"", count, counting=True)


@lru_cache(maxsize=4096)
def constant_crcs(dtype: np.dtype[Any], count: int) -> dict[int, int]:
    """Return the checksum of each pattern, with its number; one more is that of 0 ... count - 1."""
    found: dict[int, int] = {}
    patterns = _patterns(dtype)
    for number, (_, pattern) in enumerate(patterns):
        found.setdefault(_crc_of_repeat(pattern, count), number)
    counted = _crc_of_arange(dtype, count, dtype.itemsize) if count > 1 else None
    if counted is not None:
        found.setdefault(counted, len(patterns))
    return found


@lru_cache(maxsize=64)
def _patterns(dtype: np.dtype[Any]) -> tuple[tuple[str, bytes], ...]:
    """Return names and bytes of the constants as elements of that type, without repeats."""
    patterns: dict[bytes, str] = {}
    for value in CONSTANTS:
        if dtype.kind not in "fcV" and not (value.is_integer() and dtype.kind in "iub"):
            continue
        if dtype.kind in "ub" and value < 0:
            continue
        with np.errstate(over="ignore", under="ignore"):
            pattern = np.array(value).astype(dtype).tobytes()
        patterns.setdefault(pattern, f"{value:g}")
    return tuple((name, pattern) for pattern, name in patterns.items())


def _crc_of_repeat(pattern: bytes, count: int) -> int:
    size = len(pattern)
    repeated = multiply(_register_of(pattern), _geometric_sum(8 * size, count))
    return repeated ^ _cached_zeros(size * count)


_register_of = lru_cache(maxsize=1024)(raw_register)
_cached_zeros = lru_cache(maxsize=1024)(crc_of_zeros)


@lru_cache(maxsize=4096)
def _geometric_sum(step: int, count: int) -> int:
    """Return 1 + y + y^2 ... (`count` terms) for y = x^step, by doubling."""
    if count == 0:
        return 0
    half, odd = divmod(count, 2)
    sum_of_half = _geometric_sum(step, half)
    doubled = sum_of_half ^ multiply(sum_of_half, power_of_x(step * half))
    return multiply(doubled, power_of_x(step)) ^ 0x80000000 if odd else doubled


def _crc_of_arange(dtype: np.dtype[Any], count: int, size: int) -> int | None:
    if dtype.kind in "iu":
        if count > 1 << 8 * size - (dtype.kind == "i"):
            return None
        return _arange_register(dtype, count) ^ _cached_zeros(size * count)
    if dtype.kind != "f" or count > _LARGEST_ARANGE:
        return None
    return crc32c(np.arange(count).astype(dtype).tobytes())


@lru_cache(maxsize=1024)
def _arange_register(dtype: np.dtype[Any], count: int) -> int:
    """Return the register over 0 ... count - 1, from that of halves.

    The second half is the first one with one more bit set in every element.
    """
    if count <= 1:
        return 0
    power = 1 << (count - 1).bit_length() - 1
    rest = count - power
    step = 8 * dtype.itemsize
    high = np.array(power).astype(dtype).tobytes()
    fill = multiply(_register_of(high), _geometric_sum(step, rest))
    head = multiply(_arange_register(dtype, power), power_of_x(step * rest))
    return head ^ _arange_register(dtype, rest) ^ fill


def find_zeros(crc: int) -> int | None:
    """Return the n below 2^31 - 1 for which `crc` is the checksum of n zero bytes; None if none.

    Half of all checksums have one. `chance_of_zeros` tells whether it means anything.
    """
    inverted = crc ^ 0xFFFFFFFF
    # The register starts with 32 terms, an even number; multiplied by x^(8n) it stays even.
    if inverted.bit_count() % 2 or not inverted:
        return None
    exponent = discrete_log(inverted)
    base = discrete_log(0xFFFFFFFF)
    if exponent is None or base is None:
        return None
    return (exponent - base) * pow(8, -1, ORDER) % ORDER


def chance_of_zeros(size: int) -> float:
    """Return the chance that any checksum fits zeros of a size as usual as this one.

    A small size is usual, and so is one that a large power of two divides. There are 32 powers of
    two, so the chance is 32 times that of the quotient.
    """
    natural = size // (size & -size) if size else 1
    return min(size, 32 * natural) / 2**32
