"""Find one flipped bit in a tensor of strings. Its checksums cover more than its bytes.

    lengths (varints)   masked CRC of the lengths, each taken as 4 bytes   strings

The tensor's checksum covers the lengths at fixed width, the stored checksum of the lengths, and
the strings (docs/format.md, section 2.4).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ckptparse.bundle.entry import count_elements
from ckptparse.bundle.strings import decode_strings
from ckptparse.coding.checksum import crc32c
from ckptparse.coding.varint import encode_varint
from ckptparse.crc.flips import Change, chance_of_bit, find_bit
from ckptparse.errors import CheckpointError
from ckptparse.examination.check import string_spans
from ckptparse.examination.outcome import Span
from ckptparse.examination.payload import Payload

__all__ = ["LengthBytes", "find_string_bit"]

_MOST_LENGTHS = 1024
"""Strings at most, if their lengths are tried bit by bit: each try decodes all lengths."""
_MOST_LENGTH_BYTES = 1024
"""Bytes of lengths that are tried: 8,192 bits take 0.3 s, and fit by chance 1 in 524,288."""
_LONGEST_VARINT = 10
"""Bytes of the longest varint: 64 bits in groups of 7 (section 1.3)."""


@dataclass
class LengthBytes:
    """How many bytes of lengths may still be tried, of all tensors of a checkpoint together."""

    left: int = _MOST_LENGTH_BYTES

    def take(self, size: int) -> bool:
        """Count some; tell whether they may be tried."""
        self.left -= size
        return self.left >= 0


def find_string_bit(
    data: bytes, payload: Payload, lengths: LengthBytes | None = None
) -> tuple[Change, float] | None:
    """Find the one bit whose flip explains the checksums, and the chance that this is wrong."""
    count = count_elements(payload.shape)
    spans = string_spans(data, count, big_endian=payload.big_endian)
    if spans is not None:
        return _in_strings(data, payload, spans)
    if count > _MOST_LENGTHS:
        return None
    return _in_lengths(data, payload, count, lengths or LengthBytes())


def _in_strings(data: bytes, payload: Payload, spans: list[Span]) -> tuple[Change, float] | None:
    """Find a bit of the strings: their lengths are right, so the bytes under the CRC are known."""
    if not spans or spans[-1][1] != len(data) or payload.crc32c is None:
        return None
    start = sum(len(encode_varint(stop - low)) for low, stop in spans)
    order = ">" if payload.big_endian else "<"
    fixed = b"".join(struct.pack(f"{order}I", stop - low) for low, stop in spans)
    covered = fixed + data[start:]
    change = find_bit(payload.crc32c, crc32c(covered), len(covered))
    if change is None or change.offset < len(fixed):
        return None
    own = Change(change.offset - len(fixed) + start, change.mask)
    return (own, chance_of_bit(len(covered))) if _is_sound(own.apply(data), payload) else None


def _in_lengths(
    data: bytes, payload: Payload, count: int, lengths: LengthBytes
) -> tuple[Change, float] | None:
    """Try every bit of the lengths and of their checksum."""
    head = data[: _LONGEST_VARINT * count + 4]
    reach = min(len(head), _MOST_LENGTH_BYTES)
    if not lengths.take(reach):
        return None
    for offset in range(reach):
        for bit in range(8):
            change = Change(offset, bytes([1 << bit]))
            spans = string_spans(change.apply(head), count, big_endian=payload.big_endian)
            if spans is not None and _is_sound(change.apply(data), payload):
                return change, chance_of_bit(reach)
    return None


def _is_sound(data: bytes, payload: Payload) -> bool:
    count = count_elements(payload.shape)
    try:
        decode_strings(data, count, big_endian=payload.big_endian, crc=payload.crc32c)
    except CheckpointError:
        return False
    return True
