"""Read tensors of a bundle that are stored in slices (docs/format.md, section 2.6).

The entry of the tensor lists its slices. Each slice has an entry like a small tensor, under a key
that is made of the tensor's name and the slice's extents.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.index import BundleIndex
from ckptparse.bundle.payload import BrokenPayload, SlicedPayload, make_payload
from ckptparse.bundle.shards import ShardFiles
from ckptparse.dtypes import describe_data_type, item_size
from ckptparse.errors import CheckpointError, MalformedError, located
from ckptparse.limits import Budget
from ckptparse.slices import SliceGrid, TensorSlice
from ckptparse.tensor import Payload, ReadOptions

__all__ = ["BundleSlices"]

_FEW_SLICES = 64
"""Up to so many slices are looked up singly. For more, decoding the whole index takes less time."""
_VERY_FEW_SLICES = 8
_SMALL_TENSOR = 1 << 18
"""Up to 8 slices of a tensor of up to 256 KiB are read one by one, at 0.02 ms each: planning a
common read takes longer."""


_MOST_CHECKED = 1 << 24
"""Bytes of a tensor whose slices are checked at once: so much memory that takes."""


class BundleSlices:
    """Finds the values of entries, whole or in slices."""

    slices_are_read_whole = False

    def __init__(self, index: BundleIndex, shards: ShardFiles) -> None:
        self._index = index
        self._shards = shards

    def payload(self, name: str, entry: BundleEntry) -> Payload:
        """Return the payload for an entry."""
        if entry.slices:
            return _JoinedPayload(self, name, entry, path=self._index.path)
        return make_payload(self._shards, entry)

    def slice_payloads(self, name: str, entry: BundleEntry) -> tuple[SliceGrid, list[Payload]]:
        """Find the slices of a tensor; their payloads are in the order of `entry.slices`.

        A slice without an entry, or with one that disagrees with the tensor, raises
        `MalformedError` when it is read.

        Raises:
            MalformedError: A slice does not fit the tensor, or overlaps another.
        """
        if len(entry.slices) > _FEW_SLICES:
            self._index.listing()
        grid = SliceGrid(entry.slices, entry.shape)
        payloads = [
            self._slice_payload(name, entry, piece, tuple(shape))
            for piece, shape in zip(entry.slices, (grid.stops - grid.starts).tolist(), strict=True)
        ]
        return grid, payloads

    def budget(self) -> Budget:
        """Begin to count what one call takes of the data files."""
        return self._shards.budget()

    def read_together(
        self, name: str, entry: BundleEntry, options: ReadOptions
    ) -> npt.NDArray[Any] | None:
        """Read all slices of a tensor at once.

        None if this is not faster because they are few and small, or if one breaks a rule.
        """
        width = item_size(entry.data_type)
        if width is None or (
            len(entry.slices) <= _VERY_FEW_SLICES
            and math.prod(entry.shape) * width <= _SMALL_TENSOR
        ):
            return None
        columns = self._slice_columns(name, entry)
        if columns is None:
            return None
        with located(path=self._index.path):
            grid = SliceGrid(entry.slices, entry.shape)
            lengths = list(map(tuple, (grid.stops - grid.starts).tolist()))
            if (
                (columns.data_types != entry.data_type).any()
                or columns.shapes != lengths
                or grid.find_missing(tuple(map(range, entry.shape))) is not None
            ):
                return None

        def name_of(row: int) -> str:
            return f"{name} {entry.slices[row]}"

        from ckptparse.bundle.many import DenseReader

        options = replace(options, mmap=False)  # Slices are copied to their place in any case.
        return DenseReader(self._shards, columns, name_of, options).assemble(grid)

    def _slice_columns(self, name: str, entry: BundleEntry) -> EntryColumns | None:
        """Return the entries of a tensor's slices; None if one is missing."""
        if len(entry.slices) <= _FEW_SLICES:
            found = [self._index.find_slice(name, piece) for piece in entry.slices]
            entries = [piece for piece in found if piece is not None and not piece.slices]
            whole = len(entries) == len(entry.slices)
            return EntryColumns.of_entries(entries) if whole else None
        listing = self._index.listing()
        rows = listing.parts[listing.rows[name]]
        if -1 in rows or not listing.columns.others.keys().isdisjoint(rows):
            return None
        return listing.columns.take(rows)

    def _slice_payload(
        self, name: str, whole: BundleEntry, piece: TensorSlice, shape: tuple[int, ...]
    ) -> Payload:
        try:
            return make_payload(self._shards, self._slice_entry(name, whole, piece, shape))
        except CheckpointError as error:
            return BrokenPayload(error)

    def _slice_entry(
        self, name: str, whole: BundleEntry, piece: TensorSlice, shape: tuple[int, ...]
    ) -> BundleEntry:
        entry = self._index.find_slice(name, piece)
        if entry is None:
            raise MalformedError(
                f"Expected an entry for slice {piece}, which the index lists; found none",
                path=self._index.path,
                tensor=name,
            )
        if entry.data_type != whole.data_type or entry.shape != shape or entry.slices:
            raise MalformedError(
                f"Slice {piece} disagrees with its tensor: expected "
                f"{describe_data_type(whole.data_type)} of shape {shape}, found "
                f"{describe_data_type(entry.data_type)} of shape {entry.shape}"
                f"{' in slices' if entry.slices else ''}",
                path=self._index.path,
                tensor=name,
            )
        return entry


class _JoinedPayload(SlicedPayload):
    """A tensor in slices. Many slices are read at once, if none breaks a rule."""

    __slots__ = ("_slices_of", "_verified")

    def __init__(self, slices: BundleSlices, name: str, entry: BundleEntry, *, path: str) -> None:
        super().__init__(slices, name, entry, path=path)
        self._slices_of = slices
        self._verified = False

    def verify(self, options: ReadOptions) -> None:
        """Check every slice, once; see `Payload`."""
        if not self._verified:
            if not self._is_sound(options):
                super().verify(options)
            self._verified = True

    def _is_sound(self, options: ReadOptions) -> bool:
        """Tell whether many small slices, read at once, are sound; else each is to be asked."""
        width = item_size(self._entry.data_type)
        if width is None or math.prod(self._entry.shape) * width > _MOST_CHECKED:
            return False
        how = replace(options, verify=True)
        try:
            return self._slices_of.read_together(self._name, self._entry, how) is not None
        except CheckpointError:
            return False

    def read(self, options: ReadOptions) -> npt.NDArray[Any]:
        """Read all of it; each slice has its own checksum; see `Payload`."""
        together = self._slices_of.read_together(self._name, self._entry, options)
        return super().read(options) if together is None else together
