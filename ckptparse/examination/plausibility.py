"""Tell whether bytes look like trained values, from their magnitudes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.columns import EntryColumns
from ckptparse.dtypes import DataType, item_size
from ckptparse.elements import median
from ckptparse.examination.payload import Form, Payload
from ckptparse.examination.readers import DataFiles
from ckptparse.parallel import PIECE_SIZE

__all__ = [
    "are_single_magnitudes",
    "has_magnitudes",
    "is_plausible",
    "looks_reversed",
    "told_order",
]

IntColumn = npt.NDArray[np.int64]

_MOSTLY = 0.95
"""Least share of usual values in trained weights. Random float32 and bfloat16 have 23%, random
float64 3%, random float16 66%."""


_FEWER = 0.9
"""Share of usual values below which the byte order is doubted, if most are usual in the other."""
_TIMES_LARGER = 1 << 16
"""How many times larger integers are in the wrong byte order: counters have some zero bytes."""


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
_DIFFERENT = {kind: 512 if kind == DataType.DT_HALF else 64 for kind in _USUAL}
"""Elements that must be different to tell a byte order: of random ones too many are usual."""
_LOOKED_AT = 1 << 16
"""Bytes of a tensor by which its byte order is told."""
_INTEGERS = {DataType.DT_INT32, DataType.DT_INT64, DataType.DT_UINT32, DataType.DT_UINT64}


def has_magnitudes(payload: Payload) -> bool:
    """Tell whether a payload has elements whose magnitudes tell something."""
    return payload.form is Form.PLAIN and payload.data_type in _USUAL


def are_single_magnitudes(columns: EntryColumns, rows: IntColumn) -> npt.NDArray[np.bool_]:
    """Tell of rows whether each is one element whose magnitude tells something."""
    found = np.zeros(len(rows), np.bool_)
    kinds, sizes = columns.data_types[rows], columns.sizes[rows]
    for kind in _USUAL:
        found |= (kinds == kind) & (sizes == item_size(kind))
    return found


def is_plausible(files: DataFiles, payload: Payload) -> bool:
    """Tell whether bytes look like trained values; other types than floats always do."""
    width = item_size(payload.data_type)
    if not has_magnitudes(payload) or not width:
        return True
    data = _first(files, payload, width)
    return _usual_share(data, payload.data_type, big_endian=payload.big_endian) > _MOSTLY


def looks_reversed(files: DataFiles, payload: Payload) -> bool:
    """Tell whether elements are usual numbers in the other byte order, and not in their own.

    If a header is lost, nothing proves the byte order. Of few elements it may not be told.
    """
    width = item_size(payload.data_type)
    if payload.form is not Form.PLAIN or not width or not payload.size:
        return False
    data = _first(files, payload, width)
    if payload.data_type in _USUAL:
        own, other = (
            _usual_share(data, payload.data_type, big_endian=big)
            for big in (payload.big_endian, not payload.big_endian)
        )
        return own < _FEWER and other > _MOSTLY
    if payload.data_type not in _INTEGERS:
        return False
    own, other = (
        median(np.abs(data.view(f"{order}i{width}").astype(np.float64)))
        for order in ("><" if payload.big_endian else "<>")
    )
    return own > _TIMES_LARGER * other


def told_order(files: DataFiles, payload: Payload) -> bool | None:
    """Tell whether floats are big-endian: usual numbers in this order, and not in the other.

    None if that is not so, or if few of them differ from each other.
    """
    width = item_size(payload.data_type) or 1
    held = (files.size(payload.file) or 0) - payload.offset
    count = min(payload.size, _LOOKED_AT, held) // width
    if count < _DIFFERENT[payload.data_type] or payload.offset < 0:
        return None
    data = np.frombuffer(files.read(payload.file, payload.offset, count * width), np.uint8)
    stored = data.view(f"u{width}")
    if len(np.unique(stored)) < _DIFFERENT[payload.data_type]:
        return None
    little, big = (
        _usual_share(data, payload.data_type, big_endian=order) for order in (False, True)
    )
    if min(little, big) >= _FEWER or max(little, big) <= _MOSTLY:
        return None
    return big > little


def _first(files: DataFiles, payload: Payload, width: int) -> npt.NDArray[np.uint8]:
    """Read the first elements, as many as a piece has."""
    count = min(payload.size, PIECE_SIZE) // width
    return np.frombuffer(files.read(payload.file, payload.offset, count * width), np.uint8)


def _usual_share(data: npt.NDArray[np.uint8], data_type: int, *, big_endian: bool) -> float:
    """Return the share of elements of a usual magnitude."""
    usual = _USUAL[data_type]
    stored = data.view((">" if big_endian else "<") + usual.stored)
    with np.errstate(invalid="ignore", over="ignore"):
        values = np.abs(_widened(stored))
        good = (values == 0) | ((values > usual.least) & (values < usual.most))
    return float(good.mean()) if good.size else 1.0


def _widened(stored: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return values as float64; 16 bits without a type are the upper half of a float32."""
    if stored.dtype.kind == "u":
        upper = stored.astype(np.uint32) << np.uint32(16)
        stored = upper.view(np.float32)
    widened: npt.NDArray[np.float64] = stored.astype(np.float64)
    return widened
