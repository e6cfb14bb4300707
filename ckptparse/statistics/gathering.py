"""`Gatherer` takes the pieces of a tensor and makes statistics.

Elements of at most 16 bits are only counted; everything else is calculated from the counts. For
larger elements a summary is made, and the codes are counted beside it. If all values have few codes
(weights around 1), the tensor is read once more, and counted in the range that is known by then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ckptparse.elements import is_masked
from ckptparse.statistics.codes import CodeTable, code_table, codes_of, to_numbers
from ckptparse.statistics.distribution import (
    BINS,
    Distribution,
    from_codes,
    from_ranges,
    from_values,
    is_too_coarse,
    shares,
)
from ckptparse.statistics.heat import HeatGatherer, HeatMap
from ckptparse.statistics.summary import Summary, summarize

__all__ = ["FEW", "Gatherer", "Measurable", "Measured", "iter_pieces", "measure"]

PIECE = 1 << 20
"""Bytes that are read at once: large enough for a disk, and small beside the program's memory."""
FEW = 1 << 14
"""So many elements are kept and measured exactly, not counted: at most 256 KiB as complex128."""
_AT_ONCE = 1 << 16
"""Elements that are worked on at once: they stay in the processor's cache."""
_FINE = 16
"""Ranges for each bin of the histogram, if values are counted in a known range. A quantile is then
wrong by one range at most: 1/1024 of the width."""


class Measurable(Protocol):
    """What is measured: a `Tensor`, an array, or anything else with the same indexing."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its kind of element."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """Read a part of it, an array."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """The statistics of a tensor.

    Attributes:
        summary: Smallest, largest, mean and the like.
        distribution: Histogram and quantiles; None if not asked for, or if no value is finite.
        heat_map: None if not asked for, or if there are fewer than two axes.
    """

    summary: Summary
    distribution: Distribution | None = None
    heat_map: HeatMap | None = None


def measure(
    tensor: Measurable,
    *,
    histogram: bool = False,
    heat_map: tuple[int, int] | None = None,
    piece: int = PIECE,
) -> Measured:
    """Measure a tensor; one piece is read at a time.

    Args:
        tensor: A `Tensor`, an array, or anything else with the same indexing.
        histogram: Whether a distribution is made.
        heat_map: How many rows and columns of blocks a heat map has at most.
        piece: How many bytes are read at once.

    Raises:
        CheckpointError: As for reading the tensor.
    """
    gatherer = Gatherer(tensor.dtype, histogram=histogram)
    heat = None
    if heat_map and len(tensor.shape) > 1 and 0 not in tensor.shape and tensor.dtype != object:
        heat = HeatGatherer(tensor.shape, heat_map)
    for part in iter_pieces(tensor, piece):
        gatherer.add(part)
        if heat is not None:
            heat.add(_as_floats(part))
    return Measured(
        gatherer.summary(),
        gatherer.distribution(lambda: iter_pieces(tensor, piece)),
        None if heat is None else heat.finish(),
    )


def iter_pieces(tensor: Measurable, piece: int = PIECE) -> Iterator[npt.NDArray[Any]]:
    """Iterate over a tensor's elements in order, as arrays of one dimension of so many bytes."""
    shape, width = tensor.shape, max(1, tensor.dtype.itemsize)
    if 0 in shape:
        # It has no elements, and may be damaged: its checksum, or a record that is not there.
        tensor[...]
        return
    most = max(1, piece // width)
    # Axes before `split` go one index at a time, the axis `split` in parts, later axes whole.
    split, below = len(shape), 1
    while split and below * shape[split - 1] <= most:
        split -= 1
        below *= shape[split]
    if split == 0 or tensor.dtype == object:
        yield np.asanyarray(tensor[...]).reshape(-1)
        return
    held = np.asanyarray(tensor[...]) if _is_read_whole(tensor) else tensor
    axis, step = split - 1, max(1, most // below)
    for outer in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], step):
            index = (*outer, slice(start, min(start + step, shape[axis])))
            yield np.asanyarray(held[index]).reshape(-1)


def _is_read_whole(tensor: Measurable) -> bool:
    """Tell whether a tensor is decoded, or read by another library, as a whole: once is enough."""
    payload = getattr(tensor, "payload", None)
    return any(getattr(one, "is_read_whole", False) for one in (tensor, payload))


