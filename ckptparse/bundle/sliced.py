"""Tensors of a bundle that are stored in slices, each under a key of its own (section 2.6).

The entry of the tensor lists its slices. Each has an entry like a small tensor's, under a key made
of the tensor's name and of where the slice lies.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.index import BundleIndex
from ckptparse.bundle.many import DenseReader
from ckptparse.bundle.payload import BrokenPayload, SlicedPayload, make_payload
from ckptparse.bundle.shards import ShardFiles
from ckptparse.dtypes import describe_data_type, item_size
from ckptparse.errors import CheckpointError, MalformedError, located
from ckptparse.limits import Budget
from ckptparse.slices import SliceGrid, TensorSlice
from ckptparse.tensor import Payload, ReadOptions

__all__ = ["BundleSlices"]

_FEW_SLICES = 64
"""Up to so many are looked up one by one; for more the whole index is cheaper."""
_VERY_FEW_SLICES = 8
_SMALL_TENSOR = 1 << 18
"""Up to so many slices of a tensor of so many bytes are read one by one: 0.02 ms each."""


class BundleSlices:
    """Finds the values of entries, in one piece or in slices."""

    def __init__(self, index: BundleIndex, shards: ShardFiles) -> None:
        self._index = index
        self._shards = shards

    def payload(self, name: str, entry: BundleEntry) -> Payload:
        """Choose how the values of an entry are read."""
        if entry.slices:
            return _JoinedPayload(self, name, entry, path=self._index.path)
        return make_payload(self._shards, entry)

    def slice_payloads(self, name: str, entry: BundleEntry) -> tuple[SliceGrid, list[Payload]]:
        """Find the slices of a tensor; their payloads stand in the order of `entry.slices`.

        A slice that has no entry, or one that disagrees with the tensor, raises `MalformedError`
        when it is read.

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
        """Put a tensor together from many slices at once.

        None if they are too few and small to be worth it, or if one is not plainly right.
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

        options = replace(options, mmap=False)  # What is copied to its place needs no map.
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
                f"Slice {piece} of the tensor is missing: the index lists it and has no entry "
                "for it",
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
    """A tensor in slices; many slices are read at once, if nothing is unusual about them."""

    __slots__ = ("_slices_of",)

    def __init__(self, slices: BundleSlices, name: str, entry: BundleEntry, *, path: str) -> None:
        super().__init__(slices, name, entry, path=path)
        self._slices_of = slices

    def read(self, options: ReadOptions) -> npt.NDArray[Any]:
        """Read the whole, every slice checked by itself; see `Payload`."""
        together = self._slices_of.read_together(self._name, self._entry, options)
        return super().read(options) if together is None else together
