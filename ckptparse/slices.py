"""Slices of a tensor: an extent for each dimension (docs/format.md, sections 2.3 and 2.7).

An extent is `start,length`, or `-` for the whole dimension. A whole dimension has two notations: of
a dimension of ten, `-` and `0,10` are the same elements, but they have different keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ckptparse.elements import distinct
from ckptparse.errors import LimitError, MalformedError
from ckptparse.tensor import Region

if TYPE_CHECKING:
    from ckptparse.proto.tensor_slice_pb2 import TensorSliceProto

__all__ = ["Extent", "SliceGrid", "TensorSlice"]

Bounds = npt.NDArray[np.int64]
"""Shape (number of slices, rank)."""

_MOST_COMPARISONS = 1 << 28
_MOST_SORTED = 1 << 26
"""With these bounds on comparisons and on sorted numbers, the check for overlaps takes a few
seconds at most. Slices of real checkpoints need far fewer."""
_INT64_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of one dimension; `length` is None for the whole dimension."""

    start: int = 0
    length: int | None = None

    def __str__(self) -> str:
        return "-" if self.length is None else f"{self.start},{self.length}"


@dataclass(frozen=True, slots=True)
class TensorSlice:
    """A rectangle of a tensor. Its text is TensorFlow's: `-:0,1` is column 0 of a matrix."""

    extents: tuple[Extent, ...]

    def __str__(self) -> str:
        return ":".join(map(str, self.extents))

    @classmethod
    def from_proto(cls, proto: Any) -> TensorSlice:
        """Make a slice from a TensorSliceProto.

        Raises:
            MalformedError: An extent starts below zero, is empty, or ends beyond 2**63 - 1.
        """
        return cls(tuple(_extent_from_proto(extent) for extent in proto.extent))

    def to_proto(self) -> TensorSliceProto:
        """Make the TensorSliceProto: an empty extent is the whole dimension."""
        from ckptparse.proto.tensor_slice_pb2 import TensorSliceProto

        proto = TensorSliceProto()
        for extent in self.extents:
            added = proto.extent.add()
            if extent.length is not None:
                added.start, added.length = extent.start, extent.length
        return proto

    def resolve(self, shape: Sequence[int]) -> Region:
        """Return the slice as ranges within a tensor of that shape.

        Raises:
            MalformedError: It has another rank, or is not within the shape.
        """
        if len(self.extents) != len(shape):
            raise MalformedError(
                f"Expected a slice of a tensor of shape {tuple(shape)}, found slice {self} of rank "
                f"{len(self.extents)}"
            )
        return tuple(map(self._resolve_extent, self.extents, shape))

    def _resolve_extent(self, extent: Extent, size: int) -> range:
        if extent.length is None:
            return range(size)
        end = extent.start + extent.length
        if end > size:
            raise MalformedError(
                f"Slice {self} is out of bounds: expected extents within the shape, found {extent} "
                f"of a dimension of {size}"
            )
        return range(extent.start, end)


def _extent_from_proto(proto: Any) -> Extent:
    if not proto.HasField("length"):
        if proto.start:
            raise MalformedError(f"Extent of a slice starts at {proto.start} and has no length")
        return Extent()
    start, length = proto.start, proto.length
    if start < 0 or length < 1 or start + length > _INT64_MAX:
        raise MalformedError(
            f"Expected an extent of a slice with start >= 0 and length >= 1, found {start},{length}"
        )
    return Extent(start, length)


