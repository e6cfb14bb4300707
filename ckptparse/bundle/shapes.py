"""Decode many serialized shapes of an index at once, dimension by dimension.

    shape   (12 n  08 size)*

A checkpoint has few shapes, so each is decoded once and remembered. If there are many, step k reads
dimension k of all of them. What has another form is left to the bindings, one by one, and counted:
no program writes it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.columns import Shape
from ckptparse.bundle.decoding import decode_plain_shape
from ckptparse.bundle.entry import count_elements
from ckptparse.elements import distinct
from ckptparse.errors import CheckpointError
from ckptparse.table.columns import IntColumn
from ckptparse.table.together import read_varints

__all__ = ["Shapes"]

_FEW = 32
"""Shapes up to which decoding one by one takes less time."""
_DIM, _SIZE = 0x12, 0x08
"""Tags of a dimension in a shape, and of its size in it."""
_HEAD = 3
"""Bytes of a dimension before its size: both tags, and how many bytes follow the first."""
_SIZE_BYTES = 9
"""Bytes of the longest size that is not negative."""
_ELEMENTS_MAX = 2**63 - 1
_BROKEN: tuple[Shape, int] = ((), -1)


class Shapes(dict[bytes, tuple[Shape, int]]):
    """Serialized shape -> shape and number of elements; -1 if its entry must be decoded singly."""

    def __init__(
        self,
        decode_shape: Callable[[bytes], Shape],
        *,
        most_rank: int,
        take_odd: Callable[[int], None],
    ) -> None:
        """Begin without any.

        Args:
            decode_shape: Serialized TensorShapeProto -> shape, through the bindings.
            most_rank: Dimensions of a shape at most.
            take_odd: Counts shapes of another form before they are decoded; it may refuse them.
        """
        super().__init__()
        self._decode_shape = decode_shape
        self._most_rank = most_rank
        self._take_odd = take_odd

    def find(
        self, padded: bytes, starts: IntColumn, ends: IntColumn
    ) -> tuple[list[Shape], IntColumn]:
        """Return the shape and the elements of each span; 16 bytes at least follow the last one."""
        if len(starts) > _FEW:
            return self._find_together(padded, starts, ends)
        met = [self[span] for span in _cut(padded, starts, ends)]
        return [shape for shape, _ in met], np.array([count for _, count in met], np.int64)

    def _find_together(
        self, padded: bytes, starts: IntColumn, ends: IntColumn
    ) -> tuple[list[Shape], IntColumn]:
        read = _Dimensions(np.frombuffer(padded, np.uint8), starts, ends, self._most_rank)
        shapes, counts = read.shapes(), read.counts
        odd = np.flatnonzero(~read.known)
        if len(odd):
            spans = _cut(padded, starts[odd], ends[odd])
            missing = {span for span in spans if span not in self}
            self._take_odd(len(missing))
            for span in missing:
                self._decode(span)
            for row, span in zip(odd.tolist(), spans, strict=True):
                shapes[row], counts[row] = self[span]
        return shapes, counts

    def __missing__(self, data: bytes) -> tuple[Shape, int]:
        if decode_plain_shape(data) is None:
            self._take_odd(1)
        return self._decode(data)

    def _decode(self, data: bytes) -> tuple[Shape, int]:
        try:
            shape = self._decode_shape(data)
            found = shape, count_elements(shape)
        except CheckpointError:
            found = _BROKEN
        self[data] = found
        return found


def _cut(padded: bytes, starts: IntColumn, ends: IntColumn) -> list[bytes]:
    bounds = zip(starts.tolist(), ends.tolist(), strict=True)
    return [padded[low:high] for low, high in bounds]


class _Dimensions:
    """The dimensions of some shapes.

    Attributes:
        known: Shape (n,): which of them have the common form, or break a rule. The others mean
            nothing.
        counts: Shape (n,): the elements of each; -1 if it breaks a rule.
    """

    def __init__(
        self, data: npt.NDArray[np.uint8], starts: IntColumn, ends: IntColumn, most: int
    ) -> None:
        """Read the shapes between `starts` and `ends`, of at most so many dimensions."""
        self.known = np.ones(len(starts), np.bool_)
        self.counts: IntColumn = np.ones(len(starts), np.int64)
        self._ranks: IntColumn = np.zeros(len(starts), np.int64)
        self._steps: list[tuple[IntColumn, IntColumn]] = []
        """Of each dimension the shapes that have it, and its sizes."""
        rows: IntColumn = np.arange(len(starts))
        at, stops = starts, ends
        for step in range(most + 1):
            going = at < stops
            rows, at, stops = rows[going], at[going], stops[going]
            if not len(rows):
                break
            sizes, after, good = _read_dimension(data, at, stops)
            self.known[rows[~good]] = False
            # A product that is too large breaks a rule, whatever follows, and so does a rank.
            fits = self.counts[rows] <= _ELEMENTS_MAX // np.maximum(sizes, 1)
            fits &= step < most
            self.counts[rows[good & ~fits]] = -1
            good &= fits
            rows, at, stops, sizes = rows[good], after[good], stops[good], sizes[good]
            self.counts[rows] *= sizes
            self._ranks[rows] += 1
            self._steps.append((rows, sizes))

    def shapes(self) -> list[Shape]:
        """Return each shape; those that break a rule are empty."""
        count = len(self._ranks)
        starts = np.cumsum(self._ranks) - self._ranks
        flat = np.empty(int(self._ranks.sum()), np.int64)
        for step, (rows, sizes) in enumerate(self._steps):
            flat[starts[rows] + step] = sizes
        found: list[Shape] = [()] * count
        ranks = np.where(self.counts < 0, 0, self._ranks)
        for rank in distinct(ranks[ranks > 0]):
            rows = np.flatnonzero(ranks == rank)
            made = zip(*flat[starts[rows] + np.arange(rank)[:, None]].tolist(), strict=True)
            if len(rows) == count:
                return list(made)
            for row, shape in zip(rows.tolist(), made, strict=True):
                found[row] = shape
        return found


def _read_dimension(
    data: npt.NDArray[np.uint8], at: IntColumn, stops: IntColumn
) -> tuple[IntColumn, IntColumn, npt.NDArray[np.bool_]]:
    """Read a dimension at each place.

    Returns:
        The sizes, the places after the dimensions, and which have the common form.
    """
    lengths = data[at + 1].astype(np.int64)
    # A size of 0 is left out.
    some = lengths > 0
    sizes, after, whole = read_varints(data, at + _HEAD, _SIZE_BYTES)
    good = some & whole & (data[at + 2] == _SIZE) & (after == at + 2 + lengths)
    good |= ~some
    sizes = np.where(some, sizes, 0)
    after = np.where(some, after, at + 2)
    good &= (data[at] == _DIM) & (after <= stops)
    return sizes, after, good
