"""Decode many entries of an index at once, column by column.

With 100,000 tensors, one message object for each takes too long. Nearly every entry has the form

    08 dtype  12 n shape[n]  (18 shard_id)  (20 offset)  (28 size)  35 crc32c[4]

in the order of field numbers, as protobuf writes them; fields in brackets are left out if they are
0. Such entries are decoded together, and so are many that are written otherwise (`loose_fields`).
What is left, and those with a value that may be wrong, go through the bindings and
`BundleEntry.from_proto` one by one. So all rules are in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.columns import EntryColumns, Shape
from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.shapes import Shapes
from ckptparse.dtypes import DataType, item_size
from ckptparse.limits import Limits, check_small
from ckptparse.table.columns import IntColumn, TableColumns
from ckptparse.table.together import masks_of, windows_of

__all__ = ["EntryDecoder"]

_ONE = np.uint64(1)
_ONES, _LOW_BITS, _HIGH_BITS = (np.uint64(byte * 0x0101010101010101) for byte in (0x01, 0x7F, 0x80))
_PAIRS = tuple(
    (np.uint64(lower), np.uint64(shift))
    for lower, shift in ((0x007F007F007F007F, 1), (0x00003FFF00003FFF, 2), (0x0FFFFFFF, 4))
)
"""The lower group of each pair in a word, and by how many bits the other one moves to it."""
_PADDING = 64
"""Zero bytes after the entries, so that a damaged last one can be read past its end: its fields
take 45 bytes at most."""
_FEW_LOOSE = 16
"""Entries of other forms from which on they are read together: fewer take less time singly."""
_LOOSE_GROUP = 16
"""Entries of other forms that count as one of `Limits.small_tensors` if they are read together:
each then takes 3 µs, and 40 µs by itself."""
_SHORT_SHAPE = 32
"""Bytes of a serialized shape with six dimensions below 2**14; longer ones are looked up singly."""
_MIXER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, an odd number: multiplying by it mixes all bits, and different
numbers stay different."""
_WIDTHS = np.array([item_size(code) or 0 for code in range(128)], np.int64)
_COUNTED = np.zeros_like(_WIDTHS, np.bool_)
_COUNTED[[DataType.DT_STRING, DataType.DT_VARIANT]] = True
_UNKNOWN = _WIDTHS == 0
"""Kinds whose size follows no rule. From 100 on they are references, which are never stored."""
_UNKNOWN[[DataType.DT_INVALID, DataType.DT_RESOURCE, *range(100, 128)]] = False
_UNKNOWN &= ~_COUNTED
_NEVER = (_WIDTHS == 0) & ~_COUNTED & ~_UNKNOWN
"""Kinds that are never stored, so that an entry of one breaks a rule."""


