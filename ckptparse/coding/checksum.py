"""CRC-32C, and the mask under which it is stored (docs/format.md, section 1.4).

The polynomial is Castagnoli's: 0x82F63B78, reflected. A stored checksum is masked, because the CRC
of bytes that contain a CRC tells less:

    stored = rotate_right(crc, 15) + 0xA282EAD8    (mod 2**32)
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.machinery import ExtensionFileLoader, PathFinder
from typing import TYPE_CHECKING, Any

__all__ = ["combine_crc", "crc32c", "crc_of_zeros", "mask_crc", "unmask_crc"]

_MASK_DELTA = 0xA282EAD8
"""The constant that masking adds (section 1.4)."""
_POLYNOMIAL = 0x82F63B78
_UINT32 = 0xFFFFFFFF
_SMALL = 64
"""Sizes below it have tables of their own: 32 KiB each, made when it is first asked for."""


def _load_extension() -> Any:
    """Load the extension module of the package crc32c without the package itself.

    Newer releases of the package import a command line and their own metadata: 18 ms, a third of
    the time of `import numpy`. If the module is not found as a file (in a frozen program), the
    package is imported.
    """
    package = None if "crc32c" in sys.modules else PathFinder.find_spec("crc32c")
    where = None if package is None else package.submodule_search_locations
    spec = None if where is None else PathFinder.find_spec("crc32c._crc32c", where)
    if spec is None or not isinstance(spec.loader, ExtensionFileLoader):
        import crc32c

        return crc32c
    module = spec.loader.create_module(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from crc32c import crc32c
else:
    crc32c = _load_extension().crc32c


def mask_crc(crc: int) -> int:
    """Mask a CRC for storing it."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _UINT32


def unmask_crc(masked: int) -> int:
    """Return the CRC of a stored, masked one."""
    rotated = (masked - _MASK_DELTA) & _UINT32
    return (rotated >> 17 | rotated << 15) & _UINT32


def combine_crc(first: int, second: int, second_size: int) -> int:
    """Return the CRC of two runs of bytes, one after the other, from the CRC of each.

    Takes time proportional to the number of bits in `second_size` (in bytes).
    """
    return _shift(first, second_size) ^ second


def crc_of_zeros(size: int) -> int:
    """Return the CRC of `size` zero bytes, without computing over them."""
    return _shift(_UINT32, size) ^ _UINT32


def _shift(crc: int, size: int) -> int:
    """Advance a CRC register over `size` zero bytes, by repeated squaring."""
    if 0 < size < _SMALL:
        # As of a scalar, of which there may be very many.
        first, second, third, fourth = _byte_tables(size)
        high = crc >> 16
        return first[crc & 0xFF] ^ second[crc >> 8 & 0xFF] ^ third[high & 0xFF] ^ fourth[high >> 8]
    return _shift_any(crc, size)


def _shift_any(crc: int, size: int) -> int:
    power = 0
    while size:
        if size & 1:
            crc = _apply(_zeros_operator(power), crc)
        size >>= 1
        power += 1
    return crc


@cache
def _byte_tables(size: int) -> tuple[list[int], ...]:
    """Return what `size` zero bytes do to each value of each byte of a register."""
    tables = []
    for first in range(0, 32, 8):
        table = [0]
        for bit in range(first, first + 8):
            column = _shift_any(1 << bit, size)
            table += [value ^ column for value in table]
        tables.append(table)
    return tuple(tables)


@cache
def _zeros_operator(power: int) -> tuple[int, ...]:
    """Return what 2**power zero bytes do to a register: a linear map over GF(2).

    It is given by what becomes of each single bit.
    """
    if power:
        half = _zeros_operator(power - 1)
        return tuple(_apply(half, column) for column in half)
    return tuple(_step_byte(1 << bit) for bit in range(_UINT32.bit_length()))


def _step_byte(register: int) -> int:
    for _ in range(8):
        register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
    return register


def _apply(operator: tuple[int, ...], vector: int) -> int:
    result = 0
    for column in operator:
        if vector & 1:
            result ^= column
        vector >>= 1
    return result
