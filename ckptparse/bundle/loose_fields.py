"""Read the fields of many entries that are not written as protobuf writes them, column by column.

Fields may come in any order or be left out, numbers may take more bytes than they need, and there
may be fields that this reader does not know. Step k reads field k of every entry. What is rarer
(slices, negative numbers, a second shape, groups) is left to the bindings.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ckptparse.table.columns import IntColumn
from ckptparse.table.together import read_varints, windows_of

__all__ = ["LooseFields"]

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

_MOST_FIELDS = 16
"""Fields of an entry at most: six are known."""
_TAG_BYTES, _LENGTH_BYTES, _NUMBER_BYTES = 5, 4, 9
"""Bytes of the longest varints that are taken: ten make a negative number, and five a length of
256 MiB or more."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_DTYPE, _SHAPE, _SHARD, _OFFSET, _SIZE, _CRC, _SLICES = range(1, 8)
_WIRES = {
    _DTYPE: _VARINT,
    _SHAPE: _LENGTH,
    _SHARD: _VARINT,
    _OFFSET: _VARINT,
    _SIZE: _VARINT,
    _CRC: _FIXED32,
}
_NONE = -1


class LooseFields:
    """The fields of some entries, each 0 if it is left out.

    Attributes:
        known: Shape (n,): which rows are understood. The others mean nothing.
        data_types, shard_ids, offsets, sizes: Shape (n,).
        masked_crcs: Shape (n,): the checksums as they are stored.
        shape_starts, shape_ends: Shape (n,): where the serialized shape is.
    """

    def __init__(self, data: Bytes, starts: IntColumn, ends: IntColumn) -> None:
        """Read the entries between `starts` and `ends`; at least 32 bytes follow the last one."""
        count = len(starts)
        self._data = data
        self.known = np.ones(count, np.bool_)
        self._numbers: list[IntColumn] = [np.zeros(count, np.int64) for _ in range(_SLICES)]
        self.data_types, self.shard_ids = self._numbers[_DTYPE], self._numbers[_SHARD]
        self.offsets, self.sizes = self._numbers[_OFFSET], self._numbers[_SIZE]
        self.masked_crcs = self._numbers[_CRC]
        self.shape_starts, self.shape_ends = starts.copy(), np.full(count, _NONE, np.int64)
        rows, at, stops = np.arange(count), starts, ends
        for _ in range(_MOST_FIELDS):
            going = self.known[rows] & (at < stops)
            rows, at, stops = rows[going], at[going], stops[going]
            if not len(rows):
                break
            at = self._read_field(rows, at, stops)
        self.known[rows[at < stops]] = False
        # A data type has one byte, and a shard 31 bits: others are negative, or are cut.
        self.known &= (self.data_types < 0x80) & (self.shard_ids < 1 << 31)
        without = (self.shape_ends == _NONE) | ~self.known
        self.shape_ends = np.where(without, self.shape_starts, self.shape_ends)

    def _read_field(self, rows: IntColumn, at: IntColumn, stops: IntColumn) -> IntColumn:
        """Read one field of some rows; return where each ends."""
        data = self._data
        tags, at, known = read_varints(data, at, _TAG_BYTES)
        fields, wires = tags >> 3, tags & 7
        known &= (fields > 0) & (fields != _SLICES) & (tags < 1 << 32)
        known &= (wires <= _LENGTH) | (wires == _FIXED32)
        values = np.zeros(len(rows), np.int64)
        after = at + np.where(wires == _FIXED64, 8, np.where(wires == _FIXED32, 4, 0))
        for wire, longest in ((_VARINT, _NUMBER_BYTES), (_LENGTH, _LENGTH_BYTES)):
            some = np.flatnonzero(wires == wire)
            if not len(some):
                continue
            values[some], after[some], whole = read_varints(data, at[some], longest)
            known[some] &= whole
        contents = after
        after = after + np.where(wires == _LENGTH, values, 0)
        known &= after <= stops
        for field, wire in _WIRES.items():
            here = fields == field
            if not here.any():
                continue
            known &= ~here | (wires == wire)
            some = np.flatnonzero(here & known)
            where = rows[some]
            if field == _SHAPE:
                # A second one would be merged with the first.
                known[some] = self.shape_ends[where] == _NONE
                self.shape_starts[where], self.shape_ends[where] = contents[some], after[some]
            elif field == _CRC:
                self.masked_crcs[where] = windows_of(data, 4)[at[some]].view("<u4")
            else:
                self._numbers[field][where] = values[some]
        self.known[rows] = known
        return after
