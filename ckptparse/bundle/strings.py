"""Decode and encode string and variant tensors (docs/format.md, section 2.4).

    strings    varint length * n, fixed32 masked CRC of the lengths, bytes * n
    variants   (varint length, VariantTensorDataProto, fixed32 masked running CRC) * n

The CRC is not computed over the varints. Each length counts as 4 bytes (as 8 if it is above 2**32 -
1, and always in variants), in the writer's byte order. The stored checksums are part of the running
CRC, as they are stored.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.coding.checksum import crc32c, mask_crc, unmask_crc
from ckptparse.coding.varint import (
    MAX_VARINT64_BYTES,
    decode_varint,
    decode_varints,
    encode_varint,
)
from ckptparse.elements import object_bytes, sum_lengths
from ckptparse.errors import ChecksumError, MalformedError
from ckptparse.limits import Budget

__all__ = [
    "LONGEST_SHORT",
    "check_short_lengths",
    "check_strings",
    "decode_lengths",
    "decode_strings",
    "encode_strings",
    "encode_variants",
    "most_lengths_bytes",
    "split_variants",
]

_CRC_SIZE = 4
_UINT32_MAX = 0xFFFFFFFF
"""A longer string counts in the checksum with 8 bytes of its length, others with 4."""
LONGEST_SHORT = 0x7F
"""The greatest length whose varint is one byte."""
_FEW_LENGTHS = 64
"""Of so few lengths, numpy's calls take longer than they save."""
_LENGTHS_BLOCK = 1 << 16
"""Lengths whose checksum is taken at once: their copy of 256 KiB stays in the processor's cache."""


def decode_strings(
    data: bytes, count: int, *, big_endian: bool, crc: int | None, budget: Budget | None = None
) -> npt.NDArray[Any]:
    """Decode the payload of a string tensor.

    Args:
        data: The payload, all of it.
        count: How many strings it holds.
        big_endian: The byte order of the writer.
        crc: The stored CRC of the entry, unmasked; None leaves it unchecked. The checksum of the
            lengths is checked in any case.
        budget: What the strings are taken from; None: nobody counts.

    Returns:
        Shape (count,), object: `bytes`.

    Raises:
        ChecksumError: The lengths, or the whole, do not have their checksum.
        MalformedError: The lengths do not fill the payload exactly.
        LimitError: The budget does not allow them.
    """
    lengths, position, running = decode_lengths(data, count, len(data), big_endian=big_endian)
    if budget is not None:
        budget.take(object_bytes(lengths))
    if crc is not None:
        _check_crc(crc, crc32c(memoryview(data)[position:], running), "string tensor")
    # Faster than slicing, by half: no objects are made for ends and slices.
    stream = BytesIO(data)
    stream.seek(position + _CRC_SIZE)
    return np.fromiter(map(stream.read, lengths.tolist()), object, count)


def decode_lengths(
    head: bytes, count: int, size: int, *, big_endian: bool
) -> tuple[npt.NDArray[Any], int, int]:
    """Decode the lengths that a payload of `size` bytes starts with, and check them.

    Args:
        head: The payload's first bytes: `most_lengths_bytes(count)` of them, or all.
        count: How many strings it holds.
        size: Of the whole payload, in bytes.
        big_endian: The byte order of the writer.

    Returns:
        The lengths, shape (count,); the position after their checksum; and the running CRC there.

    Raises:
        ChecksumError: The lengths do not have their checksum.
        MalformedError: They do not fill the payload exactly.
    """
    view = np.frombuffer(head, np.uint8)
    try:
        lengths, position = decode_varints(view, count) if count else (view[:0], 0)
    except ValueError as error:
        raise MalformedError(f"Bad length of a string: {error}") from error
    # The checksum first: if it disagrees, wrong lengths are no separate error.
    running = _check_length_crc(head, lengths, position, big_endian=big_endian)
    total = position + _CRC_SIZE + sum_lengths(lengths)
    if total != size:
        raise MalformedError(
            f"Expected a payload of {total} bytes, as the lengths of its strings say, found {size}"
        )
    return lengths, position, running


def most_lengths_bytes(count: int) -> int:
    """Return how many bytes the lengths of `count` strings and their checksum take at most."""
    return count * MAX_VARINT64_BYTES + _CRC_SIZE


@lru_cache(maxsize=256)
def check_short_lengths(lengths: bytes, order: str) -> tuple[int, bytes]:
    """Return the checksum of lengths of at most `LONGEST_SHORT`, and the bytes that state it.

    Args:
        lengths: One byte each, as they are stored.
        order: `<` or `>`: the byte order of the writer.
    """
    running = crc32c(struct.pack(f"{order}{len(lengths)}I", *lengths))
    return running, struct.pack(f"{order}I", mask_crc(running))


