"""From bytes as stored to elements as numpy holds them (docs/format.md, sections 2.4 and 2.8).

Nothing is bit-packed: every element takes whole bytes. What is left to do: swap the bytes where
they were written in another order; make any non-zero byte of a bool true; drop the high bits of a
float4.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType
from ckptparse.errors import UnsupportedError

__all__ = ["allocate", "finish_elements", "needs_finishing"]

_FLOAT4_BITS = 0x0F


def allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Make an uninitialised array.

    Raises:
        UnsupportedError: numpy has no such shape, or there is no such memory.
    """
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise UnsupportedError(
            f"numpy {np.__version__} cannot make an array of {dtype} and shape {shape}: {error}",
            hint="Parts of it can be read: index the tensor, or pass mmap=True",
        ) from error


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
        # A complex number is two numbers, each swapped on its own.
        width = array.itemsize // 2 if array.dtype.kind == "c" else array.itemsize
        raw.view(f"u{width}").byteswap(inplace=True)
