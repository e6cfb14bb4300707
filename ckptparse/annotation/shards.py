"""Every byte of a data file, by what the index beside it says (docs/format.md, section 2.4)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ckptparse.annotation.messages import annotate_message
from ckptparse.annotation.part import Annotation, shorten
from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.bundle.entry import BundleEntry, Endianness
from ckptparse.bundle.index import BundleIndex, Listing
from ckptparse.bundle.naming import decode_name, decode_slice_key
from ckptparse.coding.varint import decode_varints
from ckptparse.dtypes import DataType, describe_data_type, item_size, numpy_dtype
from ckptparse.errors import CheckpointError
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.files.context import Context
from ckptparse.files.storage import Source
from ckptparse.limits import Limits

__all__ = ["annotate_shard"]

_FEW = 4
"""Elements of a tensor that are shown: they fit into a line."""
_BLOCK = 4096
"""Lengths that are made Python's at once."""
_MOST_STRING_BYTES = 1 << 26
"""Larger string tensors are not taken apart."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A tensor, or a slice of one, in a data file."""

    name: str
    entry: BundleEntry


def annotate_shard(
    source: Source, prefix: str, shard_id: int, *, depth: int, context: Context
) -> Iterator[Annotation]:
    """Iterate over a data file's tensors in the order of their bytes; inside them if wanted.

    Raises:
        DataLossError: The index is damaged: what the bytes are is not known then.
    """
    with closing(BundleIndex.open(prefix + INDEX_SUFFIX, context)) as index:
        listing = index.listing()
        big_endian = index.header.endianness == Endianness.BIG
    annotator = _Annotator(source, big_endian=big_endian, wanted=depth, limits=context.limits)
    yield from annotator.annotate(_iter_pieces(listing, shard_id))


def _iter_pieces(listing: Listing, shard_id: int) -> Iterator[_Piece]:
    """Iterate over what lies in a data file, in the order of its bytes."""
    columns = listing.columns
    names: dict[int, str | bytes] = dict(zip(listing.numbers, listing.names, strict=True))
    for row in columns.others:
        names.pop(row, None)  # A tensor in slices has no bytes of its own.
    names.update((row, key) for key, row in listing.slice_rows.items())
    names.update((row, f"{name} {piece}") for name, piece, row in listing.orphans)
    rows = np.fromiter(names, np.intp, len(names))
    rows = rows[columns.shard_ids[rows] == shard_id]
    order = np.lexsort((columns.sizes[rows], columns.offsets[rows]))
    for row in rows[order].tolist():
        name = names[row]
        if isinstance(name, bytes):
            decoded = decode_slice_key(name)
            if decoded is None:
                continue
            name = f"{decode_name(decoded[0])} {decoded[1]}"
        yield _Piece(name, columns.entry(row))


def _overlapping(piece: _Piece, position: int, end: int) -> Annotation:
    """Tell of a tensor that begins in another only what is left of it.

    Entries that share bytes would else make a small file endless.
    """
    entry = piece.entry
    left = max(0, min(entry.offset + entry.size, end) - position)
    says = f"{entry.size} bytes from offset {entry.offset} on: they begin inside an earlier tensor"
    return Annotation(position, left, 0, f"tensor {piece.name}", says, broken=True)


