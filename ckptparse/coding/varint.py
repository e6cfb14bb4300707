"""LEB128 varints: seven bits in each byte, the lowest first (docs/format.md, section 1.3).

300 = 0b10_0101100  ->  ac 02
                        │  └ 0b0000010: the high group; high bit 0, so it is the last byte
                        └ 0b1_0101100: the low group; high bit 1, so more bytes follow
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_VARINT64_BYTES", "decode_varint", "decode_varints", "encode_varint"]

MAX_VARINT64_BYTES = 10
"""Bytes of the longest varint: 64 bits in groups of 7."""
_SHORT = [bytes([value]) for value in range(0x80)]
_FEW = 8
"""Varints that are decoded one by one: columns take longer."""
_BLOCK = 1 << 16
"""Varints that are decoded together: of so many the columns on the way take 3 MiB."""


def encode_varint(value: int) -> bytes:
    """Encode an unsigned integer in the fewest bytes."""
    if value < 0:
        raise ValueError(f"varint of a negative number: {value}")
    if value < len(_SHORT):
        return _SHORT[value]
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def decode_varint(
    data: bytes | memoryview, position: int, end: int, *, bits: int = 64
) -> tuple[int, int]:
    """Decode one varint of `data[position:end]`.

    An encoding with more bytes than needed (81 00 for 1) is accepted, as TensorFlow does.

    Args:
        data: The bytes; indexing gives integers.
        position: Where the varint starts.
        end: The varint must end here or before.
        bits: How wide the value may be: 32 or 64.

    Returns:
        The value, and the position after it.

    Raises:
        ValueError: The varint is cut off, too long, or too wide.
    """
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> bits:
                raise ValueError(f"varint is wider than {bits} bits")
            return value, position
        shift += 7
        if shift >= bits:
            raise ValueError(f"varint is longer than {(bits + 6) // 7} bytes")
    raise ValueError("varint is cut off")


def decode_varints(data: npt.NDArray[np.uint8], count: int) -> tuple[npt.NDArray[Any], int]:
    """Decode `count` varints that follow one another from the start of `data`.

    Args:
        data: Shape (n,), uint8.
        count: How many varints to decode.

    Returns:
        The values, shape (count,), uint64; and how many bytes they took.

    Raises:
        ValueError: A varint is cut off, longer than 10 bytes, or wider than 64 bits.
    """
    head = data[:count]
    if len(head) == count and (head < 0x80).all():
        return head.astype(np.uint64), count
    if len(head) < count:
        raise ValueError("varint is cut off")
    if count <= _FEW:
        # What is wrong, the columns say in the same words for few and for many.
        with suppress(ValueError):
            return _decode_few(data[: count * MAX_VARINT64_BYTES].tobytes(), count)
    if count <= _BLOCK:
        return _decode_block(data, count)
    # Block by block: on the way to its value, a varint of a byte takes some fifty.
    values = np.empty(count, np.uint64)
    position = 0
    for start in range(0, count, _BLOCK):
        part, size = _decode_block(data[position:], min(_BLOCK, count - start))
        values[start : start + len(part)] = part
        position += size
    return values, position


def _decode_few(data: bytes, count: int) -> tuple[npt.NDArray[Any], int]:
    values: list[int] = []
    position = 0
    for _ in range(count):
        value, position = decode_varint(data, position, len(data))
        values.append(value)
    return np.array(values, np.uint64), position


def _decode_block(data: npt.NDArray[np.uint8], count: int) -> tuple[npt.NDArray[Any], int]:
    lasts = np.flatnonzero(data[: count * MAX_VARINT64_BYTES] < 0x80)[:count]
    if len(lasts) < count:
        raise ValueError("varint is cut off, or longer than 10 bytes")
    starts = np.concatenate(([0], lasts[:-1] + 1))
    sizes = lasts - starts + 1
    longest = int(sizes.max())
    if longest > MAX_VARINT64_BYTES:
        raise ValueError(f"varint is longer than {MAX_VARINT64_BYTES} bytes")
    # Nine groups hold 63 bits, so of the tenth byte only the lowest bit is left.
    if longest == MAX_VARINT64_BYTES and (data[lasts[sizes == longest]] > 1).any():
        raise ValueError("varint is wider than 64 bits")
    values = np.zeros(count, np.uint64)
    for group in range(longest):
        rows = np.flatnonzero(sizes > group)
        bits = data[starts[rows] + group].astype(np.uint64) & np.uint64(0x7F)
        values[rows] |= bits << np.uint64(7 * group)
    return values, int(lasts[-1]) + 1
