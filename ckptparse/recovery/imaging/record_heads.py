"""Find which elements a large record of a V1 file has, from the first bytes of its block.

A block of one large record (docs/format.md, sections 1.5 and 3.3):

    00   length of the key   length of the record   key
    12   length   { 0a name   12 slice   1a length { 2a length  elements } }
"""

from __future__ import annotations

from typing import NamedTuple

from ckptparse.dtypes import DataType
from ckptparse.errors import MalformedError
from ckptparse.proto.wire import read_varint

__all__ = ["HEAD", "Elements", "find_elements"]

HEAD = 1 << 12
"""Bytes of a block that are looked at."""
_DATA, _VALUES = 0x12, 0x1A
"""The tags of field 2 of SavedTensorSlices, and of field 3 of SavedSlice."""
_KINDS = {0x2A: DataType.DT_FLOAT, 0x32: DataType.DT_DOUBLE}
"""The tags of the fields whose packed values are their bytes."""


class Elements(NamedTuple):
    """The elements of a record."""

    data_type: int
    lead: int
    """Bytes of the block before the first of them."""


def find_elements(head: bytes) -> Elements | None:
    """Return the elements of the record with which a block begins; None if that is not known.

    Args:
        head: The first bytes of the block, without compression.
    """
    try:
        key_size, position = read_varint(head, 1, len(head))
        _, position = read_varint(head, position, len(head))
        position = _enter(head, position + key_size, _DATA)
        position = _enter(head, position, _VALUES)
        kind = _KINDS.get(head[position])
        _, lead = read_varint(head, position + 1, len(head))
    except (IndexError, MalformedError):
        return None
    return None if kind is None else Elements(kind, lead)


def _enter(head: bytes, position: int, wanted: int) -> int:
    """Return where the content of a field begins, behind others whose content has a length."""
    while True:
        size, start = read_varint(head, position + 1, len(head))
        if head[position] == wanted:
            return start
        position = start + size
