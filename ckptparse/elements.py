"""Turn stored bytes into numpy's elements, and back (docs/format.md, sections 2.4 and 2.8).

Every element takes whole bytes; no bits are packed. Three things differ: the byte order of
big-endian files; a bool, of which any non-zero byte is true; the high bits of float4, which are
dropped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Literal, TypeGuard

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, component_size
from ckptparse.errors import UnsupportedError

__all__ = [
    "STRING_HEADER",
    "allocate",
    "distinct",
    "finish_elements",
    "is_masked",
    "iter_stored",
    "make_plain",
    "median",
    "needs_finishing",
    "object_bytes",
    "shaped",
    "sum_lengths",
    "unique",
]

_FLOAT4_BITS = 0x0F
_LOW_BITS: dict[int, int] = {
    DataType.DT_INT4: 0x0F,
    DataType.DT_UINT4: 0x0F,
    DataType.DT_INT2: 0x03,
    DataType.DT_UINT2: 0x03,
    DataType.DT_FLOAT4_E2M1FN: _FLOAT4_BITS,
}
"""The bits of a byte that types smaller than a byte use. The others are stored as 0."""
_PIECE_ELEMENTS = 1 << 18
STRING_HEADER = 48
"""Bytes of a `bytes` object besides its own, rounded as memory is given out."""


def allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Make an uninitialised array.

    Raises:
        UnsupportedError: numpy has no such shape, or there is not enough memory.
    """
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise UnsupportedError(
            f"numpy {np.__version__} cannot make an array of {dtype} and shape {shape}: {error}",
            hint="Read parts of it (index the tensor), or pass mmap=True",
        ) from error


def distinct(values: npt.NDArray[np.int64]) -> list[int]:
    """Return the values that occur, sorted.

    Args:
        values: Shape (n,).
    """
    numbers: list[int] = unique(values).tolist()
    return numbers


def unique(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the values that occur, sorted, as an array.

    Args:
        values: Shape (n,).
    """
    # Without the counts, numpy imports its masked arrays first, which takes 25 ms.
    return np.unique(values, return_counts=True)[0]


def median(values: npt.NDArray[np.float64]) -> float:
    """Return the value in the middle, or the mean of the two there.

    Args:
        values: Shape (n,): at least one, and no NaN.
    """
    # numpy's own imports its masked arrays, too.
    middle = len(values) // 2
    low, high = middle - 1 + len(values) % 2, middle
    return float(np.partition(values, (low, high))[[low, high]].mean())


def is_masked(array: npt.NDArray[Any]) -> TypeGuard[np.ma.MaskedArray[Any, np.dtype[Any]]]:
    """Tell whether an array marks elements as missing."""
    # Most arrays are numpy's own kind, for which its masked arrays need not be imported.
    return type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray)


def shaped(
    flat: npt.NDArray[Any], shape: tuple[int, ...], *, order: Literal["C", "F"] = "C"
) -> npt.NDArray[Any]:
    """Give a flat array its shape, which has as many elements.

    Raises:
        UnsupportedError: numpy has no such shape: too many dimensions, or too large beside a 0.
    """
    try:
        array: npt.NDArray[Any] = flat.reshape(shape, order=order)
    except ValueError as error:
        raise UnsupportedError(
            f"numpy {np.__version__} cannot make an array of {flat.dtype} and shape {shape}: "
            f"{error}"
        ) from error
    return array


def object_bytes(lengths: npt.NDArray[Any]) -> int:
    """Estimate what an array of strings of these lengths takes in memory, in bytes.

    Of each a pointer and an object, whose header has 33 bytes; those of one byte or none exist
    already.
    """
    longer = int(np.count_nonzero(lengths > 1))
    return 8 * len(lengths) + STRING_HEADER * longer + sum_lengths(lengths)


def sum_lengths(lengths: npt.NDArray[Any]) -> int:
    """Add exactly: the lengths of a hostile payload may add up to more than 64 bits hold."""
    most = int(lengths.max()) * len(lengths) if len(lengths) else 0
    return int(lengths.sum()) if most < 1 << 64 else sum(lengths.tolist())


def needs_finishing(data_type: int, *, big_endian: bool) -> bool:
    """Tell whether stored bytes of this kind may differ from numpy's."""
    foreign = big_endian != (sys.byteorder == "big")
    return foreign or data_type in (DataType.DT_BOOL, DataType.DT_FLOAT4_E2M1FN)


def finish_elements(array: npt.NDArray[Any], data_type: int, *, big_endian: bool) -> None:
    """Turn stored bytes into native elements, in place.

    Args:
        array: C-ordered and writable, its bytes as stored.
        data_type: Its DataType number.
        big_endian: The byte order of what stored them.
    """
    raw = array.reshape(-1).view(np.uint8)
    if data_type == DataType.DT_BOOL:
        np.minimum(raw, 1, out=raw)
    elif data_type == DataType.DT_FLOAT4_E2M1FN:
        np.bitwise_and(raw, _FLOAT4_BITS, out=raw)
    elif big_endian != (sys.byteorder == "big") and array.itemsize > 1:
        raw.view(f"u{component_size(data_type)}").byteswap(inplace=True)


def iter_stored(array: npt.NDArray[Any], data_type: int) -> Iterator[memoryview]:
    """Iterate over the bytes that a file stores for an array of numbers: little-endian, C-ordered.

    Little memory is used beside the array, whatever its byte order and its strides.

    Args:
        array: Its elements.
        data_type: Which kind they are; bytes of kinds below a byte have high bits of 0.
    """
    order = array.dtype.newbyteorder("<")
    mask = _LOW_BITS.get(data_type)
    plain = array.flags.c_contiguous and array.dtype == order and mask is None
    if plain and data_type != DataType.DT_BOOL:
        yield array.reshape(-1).view(np.uint8).data
        return
    # Of an array that is not contiguous, `reshape` would copy all: `flat` copies a part.
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    for start in range(0, array.size, _PIECE_ELEMENTS):
        part = flat[start : start + _PIECE_ELEMENTS].astype(order, copy=False)
        raw = part.view(np.uint8)
        if mask is not None:
            raw = np.bitwise_and(raw, mask)
        elif data_type == DataType.DT_BOOL:
            raw = np.minimum(raw, 1)
        yield raw.data


def make_plain(raw: npt.NDArray[np.uint8], data_type: int, *, big_endian: bool) -> bool:
    """Turn stored bytes into those that `iter_stored` gives for the same elements, in place.

    Args:
        raw: Whole elements, as stored.
        data_type: Their DataType number.
        big_endian: The byte order of what stored them.

    Returns:
        Whether any byte changed: nearly never.
    """
    most = 1 if data_type == DataType.DT_BOOL else _LOW_BITS.get(data_type)
    if most is not None:
        if raw.max(initial=0) <= most:
            return False
        combine = np.minimum if data_type == DataType.DT_BOOL else np.bitwise_and
        combine(raw, np.uint8(most), out=raw)
        return True
    width = component_size(data_type)
    if not big_endian or width == 1:
        return False
    raw.view(f"u{width}").byteswap(inplace=True)
    return True