class SliceGrid:
    """The slices of one tensor, checked: within its shape, and disjoint.

    Attributes:
        shape: Of the tensor.
        starts: Shape (number of slices, rank), int64: first index of each slice in each dimension.
        stops: The same: first index after it.
    """

    __slots__ = ("shape", "starts", "stops")

    def __init__(self, slices: Sequence[TensorSlice], shape: tuple[int, ...]) -> None:
        """Check the slices.

        Raises:
            MalformedError: A slice does not fit the shape, or overlaps another.
            LimitError: They are arranged so that the check for overlaps takes too long.
        """
        self.shape = shape
        self.starts, self.stops = _resolve_all(slices, shape)
        overlap = _find_overlap(self.starts, self.stops)
        if overlap is not None:
            first, second = sorted(overlap)
            raise MalformedError(f"Overlapping slices: {slices[first]} and {slices[second]}")

    def iter_overlaps(self, region: Region) -> Iterator[tuple[int, tuple[slice, ...], Region]]:
        """Iterate over the slices that hold a part of a region.

        Yields:
            The slice's number; where its part goes in an array of the region's lengths; and that
            part as ranges within the slice.
        """
        lows, highs = self._intersect(region)
        held = np.flatnonzero((lows < highs).all(axis=1))
        for number, starts, low, high in zip(
            held.tolist(),
            self.starts[held].tolist(),
            lows[held].tolist(),
            highs[held].tolist(),
            strict=True,
        ):
            local: list[range] = []
            for wanted, start, first, end in zip(region, starts, low, high, strict=True):
                part = wanted[first:end]
                local.append(range(part.start - start, part.stop - start, part.step))
            yield number, tuple(map(slice, low, high)), tuple(local)

    def find_missing(self, region: Region) -> str | None:
        """Return as text how many elements of a region no slice holds; None if all are held."""
        lows, highs = self._intersect(region)
        # Slices do not overlap and are within the shape, so the sum cannot exceed the tensor.
        held = int((highs - lows).prod(axis=1).sum())
        wanted = math.prod(map(len, region))
        return None if held == wanted else f"{wanted - held} of {wanted} elements"

    def _intersect(self, region: Region) -> tuple[Bounds, Bounds]:
        """Return which positions of a region each slice holds: from, and up to; see below."""
        first = np.array([wanted.start for wanted in region], np.int64)
        step = np.array([wanted.step for wanted in region], np.int64)
        length = np.array([len(wanted) for wanted in region], np.int64)
        lows = np.maximum(0, -((first - self.starts) // step))
        highs = np.minimum(length, -((first - self.stops) // step))
        return lows, np.maximum(lows, highs)


def _resolve_all(slices: Sequence[TensorSlice], shape: tuple[int, ...]) -> tuple[Bounds, Bounds]:
    """Return starts and stops of slices; raises as `TensorSlice.resolve` does."""
    rank = len(shape)
    for piece in slices:
        if len(piece.extents) != rank:
            piece.resolve(shape)
    extents = [extent for piece in slices for extent in piece.extents]
    sizes = np.array(shape, np.int64)
    starts, lengths = (
        np.array(flat, np.int64).reshape(len(slices), rank)
        for flat in (
            [extent.start for extent in extents],
            [-1 if extent.length is None else extent.length for extent in extents],
        )
    )
    stops = np.where(lengths < 0, sizes, starts + lengths)
    for number in np.flatnonzero((stops > sizes).any(axis=1)).tolist():
        slices[number].resolve(shape)
    return starts, stops


def _find_overlap(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> tuple[int, int] | None:
    """Return the numbers of two rectangles that overlap; None if none do.

    Rectangles on different sides of a straight cut do not overlap. Slices of real checkpoints can
    be separated by such cuts. Those that no cut separates are compared one by one.
    """
    pending = [np.arange(len(starts))]
    done = compared = 0
    while pending:
        group = pending.pop()
        if len(group) < 2:
            continue
        done += len(group)
        if done > _MOST_SORTED:
            raise _takes_too_long(len(starts))
        parts = _cut(starts[group], stops[group])
        if parts is None:
            overlap, count = _compare_all(starts[group], stops[group], _MOST_COMPARISONS - compared)
            compared += count
            if overlap is not None:
                return int(group[overlap[0]]), int(group[overlap[1]])
        else:
            pending.extend(group[part] for part in parts)
    return None


def _cut(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.intp]] | None:
    """Separate rectangles by cuts in the first dimension that allows it; None if none does."""
    for axis in range(starts.shape[1]):
        order = np.argsort(starts[:, axis], kind="stable")
        reach = np.maximum.accumulate(stops[order, axis])
        cuts = np.flatnonzero(starts[order[1:], axis] >= reach[:-1]) + 1
        if len(cuts):
            return np.split(order, cuts)
    return None


def _compare_all(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], most: int
) -> tuple[tuple[int, int] | None, int]:
    """Compare rectangles pair by pair, in the order of the dimension that separates most.

    Returns:
        Two that overlap, or None; and how many comparisons it took to know of none, of `most`.
    """
    if not starts.shape[1]:
        return (0, 1), 0
    axis = int(np.argmax([len(distinct(starts[:, axis])) for axis in range(starts.shape[1])]))
    order = np.argsort(starts[:, axis], kind="stable")
    starts, stops = starts[order], stops[order]
    beside = ((starts[1:] < stops[:-1]) & (stops[1:] > starts[:-1])).all(axis=1)
    if beside.any():
        first = int(beside.argmax())
        return (int(order[first]), int(order[first + 1])), 0
    reach = np.searchsorted(starts[:, axis], stops[:, axis])
    count = int((reach - np.arange(len(reach))).sum())
    if count > most:
        raise _takes_too_long(len(starts))
    # One dimension at a time, each in one piece of memory: numpy takes a tenth of the time so.
    edges = [(starts[:, axis].copy(), stops[:, axis].copy()) for axis in range(starts.shape[1])]
    for number, end in enumerate(reach.tolist()):
        rest = slice(number + 1, end)
        hits = [(low[rest] < high[number]) & (high[rest] > low[number]) for low, high in edges]
        hit = np.logical_and.reduce(hits)
        if hit.any():
            return (int(order[number]), int(order[number + 1 + int(hit.argmax())])), 0
    return None, count


def _takes_too_long(count: int) -> LimitError:
    return LimitError(
        f"{count} slices are arranged so that finding overlaps takes too long",
        hint="No setting allows it: slices of real checkpoints can be separated by straight cuts",
    )
