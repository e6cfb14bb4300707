"""TensorFlow's DataType numbers and the numpy types they become (docs/format.md, section 4).

Every numeric kind takes a whole number of bytes an element, the sub-byte kinds one byte each with
the value in its low bits. The kinds that numpy lacks come from ml_dtypes (the extra of that name),
looked up when their values are first asked for: older releases lack some of them, and for some
platforms there is no ml_dtypes at all. Sizes and names are known without it.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.errors import MalformedError, UnsupportedError

__all__ = [
    "DataType",
    "component_size",
    "data_type_of",
    "describe_data_type",
    "dtype_name",
    "element_name",
    "has_numpy_type",
    "is_numeric",
    "item_size",
    "numpy_dtype",
    "plain_dtype",
    "plain_values",
    "widen_bfloat16",
]


class DataType(IntEnum):
    """The kinds of element, by the numbers that files hold. A reference type is its kind + 100."""

    DT_INVALID = 0
    DT_FLOAT = 1
    DT_DOUBLE = 2
    DT_INT32 = 3
    DT_UINT8 = 4
    DT_INT16 = 5
    DT_INT8 = 6
    DT_STRING = 7
    DT_COMPLEX64 = 8
    DT_INT64 = 9
    DT_BOOL = 10
    DT_QINT8 = 11
    DT_QUINT8 = 12
    DT_QINT32 = 13
    DT_BFLOAT16 = 14
    DT_QINT16 = 15
    DT_QUINT16 = 16
    DT_UINT16 = 17
    DT_COMPLEX128 = 18
    DT_HALF = 19
    DT_RESOURCE = 20
    DT_VARIANT = 21
    DT_UINT32 = 22
    DT_UINT64 = 23
    DT_FLOAT8_E5M2 = 24
    DT_FLOAT8_E4M3FN = 25
    DT_FLOAT8_E4M3FNUZ = 26
    DT_FLOAT8_E4M3B11FNUZ = 27
    DT_FLOAT8_E5M2FNUZ = 28
    DT_INT4 = 29
    DT_UINT4 = 30
    DT_INT2 = 31
    DT_UINT2 = 32
    DT_FLOAT4_E2M1FN = 33


_REF_OFFSET = 100
"""A DataType plus 100 is a reference to that type (section 4)."""
_KNOWN = frozenset(DataType) - {DataType.DT_INVALID}

_NUMPY_NAMES: dict[int, str] = {
    DataType.DT_FLOAT: "float32",
    DataType.DT_DOUBLE: "float64",
    DataType.DT_INT32: "int32",
    DataType.DT_UINT8: "uint8",
    DataType.DT_INT16: "int16",
    DataType.DT_INT8: "int8",
    DataType.DT_STRING: "object",
    DataType.DT_COMPLEX64: "complex64",
    DataType.DT_INT64: "int64",
    DataType.DT_BOOL: "bool",
    DataType.DT_QINT8: "int8",
    DataType.DT_QUINT8: "uint8",
    DataType.DT_QINT32: "int32",
    DataType.DT_QINT16: "int16",
    DataType.DT_QUINT16: "uint16",
    DataType.DT_UINT16: "uint16",
    DataType.DT_COMPLEX128: "complex128",
    DataType.DT_HALF: "float16",
    DataType.DT_VARIANT: "object",
    DataType.DT_UINT32: "uint32",
    DataType.DT_UINT64: "uint64",
}

_ML_DTYPES_NAMES: dict[int, str] = {
    DataType.DT_BFLOAT16: "bfloat16",
    DataType.DT_FLOAT8_E5M2: "float8_e5m2",
    DataType.DT_FLOAT8_E4M3FN: "float8_e4m3fn",
    DataType.DT_FLOAT8_E4M3FNUZ: "float8_e4m3fnuz",
    DataType.DT_FLOAT8_E4M3B11FNUZ: "float8_e4m3b11fnuz",
    DataType.DT_FLOAT8_E5M2FNUZ: "float8_e5m2fnuz",
    DataType.DT_INT4: "int4",
    DataType.DT_UINT4: "uint4",
    DataType.DT_INT2: "int2",
    DataType.DT_UINT2: "uint2",
    DataType.DT_FLOAT4_E2M1FN: "float4_e2m1fn",
}

_ITEM_SIZES: dict[int, int] = {
    code: np.dtype(name).itemsize for code, name in _NUMPY_NAMES.items() if name != "object"
} | {code: 2 if code == DataType.DT_BFLOAT16 else 1 for code in _ML_DTYPES_NAMES}


def base_data_type(data_type: int) -> int:
    """Return the DataType number of what a reference type refers to; another number as it is."""
    base = data_type - _REF_OFFSET
    return base if base in _KNOWN else data_type


def item_size(data_type: int) -> int | None:
    """Return the bytes one element takes in a data file; None for kinds of no fixed size."""
    return _ITEM_SIZES.get(data_type)


def component_size(data_type: int) -> int:
    """Return the bytes that change places together: a complex number is two numbers.

    1 for kinds of no fixed size.
    """
    width = _ITEM_SIZES.get(data_type, 1)
    halves = data_type in (DataType.DT_COMPLEX64, DataType.DT_COMPLEX128)
    return width // 2 if halves else width


def is_numeric(data_type: int) -> bool:
    """Tell whether elements of this kind have a fixed size."""
    return data_type in _ITEM_SIZES


def describe_data_type(data_type: int) -> str:
    """Return TensorFlow's name of a DataType number, or the number if it has none."""
    try:
        return DataType(data_type).name
    except ValueError:
        pass
    try:
        return f"{DataType(data_type - _REF_OFFSET).name}_REF"
    except ValueError:
        return f"DataType {data_type}"


