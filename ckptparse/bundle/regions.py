"""Find which bytes of a dense tensor hold a region of it, and read them.

`read_region` gets bytes only through the function that it is given. It asks for few runs: rows that
are less than a page apart are read as one run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.elements import allocate
from ckptparse.files.storage import ReadInto
from ckptparse.tensor import Region

__all__ = ["bytes_of", "read_region"]

_WINDOW = 1 << 20
"""Bytes that are read at once if some of them are not wanted, so that memory stays small."""
_NEGLIGIBLE_GAP = 4096
"""A gap below one page is read over: that costs less than a second read."""


def read_region(
    read_into: ReadInto, shape: tuple[int, ...], dtype: np.dtype[Any], region: Region
) -> npt.NDArray[Any]:
    """Read the product of some ranges from a dense tensor in C order.

    Args:
        read_into: Reads bytes of the tensor.
        shape: Of the tensor.
        dtype: Of its elements, as stored.
        region: One rising range for each dimension, within the shape.

    Returns:
        A new array of the ranges' lengths.

    Raises:
        UnsupportedError: numpy has no array of these lengths, or there is not enough memory.
        CheckpointError: As `read_into`.
    """
    out = allocate(tuple(map(len, region)), dtype)
    if out.size:
        _Reader(read_into, shape, dtype, region).fill(out, 0, 0)
    return out


class _Reader:
    """One region of one tensor, filled from the outermost dimension inwards."""

    def __init__(
        self, read_into: ReadInto, shape: tuple[int, ...], dtype: np.dtype[Any], region: Region
    ) -> None:
        self.read_into = read_into
        self.shape = shape
        self.dtype = dtype
        self.region = region

    def fill(self, out: npt.NDArray[Any], axis: int, offset: int) -> None:
        """Fill `out`, the part from `axis` inwards, of the tensor's bytes from `offset` on."""
        if self._is_run(axis):
            first = self.region[axis][0] if axis < len(self.shape) else 0
            self.read_into(offset + first * self._unit(axis), bytes_of(out))
            return
        wanted, unit = self.region[axis], self._unit(axis)
        rows = max(1, _WINDOW // (wanted.step * unit))
        if rows == 1 or wanted.step * unit - self._extent(axis + 1) > _NEGLIGIBLE_GAP:
            for number, row in enumerate(wanted):
                self.fill(
                    out[number : number + 1].reshape(out.shape[1:]), axis + 1, offset + row * unit
                )
            return
        for low, part in _chunks(wanted, rows):
            self._pick(out[low : low + len(part)], axis, offset, part)

    def _is_run(self, axis: int) -> bool:
        """Whether the region from `axis` inwards is one run of bytes."""
        if axis == len(self.shape):
            return True
        whole = all(
            len(wanted) == size
            for wanted, size in zip(self.region[axis + 1 :], self.shape[axis + 1 :], strict=True)
        )
        return whole and (self.region[axis].step == 1 or len(self.region[axis]) == 1)

    def _unit(self, axis: int) -> int:
        """Bytes between two neighbours along `axis`."""
        return math.prod(self.shape[axis + 1 :]) * self.dtype.itemsize

    def _extent(self, axis: int) -> int:
        """Bytes from the first to the last element wanted of one row from `axis` inwards."""
        spans = sum(
            (self.region[inner][-1] - self.region[inner][0]) * self._unit(inner)
            for inner in range(axis, len(self.shape))
        )
        return spans + self.dtype.itemsize

    def _pick(self, out: npt.NDArray[Any], axis: int, offset: int, rows: range) -> None:
        """Read all bytes from the first row to the last, and take the wanted rows."""
        count = rows[-1] - rows[0] + 1
        scratch = np.empty((count, *self.shape[axis + 1 :]), self.dtype)
        self.read_into(offset + rows[0] * self._unit(axis), bytes_of(scratch))
        picked = [slice(r.start, r[-1] + 1, r.step) for r in self.region[axis + 1 :]]
        index = (slice(None, None, rows.step), *picked)
        out[...] = scratch[index]


def _chunks(wanted: range, rows: int) -> Iterator[tuple[int, range]]:
    for low in range(0, len(wanted), rows):
        yield low, wanted[low : low + rows]


def bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of a C-ordered array, to be filled."""
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type] # numpy < 2.1
