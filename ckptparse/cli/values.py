"""Values of arrays as text, as JSON and in numbers that sum them up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.text import shape_text

__all__ = ["Statistics", "draw_histogram", "format_values", "values_to_json"]

_BINS = 40
_BARS = " ▁▂▃▄▅▆▇█"
_MOST_SHOWN = 1000
_CHUNK = 1 << 20
"""Elements that are summed up at a time."""


def format_values(array: npt.NDArray[Any], *, full: bool, width: int) -> Iterator[str]:
    """Write an array's values as numpy does, in lines; of many, the first and the last ones."""
    if array.dtype == object:
        yield from _format_objects(array, full=full)
        return
    threshold = array.size if full else _MOST_SHOWN
    text = np.array2string(array, max_line_width=width, threshold=max(1, threshold))
    yield from text.split("\n")


def _format_objects(array: npt.NDArray[Any], *, full: bool) -> Iterator[str]:
    """Write strings and variants one a line, with their indices."""
    shown = array.size if full else min(array.size, _MOST_SHOWN)
    for position in range(shown):
        index = tuple(int(i) for i in np.unravel_index(position, array.shape or (1,)))
        place = f"{shape_text(index)} " if array.shape else ""
        yield f"{place}{array.reshape(-1)[position]!r}"
    if shown < array.size:
        yield f"... {array.size - shown:,} more"


def values_to_json(array: npt.NDArray[Any], *, full: bool) -> Any:
    """Return nested lists of values, or None if they are too many and not all were asked for."""
    if array.size > _MOST_SHOWN and not full:
        return None
    return _nested(array.tolist())


def _nested(value: Any) -> Any:
    if isinstance(value, list):
        return [_nested(part) for part in value]
    return _json_value(value)


def _json_value(value: Any) -> Any:
    """Return a value that JSON can hold: bytes as text, what it lacks by its name."""
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, complex):
        return [_json_value(value.real), _json_value(value.imag)]
    if isinstance(value, str):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return int(number) if isinstance(value, np.generic) and number.is_integer() else number


@dataclass(frozen=True, slots=True)
class Statistics:
    """What sums values up. NaN and infinities are counted and otherwise left out."""

    elements: int
    finite: int
    nan: int
    infinite: int
    zeros: int
    smallest: int | float | None
    largest: int | float | None
    mean: float | None
    deviation: float | None

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> Statistics:
        """Sum up an array; of complex numbers, their magnitudes; of strings, their lengths."""
        flat = array.reshape(-1)
        parts = [_Part.of(part) for part in _iter_numbers(flat)]
        finite = sum(part.finite for part in parts)
        mean = math.fsum(part.total for part in parts) / finite if finite else None
        return cls(
            elements=flat.size,
            finite=finite,
            nan=sum(part.nan for part in parts),
            infinite=flat.size - finite - sum(part.nan for part in parts),
            zeros=sum(part.zeros for part in parts),
            smallest=min((part.smallest for part in parts if part.finite), default=None),
            largest=max((part.largest for part in parts if part.finite), default=None),
            mean=mean,
            deviation=None if mean is None else _deviation(flat, mean, finite),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def rows(self) -> Iterator[tuple[str, str]]:
        """Iterate over names and values; floats in the digits that tell them apart."""
        for name, value in self.to_dict().items():
            yield (
                name,
                "-"
                if value is None
                else f"{value:.9g}"
                if isinstance(value, float)
                else str(value),
            )


def draw_histogram(array: npt.NDArray[Any], statistics: Statistics) -> str:
    """Draw the finite values as a line of bars, from the smallest to the largest."""
    low, high = statistics.smallest, statistics.largest
    if low is None or high is None or low >= high:
        return ""
    counts = np.zeros(_BINS, np.int64)
    for part in _iter_numbers(array.reshape(-1)):
        numbers = part[np.isfinite(part)].astype(np.float64)
        # Halves: the whole width may be more than a float holds.
        shares = (numbers / 2 - low / 2) / (high / 2 - low / 2)
        bins = np.clip((shares * _BINS).astype(np.int64), 0, _BINS - 1)
        counts += np.bincount(bins, minlength=_BINS)
    # What is not empty shows, however little it is.
    heights = -(-counts * (len(_BARS) - 1) // counts.max())
    return "".join(_BARS[height] for height in heights)


@dataclass(frozen=True, slots=True)
class _Part:
    """What sums up some of the elements."""

    finite: int
    nan: int
    zeros: int
    smallest: int | float
    largest: int | float
    total: float

    @classmethod
    def of(cls, numbers: npt.NDArray[Any]) -> _Part:
        finite = numbers[np.isfinite(numbers)]
        return cls(
            finite=finite.size,
            nan=int(np.isnan(numbers).sum()),
            zeros=int((numbers == 0).sum()),
            smallest=finite.min().item() if finite.size else 0,
            largest=finite.max().item() if finite.size else 0,
            total=float(finite.sum(dtype=np.float64)),
        )


def _deviation(flat: npt.NDArray[Any], mean: float, finite: int) -> float:
    squares = (
        float(np.square(part[np.isfinite(part)].astype(np.float64) - mean).sum())
        for part in _iter_numbers(flat)
    )
    return math.sqrt(math.fsum(squares) / finite)


def _iter_numbers(flat: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Iterate over elements of any kind, some at a time, as numbers that numpy sums up."""
    for start in range(0, flat.size, _CHUNK):
        yield _numbers(flat[start : start + _CHUNK])


def _numbers(part: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if part.dtype == object:
        return np.array([len(x) if isinstance(x, bytes) else 0 for x in part], dtype=np.int64)
    if part.dtype.kind == "c":
        return np.asarray(np.abs(part))
    if part.dtype.kind == "b":
        return part.astype(np.int64)
    return part.astype(np.float64) if part.dtype.kind not in "iuf" else part
