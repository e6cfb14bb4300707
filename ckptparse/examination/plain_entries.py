"""Tell at once that bytes are the usual entry of an index: a tensor in one piece, in one data file.

A damaged index may hold hundreds of thousands of entries that no checksum covers. What is told here
needs a tenth of the time that the entry takes as a message.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ckptparse.bundle.entry import BundleEntry, count_elements, shape_from_proto
from ckptparse.coding.varint import decode_varint
from ckptparse.dtypes import DataType, item_size
from ckptparse.errors import CheckpointError
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.tensor_shape_pb2 import TensorShapeProto

__all__ = ["is_plain_entry"]

_SHAPE = 4
"""Where the shape begins: after the tag and number of its dtype, and its own tag and length."""
_VARINT = rb"([\x80-\xff]{0,8}[\x01-\x7f])"
"""A number above 0 and below 2^63, in as few bytes as it needs."""
_AFTER = re.compile(
    rb"(?:\x20" + _VARINT + rb")?(?:\x28" + _VARINT + rb")?(?:\x35(.{4}))?", re.DOTALL
)
"""After the shape: offset, size and checksum, each absent if it is 0 (docs/format.md, section
2.2)."""


def is_plain_entry(value: bytes) -> bool:
    """Tell whether a value is an entry that breaks no rule; False if another look must tell."""
    # Tag 0x08 is dtype, 0x12 the shape; both numbers take one byte below 0x80.
    if len(value) < _SHAPE or value[0] != 0x08 or value[2] != 0x12 or value[3] > 0x7F:
        return False
    end = _SHAPE + value[3]
    after = _AFTER.fullmatch(value, end)
    if after is None or end > len(value):
        return False
    _, size, crc = after.groups()
    elements = _count_in(value[_SHAPE:end])
    if elements is None or crc == b"\0\0\0\0":
        return False
    found = 0
    if size is not None:
        found = size[0] if len(size) == 1 else decode_varint(size, 0, len(size))[0]
    width = _width_of(value[1])
    return width is not None and found == elements * width


@lru_cache(maxsize=4096)
def _count_in(shape: bytes) -> int | None:
    """Return how many elements a shape has; None if it is not written as usual, or is no shape."""
    try:
        proto = parse_message(TensorShapeProto, shape)
        elements = count_elements(shape_from_proto(proto, limits=DEFAULT_LIMITS))
    except CheckpointError:
        return None
    return elements if proto.SerializeToString() == shape else None


@lru_cache(maxsize=128)
def _width_of(kind: int) -> int | None:
    """Return the bytes of an element; None for kinds that are never stored, or of no fixed size."""
    width = item_size(kind)
    if not width or kind == DataType.DT_INVALID:
        return None
    try:
        BundleEntry(kind, (1,), 0, 0, width, 0).check(num_shards=1, limits=DEFAULT_LIMITS)
    except CheckpointError:
        return None
    return width
