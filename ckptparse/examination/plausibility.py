"""Tell whether bytes look like trained values, from their magnitudes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, item_size
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.readers import DataFiles
from ckptparse.parallel import PIECE_SIZE

__all__ = ["has_magnitudes", "is_plausible"]

_MOSTLY = 0.95
"""Least share of usual values in trained weights. Random float32 and bfloat16 have 23%, random
float64 3%, random float16 66%."""


class _Usual(NamedTuple):
    """Magnitudes of the values that training leaves, besides 0."""

    stored: str
    """How a value is stored, without its byte order."""
    least: float
    most: float


_USUAL: dict[int, _Usual] = {
    DataType.DT_FLOAT: _Usual("f4", 1e-12, 1e6),
    DataType.DT_DOUBLE: _Usual("f8", 1e-12, 1e6),
    # Its exponents end at 2^15; 21 of 32 are below 2^6.
    DataType.DT_HALF: _Usual("f2", 0.0, 64.0),
    DataType.DT_BFLOAT16: _Usual("u2", 1e-12, 1e6),
}


def has_magnitudes(payload: Payload) -> bool:
    """Tell whether a payload has elements whose magnitudes tell something."""
    return payload.form is Form.PLAIN and payload.data_type in _USUAL


def is_plausible(files: DataFiles, payload: Payload) -> bool:
    """Tell whether bytes look like trained values; other types than floats always do."""
    width = item_size(payload.data_type)
    if not has_magnitudes(payload) or not width:
        return True
    usual = _USUAL[payload.data_type]
    count = min(payload.size, PIECE_SIZE) // width
    data = files.read(payload.file, payload.offset, count * width)
    stored = np.frombuffer(data, (">" if payload.big_endian else "<") + usual.stored)
    with np.errstate(invalid="ignore", over="ignore"):
        values = np.abs(_widened(stored))
        good = (values == 0) | ((values > usual.least) & (values < usual.most))
    return bool(good.mean() > _MOSTLY)


def _widened(stored: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return values as float64; 16 bits without a type are the upper half of a float32."""
    if stored.dtype.kind == "u":
        upper = stored.astype(np.uint32) << np.uint32(16)
        stored = upper.view(np.float32)
    widened: npt.NDArray[np.float64] = stored.astype(np.float64)
    return widened
