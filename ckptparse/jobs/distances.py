"""How far the elements of two tensors lie apart: of one pair, or of many small pairs at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.elements import distinct
from ckptparse.statistics.codes import to_numbers

__all__ = ["Distance", "Tolerance", "measure_distance", "measure_distances"]

Array = npt.NDArray[Any]


class Tolerance(NamedTuple):
    """Numbers are equal if they differ by at most `atol + rtol * abs(second)`."""

    rtol: float
    atol: float


class Distance(NamedTuple):
    """How far elements lie apart.

    Attributes:
        differing: How many differ.
        largest: The largest finite difference; 0 if there is none.
        total: The sum of the finite differences.
    """

    differing: int = 0
    largest: float = 0.0
    total: float = 0.0

    def plus(self, other: Distance) -> Distance:
        """Return that of these elements and others."""
        return Distance(
            self.differing + other.differing,
            max(self.largest, other.largest),
            self.total + other.total,
        )


def measure_distance(one: Array, other: Array, tolerance: Tolerance) -> Distance:
    """Measure two arrays of as many elements."""
    if one.dtype == other.dtype and one.tobytes() == other.tobytes():
        return Distance()
    distance, unequal = _distances(one, other, tolerance)
    differing = int(np.count_nonzero(unequal))
    finite = distance[np.isfinite(distance)]
    if not finite.size:
        return Distance(differing)
    return Distance(differing, max(0.0, float(finite.max())), float(finite.sum()))


def measure_distances(pairs: Sequence[tuple[Array, Array]], tolerance: Tolerance) -> list[Distance]:
    """Measure many pairs of small arrays, each as `measure_distance` does.

    Pairs of the same kinds and as many elements are the rows of two matrices.
    """
    groups: dict[tuple[np.dtype[Any], np.dtype[Any], int], list[int]] = defaultdict(list)
    for number, (one, other) in enumerate(pairs):
        groups[one.dtype, other.dtype, one.size].append(number)
    found = [Distance()] * len(pairs)
    for (_, _, size), numbers in groups.items():
        if not size:
            continue
        ones = np.concatenate([pairs[number][0].reshape(-1) for number in numbers])
        others = np.concatenate([pairs[number][1].reshape(-1) for number in numbers])
        distance, unequal = _distances(ones, others, tolerance)
        rows = distance.reshape(-1, size)
        differing = np.count_nonzero(unequal.reshape(-1, size), axis=1).tolist()
        largest, totals = _sum_finite(rows)
        for number, made in zip(numbers, zip(differing, largest, totals, strict=True), strict=True):
            found[number] = Distance(*made)
    return found


def _sum_finite(rows: npt.NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Return the largest and the sum of the finite numbers of each row."""
    largest, totals = np.zeros(len(rows)), np.zeros(len(rows))
    finite = np.isfinite(rows)
    kept = finite.sum(axis=1)
    for many in distinct(kept):
        if many:
            numbers = np.flatnonzero(kept == many)
            # In the order that they have, so that the sum is rounded as that of one pair.
            inside = rows[numbers][finite[numbers]].reshape(len(numbers), many)
            largest[numbers] = np.maximum(inside.max(axis=1), 0.0)
            totals[numbers] = inside.sum(axis=1)
    return largest.tolist(), totals.tolist()


def _distances(
    one: Array, other: Array, tolerance: Tolerance
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return how far elements lie apart, in double precision, and which count as different."""
    # Signalling NaNs give a warning whatever is done with them.
    with np.errstate(invalid="ignore", over="ignore"):
        a, b = _numbers(one), _numbers(other)
        distance = np.abs(a - b)
        near = distance <= tolerance.atol + tolerance.rtol * np.abs(b)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, distance), ~(near | same)


def _numbers(values: Array) -> Array:
    """Return elements as doubles, complex numbers as complex ones."""
    if values.dtype.kind == "c":
        return values.astype(np.complex128)
    return to_numbers(values).astype(np.float64)