@lru_cache(maxsize=256)
def dtype_name(data_type: int) -> str:
    """Return the name of a DataType's numpy (or ml_dtypes) type, installed or not.

    Strings and variants are `string` and `variant`; what no array has keeps TensorFlow's name.
    """
    if data_type == DataType.DT_STRING:
        return "string"
    if data_type == DataType.DT_VARIANT:
        return "variant"
    name = _NUMPY_NAMES.get(data_type) or _ML_DTYPES_NAMES.get(data_type)
    return describe_data_type(data_type) if name is None else name


_OTHER_NAMES: dict[int, str] = {
    DataType.DT_FLOAT: "float32",
    DataType.DT_DOUBLE: "float64",
    DataType.DT_HALF: "float16",
}


@lru_cache(maxsize=256)
def element_name(data_type: int) -> str:
    """Return the name of a kind of element, as numpy and ml_dtypes have it: `float32`, `bfloat16`.

    Strings and variants are `string` and `variant`; quantized kinds keep their own names (`qint8`);
    a reference type has `_ref` added; a number that no kind has is `kind-N`.
    """
    name = _OTHER_NAMES.get(data_type)
    if name is not None:
        return name
    for offset, suffix in ((0, ""), (_REF_OFFSET, "_ref")):
        try:
            kind = DataType(data_type - offset)
        except ValueError:
            continue
        return _OTHER_NAMES.get(kind, kind.name.removeprefix("DT_").lower()) + suffix
    return f"kind-{data_type}"


@cache
def numpy_dtype(data_type: int) -> np.dtype[Any]:
    """Return the numpy type of a DataType, in native byte order.

    Strings and variants are `object`; quantized kinds are the plain integers.

    Raises:
        MalformedError: No stored tensor has that DataType.
        UnsupportedError: ml_dtypes is not installed or has no such type, or nobody knows it.
    """
    name = _NUMPY_NAMES.get(data_type)
    if name is not None:
        return np.dtype(name)
    name = _ML_DTYPES_NAMES.get(data_type)
    if name is None:
        what = describe_data_type(data_type)
        if what.startswith("DT_"):
            raise MalformedError(f"Expected the DataType of a tensor, found {what}")
        raise UnsupportedError(
            f"{what} is none that TensorFlow 2.21 knows", hint="A newer ckptparse may know it"
        )
    return _ml_dtype(name)


