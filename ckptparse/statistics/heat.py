"""`HeatMap`: a small picture of a matrix, the means of its blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["HeatGatherer", "HeatMap"]


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """The means of a matrix's blocks. Columns are the last axis, rows all other axes together.

    Attributes:
        shape: Of the matrix, in elements.
        means: Of each block, in float32; NaN if one of its elements is NaN.
    """

    shape: tuple[int, int]
    means: npt.NDArray[np.float32]


class HeatGatherer:
    """Takes the elements of a tensor in their order, and adds up the blocks they belong to."""

    def __init__(self, shape: Sequence[int], most: tuple[int, int]) -> None:
        """Set up for a tensor of at least one axis and one element, and so many blocks at most."""
        self._rows, self._columns = math.prod(shape[:-1]), shape[-1]
        self._tall = -(-self._rows // most[0])
        self._wide = -(-self._columns // most[1])
        blocks = -(-self._rows // self._tall), -(-self._columns // self._wide)
        self._sums = np.zeros(blocks)
        self._done = 0

    def add(self, numbers: npt.NDArray[np.float64] | npt.NDArray[np.float32]) -> None:
        """Take the next elements, of one dimension."""
        start = 0
        while start < numbers.size:
            row, column = divmod(self._done, self._columns)
            left = numbers.size - start
            rows = left // self._columns if column == 0 else 0
            count = rows * self._columns or min(left, self._columns - column)
            part = numbers[start : start + count]
            with np.errstate(all="ignore"):
                if rows:
                    self._add_rows(row, part.reshape(rows, self._columns))
                else:
                    self._add_columns(row, column, part)
            start += count
            self._done += count

    def _add_rows(self, row: int, part: npt.NDArray[np.float64] | npt.NDArray[np.float32]) -> None:
        first, last = row // self._tall, (row + len(part) - 1) // self._tall
        starts = np.maximum(np.arange(first, last + 1) * self._tall - row, 0)
        summed = np.add.reduceat(part, starts, axis=0, dtype=np.float64)
        columns = np.arange(0, self._columns, self._wide)
        self._sums[first : last + 1] += np.add.reduceat(summed, columns, axis=1)

    def _add_columns(
        self, row: int, column: int, part: npt.NDArray[np.float64] | npt.NDArray[np.float32]
    ) -> None:
        first, last = column // self._wide, (column + part.size - 1) // self._wide
        starts = np.maximum(np.arange(first, last + 1) * self._wide - column, 0)
        self._sums[row // self._tall, first : last + 1] += np.add.reduceat(
            part, starts, dtype=np.float64
        )

    def finish(self) -> HeatMap:
        """Return the means."""
        tall = _lengths(self._rows, self._tall)
        wide = _lengths(self._columns, self._wide)
        with np.errstate(all="ignore"):
            means = (self._sums / np.outer(tall, wide)).astype(np.float32)
        return HeatMap((self._rows, self._columns), means)


def _lengths(total: int, each: int) -> npt.NDArray[np.float64]:
    starts = np.arange(0, total, each)
    return np.minimum(starts + each, total) - starts.astype(np.float64)
