"""Names and the keys of slices, as they are stored (docs/format.md, section 2.6).

00               the number 0: no name that TensorFlow gives a tensor begins so
name 00 01       escaped, then its terminator
rank             as a number
start length     for each dimension, as signed numbers; (0, -1) is the whole dimension
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from ckptparse.coding.ordered_code import (
    decode_number,
    decode_signed,
    decode_string,
    encode_number,
    encode_signed,
    encode_string,
)
from ckptparse.slices import Extent, TensorSlice
from ckptparse.table.columns import TableColumns

__all__ = [
    "decode_name",
    "decode_names",
    "decode_slice_key",
    "encode_name",
    "encode_slice_key",
    "encode_slice_keys",
    "known_ones",
    "weight_of_slices",
]

_LONG_NAME = 1 << 12
"""Bytes of a name for which a slice counts once more."""

_WHOLE = -1
"""The length that stands for a whole dimension in a key."""


def encode_name(name: str) -> bytes:
    """Return a name as its stored bytes."""
    return name.encode("utf-8", "surrogateescape")


def decode_name(key: bytes) -> str:
    """Return stored bytes as a name; bytes that are not UTF-8 become surrogate escapes."""
    return key.decode("utf-8", "surrogateescape")


def decode_names(table: TableColumns, first: int) -> list[str]:
    """Return the keys of a table as names, those from row `first` on."""
    # All at once, if none contains the zero byte that separates them.
    start = int(table.key_ends[first - 1]) + 1 if first else 0
    names = decode_name(table.keys[start:-1]).split("\x00")
    if len(names) == len(table) - first:
        return names
    places = pairwise([start - 1, *table.key_ends[first:].tolist()])
    return [table.keys[at + 1 : end].decode("utf-8", "surrogateescape") for at, end in places]


def known_ones(names: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """Return the same names: those that are among `known` at about the same place as its objects.

    Two lists of names then take the memory of one.

    Args:
        names: Some names, in the order of an index.
        known: Names in the same order; perhaps there are more or others.
    """
    if not names or not known:
        return names
    first = bisect_left(known, names[0])
    near = known[first : first + len(names)]
    if near == names:
        return near
    found = dict(zip(near, near, strict=True))
    return [found.get(name, name) for name in names]


def encode_slice_key(name: bytes, tensor_slice: TensorSlice) -> bytes:
    """Return the key under which a slice of a tensor is stored."""
    return encode_slice_keys(name, [tensor_slice])[0]


def weight_of_slices(name: bytes, count: int) -> int:
    """Return how many slices some of one tensor count as: the key of each repeats the name."""
    return count * (1 + len(name) // _LONG_NAME)


def encode_slice_keys(name: bytes, slices: Sequence[TensorSlice]) -> list[bytes]:
    """Return the keys under which slices of one tensor are stored."""
    begin = _ZERO + encode_string(name)
    return [
        begin + _encode_rank(len(piece.extents)) + b"".join(map(_encode_extent, piece.extents))
        for piece in slices
    ]


_ZERO = encode_number(0)
_encode_rank = lru_cache(1 << 8)(encode_number)


@lru_cache(1 << 12)
def _encode_extent(extent: Extent) -> bytes:
    length = _WHOLE if extent.length is None else extent.length
    return encode_signed(extent.start) + encode_signed(length)


def decode_slice_key(key: bytes) -> tuple[bytes, TensorSlice] | None:
    """Return name and slice of a slice's key; None for any other key."""
    try:
        zero, position = decode_number(key, 0)
        name, position = decode_string(key, position)
        rank, position = decode_number(key, position)
        if zero:
            return None
        extents = []
        for _ in range(rank):  # A rank that is too large ends at the end of the key.
            start, position = decode_signed(key, position)
            length, position = decode_signed(key, position)
            if start < 0 or length < _WHOLE:
                return None
            extents.append(Extent(start, None if length == _WHOLE else length))
    except ValueError:
        return None
    return (name, TensorSlice(tuple(extents))) if position == len(key) else None
