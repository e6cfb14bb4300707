"""Elements as codes of 8 or 16 bits, which are counted; and what each code means.

A dtype of at most 16 bits has a code for each of its values, so counts of codes lose nothing. The
values of larger dtypes are rounded to float32, and the upper 16 bits are the code. They have 7 bits
of the mantissa, so the values of one code differ by less than 1 in 128, 0.8% (by more below 1e-38).
The codes are in the order of their values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CodeTable", "code_table", "codes_of", "to_numbers"]

_ROUNDED = 1 << 16
"""Codes of wider numbers: the upper 16 bits of their float32, as many as bfloat16 has."""
_LARGEST = float(np.finfo(np.float32).max)
_TEXTS = frozenset({bytes, str})


@dataclass(frozen=True, slots=True, eq=False)
class CodeTable:
    """What the codes of a dtype mean.

    Attributes:
        exact: Whether a code is one value.
        order: The codes of finite values, in the order of those.
        low: The least value of each code of `order`; of an exact one, the value.
        high: The greatest.
        values: Of an exact table, the value of every code; empty for any other.
        integers: Whether the values are integers.
    """

    exact: bool
    order: npt.NDArray[np.intp]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    integers: bool = False

    def number(self, value: Any) -> int | float:
        """Return a value of an exact table as a Python number."""
        return int(value) if self.integers else float(value)

    @property
    def size(self) -> int:
        """How many codes there are."""
        return self.values.size if self.exact else _ROUNDED


def to_numbers(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return elements as numbers that numpy can add, in one dimension.

    These are the magnitudes of complex numbers, the lengths of strings, and 0 for other objects.
    """
    flat = values.reshape(-1)
    if flat.dtype.kind in "OSU":
        items = flat.tolist()
        lengths: Iterable[int] = map(len, items)
        if not _TEXTS.issuperset(map(type, items)):
            lengths = (len(item) if isinstance(item, (bytes, str)) else 0 for item in items)
        return np.fromiter(lengths, dtype=np.int64, count=len(items))
    if flat.dtype.kind == "c":
        # The magnitude of a finite complex64 can be too large for float32, and become infinite.
        with np.errstate(all="ignore"):
            return np.asarray(np.abs(flat.astype(np.complex128)))
    if flat.dtype.kind == "b":
        return flat.view(np.uint8)
    if flat.dtype.kind in "iuf" and flat.dtype.isbuiltin == 1:
        return flat
    with np.errstate(all="ignore"):
        return flat.astype(np.int8 if _is_small_integer(flat.dtype) else np.float32)


def codes_of(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the codes of elements, as unsigned integers of one dimension."""
    flat = values.reshape(-1)
    if _has_exact_codes(flat.dtype):
        if _is_small_integer(flat.dtype):
            flat = flat.astype(np.int8)
        return flat.view(np.uint8 if flat.dtype.itemsize == 1 else np.uint16)
    numbers = to_numbers(flat)
    with np.errstate(all="ignore"):
        if numbers.dtype == np.float64:
            numbers = np.clip(numbers, -_LARGEST, _LARGEST)
        single = np.ascontiguousarray(numbers, dtype=np.float32)
    # In a little-endian float32, the upper half is the last one.
    upper = 1 if np.little_endian else 0
    return single.view(np.uint16)[upper::2]


def code_table(dtype: np.dtype[Any]) -> CodeTable:
    """Return what the codes of a dtype mean."""
    return _exact_table(dtype) if _has_exact_codes(dtype) else _rounded_table()


def _has_exact_codes(dtype: np.dtype[Any]) -> bool:
    return dtype.kind not in "OSUc" and dtype.itemsize <= 2


def _is_small_integer(dtype: np.dtype[Any]) -> bool:
    """Tell whether it is an integer of ml_dtypes, of fewer bits than a byte."""
    return dtype.isbuiltin != 1 and "int" in dtype.name


@lru_cache(maxsize=32)
def _exact_table(dtype: np.dtype[Any]) -> CodeTable:
    codes: npt.NDArray[Any] = np.arange(256, dtype=np.uint8)
    if dtype.itemsize == 2:
        codes = np.arange(1 << 16, dtype=np.uint16)
    elif dtype.name.startswith("float4"):
        codes = codes & 0x0F
    with np.errstate(all="ignore"):
        stored = np.dtype(np.int8) if _is_small_integer(dtype) else dtype
        stored = np.dtype(np.uint8) if stored.kind == "b" else stored
        values = codes.view(stored).astype(np.float64)
    finite = np.flatnonzero(np.isfinite(values))
    order = finite[np.argsort(values[finite], kind="stable")]
    integers = stored.kind in "iu"
    return CodeTable(True, order, values[order], values[order], values, integers)


@lru_cache(maxsize=1)
def _rounded_table() -> CodeTable:
    infinity = 0x7F80
    codes = np.arange(infinity + 1, dtype=np.uint32)
    edges = (codes << 16).view(np.float32).astype(np.float64)
    edges[infinity] = _LARGEST
    low, high = edges[:-1], edges[1:]
    positive = np.arange(infinity)
    return CodeTable(
        False,
        np.concatenate([positive[::-1] + (1 << 15), positive]),
        np.concatenate([-high[::-1], low]),
        np.concatenate([-low[::-1], high]),
        np.empty(0),
    )
