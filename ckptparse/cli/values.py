"""Values of arrays as text, as JSON and in numbers that sum them up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import ckptparse
from ckptparse.text import shape_text

__all__ = ["draw_histogram", "format_values", "summary_rows", "values_to_json"]

_BARS = " ▁▂▃▄▅▆▇█"
_MOST_SHOWN = 1000
"""Values that are shown unless all are asked for: numpy's own bound for printing an array whole."""


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


def summary_rows(summary: ckptparse.Summary) -> Iterator[tuple[str, str]]:
    """Iterate over names and values; floats in the digits that tell them apart."""
    for name, value in summary.to_dict().items():
        if isinstance(value, float):
            yield name, f"{value:.9g}"
        elif not isinstance(value, list):
            yield name, "-" if value is None else str(value)


def draw_histogram(summary: ckptparse.Summary) -> str:
    """Draw the finite values as a line of bars, from the smallest to the largest."""
    counts = summary.histogram
    if counts is None or summary.smallest == summary.largest:
        return ""
    # What is not empty shows, however little it is.
    most = max(counts)
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)
