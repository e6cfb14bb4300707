"""`Distribution`: a histogram and quantiles, from counted codes or from the values themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.statistics.codes import CodeTable

__all__ = [
    "BINS",
    "QUANTILES",
    "Distribution",
    "from_codes",
    "from_ranges",
    "from_values",
    "is_too_coarse",
    "quantile_places",
    "shares",
    "shares_by_row",
]

BINS = 64
"""Bins of a histogram. It is printed as one line, one character for each bin."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_FEWEST_CODES = 256
"""With fewer codes between the ends, the histogram would show steps: this is 4 codes for a bin."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How finite values are distributed.

    Attributes:
        low: The left end of the histogram: the least value.
        high: Its right end: the greatest value.
        counts: How many values are in each of `BINS` bins of one width; a value between two bins
            is in the right one, and the greatest in the last.
        quantiles: For each share of `QUANTILES`, the value that so many values are below.
        exact: Whether counts and quantiles are exact; if not, values are wrong by 0.8% at most.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    quantiles: tuple[float, ...]
    exact: bool


def from_values(values: npt.NDArray[Any]) -> Distribution | None:
    """Make the exact distribution of few values; None if none is finite."""
    with np.errstate(all="ignore"):
        numbers = values.astype(np.float64)
    numbers = np.sort(numbers[np.isfinite(numbers)])
    if not numbers.size:
        return None
    low, high = float(numbers[0]), float(numbers[-1])
    counts = np.bincount(_bins_of(numbers, low, high), minlength=BINS)
    # A quantile is one of the values, never one between two: integers have no values between.
    found = tuple(numbers[quantile_places(numbers.size)].tolist())
    return Distribution(low, high, _whole(counts), found, exact=True)


def quantile_places(size: int) -> list[int]:
    """Return where the quantiles are among so many sorted values."""
    return [min(size - 1, int(share * size)) for share in QUANTILES]


def from_codes(
    counts: npt.NDArray[np.int64], table: CodeTable, smallest: float, largest: float
) -> Distribution:
    """Make the distribution of values whose codes were counted.

    Args:
        counts: By code.
        table: What the codes stand for.
        smallest: The least finite value; there is one.
        largest: The greatest.
    """
    ordered = counts[table.order]
    used = np.flatnonzero(ordered)
    many, low, high = ordered[used], table.low[used], table.high[used]
    if table.exact:
        bins = np.bincount(_bins_of(low, smallest, largest), weights=many, minlength=BINS)
        places = np.searchsorted(np.cumsum(many), _ranks(many), side="right")
        found = low[np.minimum(places, low.size - 1)]
        return Distribution(smallest, largest, _whole(bins), tuple(found.tolist()), exact=True)
    return from_ranges(many, low, high, smallest, largest)


def from_ranges(
    counts: npt.NDArray[np.int64],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    smallest: float,
    largest: float,
) -> Distribution:
    """Make the distribution of values that were counted by ranges.

    Args:
        counts: In each range, none of them 0.
        low: The left ends, rising.
        high: The right ends.
        smallest: The least value.
        largest: The greatest.
    """
    if smallest >= largest:
        constant = (smallest,) * len(QUANTILES)
        return Distribution(smallest, largest, _whole([counts.sum()]), constant, exact=True)
    # Each edge comes twice: the count of values below it grows inside a range, not between ranges.
    edges = shares(np.column_stack([low, high]).reshape(-1), smallest, largest)
    below = np.concatenate([[0], np.repeat(np.cumsum(counts), 2)])[: edges.size]
    at_ends = np.rint(np.interp(np.linspace(0, 1, BINS + 1), edges, below))
    at_ends[0], at_ends[-1] = 0, counts.sum()
    found = np.interp(_ranks(counts), below, edges)
    # Not from the width: if the values are at both ends of float64, the width is infinite.
    quantiles = smallest * (1 - found) + largest * found
    bins = np.diff(at_ends)
    return Distribution(smallest, largest, _whole(bins), tuple(quantiles.tolist()), exact=False)


def is_too_coarse(table: CodeTable, smallest: float, largest: float) -> bool:
    """Tell whether the values have so few codes that a histogram would show the codes."""
    if table.exact or smallest >= largest:
        return False
    first = np.searchsorted(table.high, smallest, side="right")
    last = np.searchsorted(table.low, largest, side="right")
    return bool(last - first < _FEWEST_CODES)


def _bins_of(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.intp]:
    return np.minimum((shares(values, low, high) * BINS).astype(np.intp), BINS - 1)


def shares(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """Return each value's place between the least (0) and the greatest (1)."""
    # Halves: the whole width may be too large for a float64.
    width = high / 2 - low / 2
    if width <= 0:
        return (values > low).astype(np.float64)
    return np.clip((values / 2 - low / 2) / width, 0, 1)


def shares_by_row(
    values: npt.NDArray[np.float64], low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return each value's place between the least and the greatest of its row.

    Args:
        values: Shape (n, m).
        low, high: Shape (n, 1): of each row.
    """
    width = high / 2 - low / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.clip((values / 2 - low / 2) / width, 0, 1)
    return np.where(width <= 0, values > low, between)


def _ranks(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.array(QUANTILES) * float(counts.sum())


def _whole(counts: Sequence[Any] | npt.NDArray[Any]) -> tuple[int, ...]:
    """Return `BINS` whole numbers; bins that are not given are empty."""
    return (*(int(count) for count in counts), *[0] * (BINS - len(counts)))
