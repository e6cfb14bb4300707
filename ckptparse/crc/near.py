"""Find a run of bytes that begins at one of a few places, by its size and checksum.

Only the bytes over which its start and its end may move are looked at one by one: a long run costs
what its checksum alone does.
"""

from __future__ import annotations

import numpy as np

from ckptparse.coding.checksum import crc32c
from ckptparse.crc.field import multiply_each, multiply_table, power_of_x, powers_of_x
from ckptparse.crc.registers import byte_registers

__all__ = ["find_near"]

_ALL_ONES = 0xFFFFFFFF


def find_near(data: bytes | memoryview, size: int, crc: int) -> list[int]:
    """Return the offsets of all windows of that size and checksum; every byte may be the first.

    On average one in 2^32 fits by chance.

    Args:
        data: The bytes. For each place of the start some 30 bytes of memory are taken.
        size: Bytes of the run: at least one.
        crc: Its unmasked CRC-32C.
    """
    view = memoryview(data)
    count = len(view) - size + 1
    if count <= 0:
        return []
    starts = byte_registers(view[: count - 1])
    ends = byte_registers(view[size:])
    # Those at the ends were started at all ones: what went before differs from these.
    before = crc32c(view[:size])
    ends ^= multiply_each(powers_of_x(8, count), multiply_table(before))
    # A register of all ones at the start would have become that of the run at the end.
    starts ^= np.uint32(_ALL_ONES)
    whole = multiply_each(starts, multiply_table(power_of_x(8 * size)))
    found: list[int] = np.flatnonzero(ends ^ whole == crc ^ _ALL_ONES).tolist()
    return found
