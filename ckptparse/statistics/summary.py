"""`Summary`: the statistics of values. The summaries of pieces can be merged into one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Summary", "squares_of", "summarize"]

_CHUNK = 1 << 16
"""Elements that are summed up at once: as float64 they stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of values. NaN and infinities are counted, and left out of everything else.

    Attributes:
        elements: How many there are.
        finite: How many of them are neither NaN nor infinite.
        nan: How many are NaN.
        infinite: How many are infinite.
        zeros: How many are 0, of either sign.
        smallest: The least finite value, exact; None if there is none.
        largest: The greatest finite value, likewise.
        mean: Of the finite values, in double precision; None if there is none.
        deviation: Their standard deviation (of the whole population), likewise.
        histogram: How many finite values are in each of 64 bins of one width, from the least to
            the greatest; None if it was not asked for, or if there is none.
    """

    elements: int = 0
    finite: int = 0
    nan: int = 0
    infinite: int = 0
    zeros: int = 0
    smallest: int | float | None = None
    largest: int | float | None = None
    mean: float | None = None
    deviation: float | None = None
    histogram: tuple[int, ...] | None = None

    def merge(self, other: Summary) -> Summary:
        """Return the summary of these values and others together, without a histogram."""
        finite = self.finite + other.finite
        mean, squares = _merge_moments(self, other)
        return Summary(
            self.elements + other.elements,
            finite,
            self.nan + other.nan,
            self.infinite + other.infinite,
            self.zeros + other.zeros,
            _pick(min, self.smallest, other.smallest),
            _pick(max, self.largest, other.largest),
            mean,
            None if squares is None else math.sqrt(squares / finite),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, with the histogram if there is one."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        bins = found.pop("histogram")
        return found if bins is None else {**found, "histogram": list(bins)}


def summarize(values: npt.NDArray[Any]) -> Summary:
    """Make the summary of an array of one dimension, with a dtype of numpy: integers or floats."""
    found = Summary()
    for start in range(0, values.size, _CHUNK):
        found = found.merge(_summarize_chunk(values[start : start + _CHUNK]))
    return found


def _summarize_chunk(chunk: npt.NDArray[Any]) -> Summary:
    elements, nan, infinite = chunk.size, 0, 0
    with np.errstate(all="ignore"):
        # A signalling NaN gives a warning when it is converted.
        numbers = chunk.astype(np.float64)
        total = float(numbers.sum())
        # If one value is not finite, the sum is not finite either; mostly the sum is all it takes.
        if not math.isfinite(total):
            nan = int(np.isnan(chunk).sum())
            finite = np.isfinite(chunk)
            chunk, numbers = chunk[finite], numbers[finite]
            infinite = elements - nan - chunk.size
    if not chunk.size:
        return Summary(elements, 0, nan, infinite)
    mean, deviation = _moments(numbers)
    return Summary(
        elements,
        chunk.size,
        nan,
        infinite,
        chunk.size - int(np.count_nonzero(chunk != 0)),
        chunk.min().item(),
        chunk.max().item(),
        mean,
        deviation,
    )


def _moments(numbers: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and deviation; values near the largest float64 are scaled down first."""
    with np.errstate(all="ignore"):
        mean = float(numbers.sum()) / numbers.size
        differences = numbers - mean
        # Not `dot`: it starts threads, which cost more than they save on so few numbers.
        squares = float(np.square(differences, out=differences).sum())
        if math.isfinite(squares):
            return mean, math.sqrt(squares / numbers.size)
        scale = float(np.abs(numbers).max())
        scaled = numbers / scale
        return float(scaled.mean()) * scale, float(scaled.std()) * scale


def _merge_moments(a: Summary, b: Summary) -> tuple[float | None, float | None]:
    """Return the mean of both, and the sum of squared differences from it."""
    if a.mean is None or a.deviation is None:
        return b.mean, None if b.deviation is None else squares_of(b.deviation, b.finite)
    if b.mean is None or b.deviation is None:
        return a.mean, squares_of(a.deviation, a.finite)
    share = b.finite / (a.finite + b.finite)
    # Not a.mean - b.mean: if the values are at both ends of float64, that is infinite.
    mean = a.mean * (1 - share) + b.mean * share
    between = squares_of(a.mean - mean, a.finite) + squares_of(b.mean - mean, b.finite)
    return mean, squares_of(a.deviation, a.finite) + squares_of(b.deviation, b.finite) + between


def squares_of(difference: float, count: int) -> float:
    """Return the square of a difference, so many times; infinity if no number is so large."""
    try:
        return difference**2 * count
    except OverflowError:
        return math.inf


Number = int | float | None


def _pick(choose: Callable[..., Number], a: Number, b: Number) -> Number:
    return choose((value for value in (a, b) if value is not None), default=None)