class _Annotator:
    """Takes one data file apart."""

    def __init__(self, source: Source, *, big_endian: bool, wanted: int, limits: Limits) -> None:
        self.source = source
        self.wanted = wanted
        self.order: Literal["<", ">"] = ">" if big_endian else "<"
        self.limits = limits

    def annotate(self, pieces: Iterable[_Piece]) -> Iterator[Annotation]:
        """Iterate over the tensors, and over what lies between and after them."""
        position = 0
        end = self.source.size
        for piece in pieces:
            entry = piece.entry
            gap = min(entry.offset, end) - position
            if gap > 0:
                yield Annotation(position, gap, 0, "bytes that nothing refers to", broken=True)
            if entry.size and entry.offset < position:
                yield _overlapping(piece, position, end)
            else:
                yield from self._annotate_piece(piece)
            position = max(position, min(entry.offset + entry.size, end))
        if position < end:
            rest = end - position
            yield Annotation(position, rest, 0, "bytes that nothing refers to", broken=True)

    def _annotate_piece(self, piece: _Piece) -> Iterator[Annotation]:
        entry = piece.entry
        kind = describe_data_type(entry.data_type)
        shape = "[" + ",".join(map(str, entry.shape)) + "]"
        says = f"{kind} {shape}, crc32c {entry.crc32c:#010x}"
        there = max(0, min(entry.size, self.source.size - entry.offset))
        if there < entry.size:
            says += f", {entry.size - there:,} bytes are beyond the end of the file"
        name = f"tensor {piece.name}"
        start = min(entry.offset, self.source.size)
        yield Annotation(start, there, 0, name, says, broken=there < entry.size)
        if self.wanted and there == entry.size:
            yield from self._annotate_elements(piece)

    def _annotate_elements(self, piece: _Piece) -> Iterator[Annotation]:
        entry = piece.entry
        width = item_size(entry.data_type)
        if width is not None:
            size = min(entry.size, _FEW * width)
            if size:
                few = self._describe_elements(self.source.read_at(entry.offset, size), entry)
                more = " …" if size < entry.size else ""
                yield Annotation(entry.offset, entry.size, 1, "elements", few + more)
        elif entry.data_type == DataType.DT_STRING and entry.size <= _MOST_STRING_BYTES:
            yield from self._annotate_strings(piece)

    def _describe_elements(self, data: bytes, entry: BundleEntry) -> str:
        try:
            kind = numpy_dtype(entry.data_type)
        except CheckpointError:
            return shorten(data)
        if kind.itemsize > 1 and kind.isbuiltin == 1:
            kind = kind.newbyteorder(self.order)
        return " ".join(str(value) for value in np.frombuffer(data, kind))

    def _annotate_strings(self, piece: _Piece) -> Iterator[Annotation]:
        """Iterate over the lengths, their checksum and the strings."""
        offset = piece.entry.offset
        data = self.source.read_at(offset, piece.entry.size)
        try:
            count = math.prod(piece.entry.shape)
            lengths, position = decode_varints(np.frombuffer(data, np.uint8), count)
            (masked,) = struct.unpack_from(f"{self.order}I", data, position)
        except (ValueError, struct.error) as error:
            says = f"the lengths cannot be read: {error}"
            yield Annotation(offset, len(data), 1, "lengths", says, broken=True)
            return
        if position:
            few = " ".join(map(str, lengths[:8].tolist())) + (" …" if len(lengths) > 8 else "")
            yield Annotation(offset, position, 1, "lengths", few)
        yield Annotation(offset + position, 4, 1, "checksum of the lengths", f"{masked:#010x}")
        position += 4
        for number, length in enumerate(_iter_blockwise(lengths)):
            there = data[position : position + length]
            place = offset + min(position, len(data))
            cut = len(there) < length
            yield Annotation(place, len(there), 1, f"string {number}", shorten(there), broken=cut)
            if piece.name == OBJECT_GRAPH_KEY:
                yield from self._annotate_object_graph(there, place)
            position += length

    def _annotate_object_graph(self, data: bytes, offset: int) -> Iterator[Annotation]:
        """Take the one string apart that is a message."""
        from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph

        yield from annotate_message(
            data,
            TrackableObjectGraph.DESCRIPTOR,
            base=offset,
            depth=2,
            wanted=self.wanted,
            limits=self.limits,
        )


def _iter_blockwise(numbers: npt.NDArray[Any]) -> Iterator[int]:
    """Iterate over an array's numbers as Python's: a list of all would take four times as much."""
    for start in range(0, len(numbers), _BLOCK):
        yield from numbers[start : start + _BLOCK].tolist()