class Gatherer:
    """Takes the elements of one tensor, some at a time, in any order."""

    def __init__(self, dtype: np.dtype[Any], *, histogram: bool = True) -> None:
        """Prepare for elements of one dtype."""
        self._table = code_table(dtype)
        self._histogram = histogram
        self._few: list[npt.NDArray[Any]] | None = []
        self._kept = 0
        self._numbers: npt.NDArray[Any] | None = None
        self._summary = Summary()
        self._counts: npt.NDArray[np.int64] | None = None

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take elements of that dtype; those that a masked array hides are left out."""
        flat = values.compressed() if is_masked(values) else values.reshape(-1)
        if self._few is not None:
            self._kept += flat.size
            if self._kept <= FEW:
                self._few.append(flat.copy())
                self._numbers = None
                return
            few, self._few = self._few, None
            for part in few:
                self._count(part)
        self._count(flat)

    def summary(self) -> Summary:
        """Return the summary of the elements so far."""
        if self._few is not None:
            return summarize(self._few_numbers())
        if self._table.exact and self._counts is not None:
            return _summary_of(self._counts, self._table)
        return self._summary

    def distribution(
        self, again: Callable[[], Iterator[npt.NDArray[Any]]] | None = None
    ) -> Distribution | None:
        """Return how the finite elements so far are distributed; None if there are none.

        Args:
            again: Gives the same elements once more, if they are too close together for codes.
        """
        if not self._histogram:
            return None
        if self._few is not None:
            return from_values(self._few_numbers())
        summary = self.summary()
        if summary.smallest is None or summary.largest is None:
            return None
        if self._counts is None:
            return None
        low, high = float(summary.smallest), float(summary.largest)
        if again is not None and is_too_coarse(self._table, low, high):
            return _count_in_range(again(), low, high)
        return from_codes(self._counts, self._table, low, high)

    def _few_numbers(self) -> npt.NDArray[Any]:
        # The summary asks for them, and the distribution again.
        if self._numbers is None:
            parts = [to_numbers(part) for part in self._few or ()]
            self._numbers = np.concatenate(parts) if parts else np.empty(0)
        return self._numbers

    def _count(self, flat: npt.NDArray[Any]) -> None:
        if self._counts is None and (self._histogram or self._table.exact):
            self._counts = np.zeros(self._table.size, np.int64)
        for start in range(0, flat.size, _AT_ONCE):
            part = flat[start : start + _AT_ONCE]
            if not self._table.exact:
                numbers = to_numbers(part)
                self._summary = self._summary.merge(summarize(numbers))
                part = numbers
            if self._counts is not None:
                self._counts += np.bincount(codes_of(part), minlength=self._counts.size)


def _summary_of(counts: npt.NDArray[np.int64], table: CodeTable) -> Summary:
    """Make the summary of values from the counts of their codes."""
    used = table.order[counts[table.order] > 0]
    values, many = table.values[used], counts[used]
    finite, elements = int(many.sum()), int(counts.sum())
    nan = int(counts[np.isnan(table.values)].sum())
    if not finite:
        return Summary(elements, 0, nan, elements - nan)
    mean = float((values * many).sum()) / finite
    squares = float(((values - mean) ** 2 * many).sum())
    return Summary(
        elements,
        finite,
        nan,
        elements - nan - finite,
        int(many[values == 0].sum()),
        table.number(values[0]),
        table.number(values[-1]),
        mean,
        math.sqrt(squares / finite),
    )


def _count_in_range(pieces: Iterator[npt.NDArray[Any]], low: float, high: float) -> Distribution:
    """Count values in ranges of equal width between the least and the greatest."""
    edges = np.linspace(low, high, BINS * _FINE + 1)
    counts = np.zeros(BINS * _FINE, np.int64)
    for piece in pieces:
        values = piece.compressed() if is_masked(piece) else piece.reshape(-1)
        for start in range(0, values.size, _AT_ONCE):
            with np.errstate(all="ignore"):
                numbers = to_numbers(values[start : start + _AT_ONCE]).astype(np.float64)
            inside = numbers[np.isfinite(numbers)]
            places = (shares(inside, low, high) * counts.size).astype(np.intp)
            places = np.minimum(places, counts.size - 1)
            counts += np.bincount(places, minlength=counts.size)
    used = np.flatnonzero(counts)
    return from_ranges(counts[used], edges[used], edges[used + 1], low, high)


def _as_floats(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if is_masked(part):
        hidden = np.ma.getmaskarray(part)
        with np.errstate(all="ignore"):
            part = to_numbers(part.data).astype(np.float64)
        part[hidden] = np.nan
    numbers = to_numbers(part)
    return numbers if numbers.dtype.kind == "f" else numbers.astype(np.float64)