class EntryDecoder:
    """Decodes entries of one bundle, and remembers shapes that it has decoded."""

    def __init__(
        self,
        *,
        num_shards: int,
        limits: Limits,
        decode_entry: Callable[[bytes, bytes], BundleEntry],
        decode_shape: Callable[[bytes], Shape],
        held: Callable[[], int],
    ) -> None:
        """Set up a decoder.

        Args:
            num_shards: Number of data files, from the bundle's header.
            limits: Bounds on what an entry may ask for.
            decode_entry: Key and value -> checked entry, through the bindings.
            decode_shape: Serialized TensorShapeProto -> shape, through the bindings.
            held: Gives the bytes of the checkpoint's files.
        """
        self._num_shards = num_shards
        self._limits = limits
        self._decode_entry = decode_entry
        self._held = held
        self._loose = self._odd = 0
        self._shapes = Shapes(decode_shape, most_rank=limits.rank, take_odd=self._take_odd)

    def decode(self, table: TableColumns, skipped: int) -> EntryColumns:
        """Decode the entries of a table, without the first `skipped` ones.

        Raises:
            MalformedError, LimitError: As `BundleEntry.from_proto`.
            LimitError: With those before, too many are not written as protobuf writes them; those
                that are read together count as fewer.
        """
        contents, starts, ends = table.contents, table.starts[skipped:], table.ends[skipped:]
        padded = contents + bytes(_PADDING)
        scan = _scan(padded, starts, ends)
        loose = np.flatnonzero(~scan.plain)
        if len(loose) > _FEW_LOOSE:
            self._check_loose(len(loose))
            scan.take_loose(loose, padded, starts[loose], ends[loose])
        odd = int(np.count_nonzero(~scan.plain[loose]))
        if odd > _FEW_LOOSE:
            self._check_odd(odd)
        never = np.flatnonzero(scan.plain & _NEVER[scan.data_types])
        if len(never) and never[0] + 1 < len(starts):
            # This one is refused, or one before: nothing behind it need be looked at.
            self.decode(table.part(0, skipped + int(never[0]) + 1), skipped)
        shapes, elements = self._find_shapes(padded, scan.shape_starts, scan.shape_ends)
        plain = scan.plain & self._plausible(scan, elements)
        columns = EntryColumns(
            scan.data_types, scan.shard_ids, scan.offsets, scan.sizes, scan.crcs, shapes, {}
        )
        for row in np.flatnonzero(~plain).tolist():
            at = skipped + row
            _put(columns, row, self._decode_entry(table.key(at), table.value(at)))
        self._loose += len(loose)
        self._odd += odd
        return columns

    def _take_odd(self, count: int) -> None:
        """Count shapes that are not written as protobuf writes them."""
        self._check_odd(count)
        self._odd += count

    def _check_loose(self, count: int) -> None:
        what = f"groups of {_LOOSE_GROUP} entries that are not written as protobuf writes them"
        groups = -(-(self._loose + count) // _LOOSE_GROUP)
        check_small(self._limits, groups, self._held, what=what)

    def _check_odd(self, count: int) -> None:
        what = "entries that are not written as protobuf writes them, nor fit to be read together"
        check_small(self._limits, self._odd + count, self._held, what=what)

    def _find_shapes(
        self, padded: bytes, starts: IntColumn, ends: IntColumn
    ) -> tuple[list[Shape], IntColumn]:
        """Decode each serialized shape once; return for each row its shape and its elements."""
        first, which = _tell_apart(padded, starts, ends)
        met, counts = self._shapes.find(padded, starts[first], ends[first])
        # An array of objects gives each row its tuple without a loop.
        shapes = np.empty(len(met), np.object_)
        shapes[:] = met
        return shapes[which].tolist(), counts[which]

    def _plausible(self, scan: _Scan, elements: IntColumn) -> npt.NDArray[np.bool_]:
        """Tell which rows have fields that agree with each other; the others are decoded singly."""
        widths = _WIDTHS[scan.data_types]
        whole = np.maximum(widths, 1)
        fits: npt.NDArray[np.bool_] = (
            (widths > 0) & (scan.sizes % whole == 0) & (scan.sizes // whole == elements)
        )
        counted = _COUNTED[scan.data_types] & (elements <= scan.sizes)
        counted &= elements <= self._limits.strings
        fits |= counted | _UNKNOWN[scan.data_types]
        fits &= (elements >= 0) & (scan.shard_ids < self._num_shards)
        return fits


@dataclass(slots=True)
class _Scan:
    """The fields read from the bytes. A row is valid only if it is `plain`."""

    plain: npt.NDArray[np.bool_]
    data_types: IntColumn
    shape_starts: IntColumn
    shape_ends: IntColumn
    shard_ids: IntColumn
    offsets: IntColumn
    sizes: IntColumn
    crcs: IntColumn

    def take_loose(
        self, rows: IntColumn, padded: bytes, starts: IntColumn, ends: IntColumn
    ) -> None:
        """Read rows, which are not plain, in whatever way they are written."""
        from ckptparse.bundle.loose_fields import LooseFields

        found = LooseFields(np.frombuffer(padded, np.uint8), starts, ends)
        for column, values in (
            (self.plain, found.known),
            (self.data_types, found.data_types & 0x7F),
            (self.shape_starts, found.shape_starts),
            (self.shape_ends, found.shape_ends),
            (self.shard_ids, found.shard_ids),
            (self.offsets, found.offsets),
            (self.sizes, found.sizes),
            (self.crcs, _unmask(found.masked_crcs.astype(np.uint32))),
        ):
            column[rows] = values


def _scan(padded: bytes, starts: IntColumn, ends: IntColumn) -> _Scan:
    data = np.frombuffer(padded, np.uint8)
    # Tags: 08 dtype, 12 shape, 18 shard_id, 20 offset, 28 size, 35 crc32c (fixed32).
    at = starts
    heads = windows_of(data, 4)[at].view("<u4").astype(np.int64)
    # Bytes 0 and 2 are the tags; both numbers after them are below 80.
    plain = (heads & 0x80FF80FF) == 0x00120008
    # Of a row that is not plain it means nothing, but must be a number of the tables.
    data_types = heads >> 8 & 0x7F
    shape_starts = np.where(plain, at + 4, at)
    shape_ends = np.where(plain, at + 4 + (heads >> 24), at)
    plain &= shape_ends <= ends
    at = np.where(plain, shape_ends, starts)
    words = windows_of(data, 8)
    shard_ids, at, plain = _read_varint(data, words, 0x18, at, plain)
    offsets, at, plain = _read_varint(data, words, 0x20, at, plain)
    sizes, at, plain = _read_varint(data, words, 0x28, at, plain)
    # The checksum must be the last field; it is there unless it is 0.
    plain &= (data[at] == 0x35) & (at + 5 == ends)
    shape_ends = np.where(plain, shape_ends, shape_starts)
    return _Scan(
        plain, data_types, shape_starts, shape_ends, shard_ids, offsets, sizes, _read_crc(data, at)
    )


def _tell_apart(
    padded: bytes, starts: IntColumn, ends: IntColumn
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Find equal spans: return a row for each distinct span, and for each row its span's number."""
    sizes = ends - starts
    if not len(sizes) or sizes.max() > _SHORT_SHAPE:
        every = np.arange(len(sizes))
        return every, every
    width = max(8, -(-int(sizes.max()) // 8) * 8)
    words = windows_of(padded, width)[starts].view(np.uint64)
    words = words.reshape(-1, width // 8)
    words &= masks_of(sizes, width)
    # One number for each row sorts faster than its words. Equal numbers are compared below: other
    # sizes of the same words cannot have one, since no step makes different numbers equal.
    mixed = sizes.astype(np.uint64)
    for column in words.T:
        mixed = (mixed ^ column) * _MIXER
        mixed ^= mixed >> np.uint64(32)
    _, first, which = np.unique(mixed, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    if (words != words[first[which]]).any():
        every = np.arange(len(sizes))
        return every, every
    return first, which


def _read_varint(
    data: npt.NDArray[np.uint8],
    windows: npt.NDArray[np.void],
    tag: int,
    at: IntColumn,
    plain: npt.NDArray[np.bool_],
) -> tuple[IntColumn, IntColumn, npt.NDArray[np.bool_]]:
    """Read an optional varint field in every plain row; one of more than 9 bytes is not plain.

    Args:
        data: All bytes.
        windows: The same, as elements of 8 bytes.
        tag: The field's tag.
        at: Where it is in each row.
        plain: Which rows are plain.

    Returns:
        The values (0 if the field is left out), the positions after it, and which rows are plain.
    """
    here = plain & (data[at] == tag)
    if not here.any():
        return np.zeros(len(at), np.int64), at, plain
    words = windows[at + 1].view("<u8").astype(np.uint64)
    # The first byte whose high bit is not set is the last: all bits up to that are the varint's.
    stops = ~words & _HIGH_BITS
    own = stops ^ (stops - _ONE)
    groups = words & own & _LOW_BITS
    # Groups of 7 bits, of 14 and of 28 move together, side by side in each word.
    for lower, shift in _PAIRS:
        groups = groups & lower | (groups & ~lower) >> shift
    values: IntColumn = np.where(here, groups, 0).astype(np.int64)
    lengths: IntColumn = ((own & _ONES) * _ONES >> np.uint64(56)).astype(np.int64)
    longer = np.flatnonzero(here & (stops == 0))
    if len(longer):
        ninth = data[at[longer] + 9]
        values[longer] |= (ninth & 0x7F).astype(np.int64) << 56
        lengths[longer] = 9
        plain = plain.copy()
        plain[longer] = ninth < 0x80
    after: IntColumn = np.where(here, at + 1 + lengths, at)
    return values, after, plain


def _read_crc(data: npt.NDArray[np.uint8], at: IntColumn) -> IntColumn:
    return _unmask(windows_of(data, 4)[at + 1].view("<u4").astype(np.uint32))


def _unmask(crcs: npt.NDArray[np.uint32]) -> IntColumn:
    # Stored masked (section 1.4): the constant is added after rotating right by 15.
    unmasked = crcs - np.uint32(0xA282EAD8)
    rotated = unmasked >> np.uint32(17) | unmasked << np.uint32(15)
    column: IntColumn = rotated.astype(np.int64)
    return column


def _put(columns: EntryColumns, row: int, entry: BundleEntry) -> None:
    columns.data_types[row] = entry.data_type
    columns.shapes[row] = entry.shape
    columns.shard_ids[row] = entry.shard_id
    columns.offsets[row] = entry.offset
    columns.sizes[row] = entry.size
    columns.crcs[row] = entry.crc32c
    if entry.slices:
        columns.others[row] = entry