@lru_cache(maxsize=64)  # numpy spells out a type's name anew each time
def data_type_of(dtype: np.dtype[Any]) -> DataType:
    """Return the DataType that arrays of a numpy (or ml_dtypes) type are stored as.

    Byte strings, text and objects are strings. A type of one field is the kind that the field is
    called by: `qint8` and its like in TensorFlow's own arrays, any kind that numpy lacks in files
    that `convert` has written. Plain integers are never such a kind.

    Raises:
        UnsupportedError: TensorFlow has no such kind.
    """
    if dtype.kind in "OSU":
        return DataType.DT_STRING
    names = dtype.names or ()
    found = _FIELDS.get(names[0]) if len(names) == 1 else _DATA_TYPES.get(dtype.name)
    if found is None:
        raise UnsupportedError(
            f"TensorFlow has no kind of element for numpy's {dtype}",
            hint="Convert the array to a kind that it has, such as float32, first",
        )
    return found


_QUANTIZED = {code for code in DataType if code.name.startswith("DT_Q")}
_FIELDS = {element_name(code): DataType(code) for code in (*_QUANTIZED, *_ML_DTYPES_NAMES)}
_DATA_TYPES = {
    name: DataType(code)
    for code, name in (*_NUMPY_NAMES.items(), *_ML_DTYPES_NAMES.items())
    if DataType(code) not in _QUANTIZED and name != "object"
}


def plain_dtype(data_type: int) -> np.dtype[Any]:
    """Return a little-endian numpy type for files that hold the bytes of a kind of numbers.

    Of a kind that numpy lacks, and of a quantized one, it has one field, called as the kind is:
    `[("bfloat16", "<u2")]`, `[("qint8", "|i1")]`. `data_type_of` knows the kind by it.

    Raises:
        UnsupportedError: Its elements have no fixed size.
    """
    name, width = _NUMPY_NAMES.get(data_type), _ITEM_SIZES.get(data_type)
    if width is None:
        raise UnsupportedError(f"{describe_data_type(data_type)} has no elements of a fixed size")
    if name is None or data_type in _QUANTIZED:
        own = np.dtype(name or f"u{width}").newbyteorder("<")
        return np.dtype([(element_name(data_type), own)])
    dtype: np.dtype[Any] = np.dtype(name).newbyteorder("<")
    return dtype


def has_numpy_type(data_type: int) -> bool:
    """Tell whether arrays can have the elements of a DataType: no package is lacking for it."""
    if data_type not in _ML_DTYPES_NAMES:
        return True
    try:
        numpy_dtype(data_type)
    except UnsupportedError:
        return False
    return True


def widen_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Return the values of bfloat16's bits, exactly: they are the upper half of float32's."""
    wide: npt.NDArray[np.uint32] = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _ml_dtype(name: str) -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError:
        raise UnsupportedError(
            f"numpy has no {name}; the package ml_dtypes has it, and is not installed",
            hint="Install it: pip install 'ckptparse[ml-dtypes]'" + _INSTEAD.get(name, ""),
        ) from None
    kind = getattr(ml_dtypes, name, None)
    if kind is None:
        from importlib import metadata

        raise UnsupportedError(
            f"The installed ml_dtypes {metadata.version('ml_dtypes')} has no {name}",
            hint="Install a newer ml_dtypes (0.5 has every kind)",
        )
    dtype: np.dtype[Any] = np.dtype(kind)
    return dtype


_INSTEAD = {"bfloat16": "; or convert the checkpoint to float32, which needs no package"}
"""What helps besides, by the name of a type."""


def plain_values(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the same values in a type of numpy's own, which any file of numpy can hold.

    bfloat16 and the small floats become float32, int4 and int2 int8, uint4 and uint2 uint8: each
    value, NaN and infinities too, is kept to the bit. Arrays of other types come as they are.
    """
    if type(array.dtype).__module__ == "numpy.dtypes" or array.dtype.isbuiltin == 1:
        return array
    kind = _WIDER.get(array.dtype.name)
    return array if kind is None else array.astype(kind)


_WIDER = {
    name: name.rstrip("24") + "8" if "int" in name else "float32"
    for name in _ML_DTYPES_NAMES.values()
}
"""Types of ml_dtypes -> types of numpy that have all their values."""