def check_strings(
    head: bytes,
    count: int,
    size: int,
    *,
    big_endian: bool,
    crc: int,
    stream: Callable[[int, int], int],
) -> None:
    """Check a payload of which only the lengths are in memory.

    Args:
        head, count, size, big_endian: As for `decode_lengths`.
        crc: The stored CRC of the entry, unmasked.
        stream: Continues a CRC over the payload from a position to its end: (position, crc) -> crc.

    Raises:
        The same as `decode_strings`.
    """
    _, position, running = decode_lengths(head, count, size, big_endian=big_endian)
    _check_crc(crc, stream(position, running), "string tensor")


def _check_length_crc(
    data: bytes, lengths: npt.NDArray[Any], position: int, *, big_endian: bool
) -> int:
    """Check the checksum of the lengths; return it unmasked: the running CRC continues it."""
    if position + _CRC_SIZE > len(data):
        raise MalformedError(
            f"Expected the checksum of {len(lengths)} lengths at byte {position} of the payload, "
            f"found {len(data)} bytes"
        )
    order = ">" if big_endian else "<"
    computed = _crc_of_lengths(lengths, order)
    (masked,) = struct.unpack_from(f"{order}I", data, position)
    _check_crc(unmask_crc(masked), computed, "lengths of a string tensor")
    return computed


def _crc_of_lengths(lengths: npt.NDArray[Any], order: str) -> int:
    running = 0
    for start in range(0, len(lengths), _LENGTHS_BLOCK):
        running = crc32c(_fixed_lengths(lengths[start : start + _LENGTHS_BLOCK], order), running)
    return running


def _fixed_lengths(lengths: npt.NDArray[Any], order: str) -> bytes:
    if int(lengths.max()) <= _UINT32_MAX:
        return lengths.astype(f"{order}u4").tobytes()
    return b"".join(
        struct.pack(f"{order}I" if length <= _UINT32_MAX else f"{order}Q", length)
        for length in lengths.tolist()
    )


def _check_crc(stored: int, computed: int, what: str) -> None:
    if stored != computed:
        raise ChecksumError(
            f"Checksum does not match ({what}): stored {stored} vs. calculated on the restored "
            f"bytes {computed}",
            stored=stored,
            computed=computed,
        )


def encode_strings(strings: Sequence[bytes]) -> tuple[bytes, int]:
    """Encode the payload of a string tensor, little-endian.

    Returns:
        The payload, and its CRC, which is not computed over its bytes: see the module's text.
    """
    sizes = list(map(len, strings))
    body = b"".join(strings)
    if len(sizes) <= _FEW_LENGTHS and max(sizes, default=0) <= LONGEST_SHORT:
        lengths = bytes(sizes)
        running, check = check_short_lengths(lengths, "<")
        return b"".join((lengths, check, body)), crc32c(body, crc32c(check, running))
    running = _crc_of_lengths(np.array(sizes, np.uint64), "<")
    check = struct.pack("<I", mask_crc(running))
    payload = b"".join((*map(encode_varint, sizes), check, body))
    return payload, crc32c(body, crc32c(check, running))


def encode_variants(messages: Iterable[bytes]) -> tuple[bytes, int]:
    """Encode the payload of a variant tensor from its serialized VariantTensorDataProtos.

    Returns:
        The payload, little-endian, and its CRC, which is not computed over its bytes: see the
        module's text.
    """
    payload = bytearray()
    running = 0
    for message in messages:
        running = crc32c(message, crc32c(struct.pack("<Q", len(message)), running))
        check = struct.pack("<I", mask_crc(running))
        running = crc32c(check, running)
        payload += encode_varint(len(message)) + message + check
    return bytes(payload), running


def split_variants(data: bytes, count: int, *, big_endian: bool, crc: int | None) -> list[bytes]:
    """Split the payload of a variant tensor into its serialized VariantTensorDataProtos.

    Arguments and errors are those of `decode_strings`; each element's checksum is checked too.
    """
    order = ">" if big_endian else "<"
    elements: list[bytes] = []
    running = position = 0
    for _ in range(count):
        try:
            length, start = decode_varint(data, position, len(data))
        except ValueError as error:
            raise MalformedError(f"Bad length of a variant: {error}") from error
        end = start + length
        position = end + _CRC_SIZE
        if position > len(data):
            raise MalformedError(
                f"Expected a variant that fits its payload of {len(data)} bytes, found one of "
                f"{length} bytes"
            )
        running = crc32c(struct.pack(f"{order}Q", length), running)
        running = crc32c(data[start:end], running)
        (masked,) = struct.unpack_from(f"{order}I", data, end)
        _check_crc(unmask_crc(masked), running, "element of a variant tensor")
        running = crc32c(data[end:position], running)
        elements.append(data[start:end])
    if position != len(data):
        raise MalformedError(
            f"Expected {count} variants that fill their payload of {len(data)} bytes, found "
            "bytes after the last"
        )
    if crc is not None:
        _check_crc(crc, running, "variant tensor")
    return elements
