"""TensorFlow's `DType`: the kinds of element as scripts ask for them.

tf.float32.name                "float32"
tf.float32.as_numpy_dtype      numpy.float32
tf.float32 == np.float32       True, as with "float32" and numpy's dtype
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ckptparse.dtypes import DataType, base_data_type, item_size, numpy_dtype
from ckptparse.errors import CheckpointError
from ckptparse.tf.missing import no_attribute

__all__ = ["DTYPES", "DType", "as_dtype"]

_REF = 100
"""A DataType plus 100 is a reference to that type."""
_QUANTIZED = {"qint8": "i1", "quint8": "u1", "qint16": "i2", "quint16": "u2", "qint32": "i4"}
_NAMES = {
    DataType.DT_HALF: "float16",
    **{kind: kind.name.removeprefix("DT_").lower() for kind in DataType if kind.name != "DT_HALF"},
}
_NAMES |= {DataType.DT_FLOAT: "float32", DataType.DT_DOUBLE: "float64"}
_COMPLEX = {DataType.DT_COMPLEX64: DataType.DT_FLOAT, DataType.DT_COMPLEX128: DataType.DT_DOUBLE}


class DType:
    """A kind of element."""

    __slots__ = ("_type_enum",)

    def __init__(self, type_enum: int) -> None:
        """Take the number of a DataType.

        Raises:
            TypeError: TensorFlow has no kind of that number.
        """
        base = base_data_type(int(type_enum))
        if base not in _NAMES or base == DataType.DT_INVALID:
            raise TypeError(f"Expected the number of a DataType, found {type_enum!r}")
        self._type_enum = int(type_enum)

    @property
    def as_datatype_enum(self) -> int:
        """The number of the DataType."""
        return self._type_enum

    @property
    def name(self) -> str:
        """Its name, such as `float32`; of a reference `float32_ref`."""
        base = self._base
        return _NAMES[base] + ("_ref" if self._type_enum != base else "")

    @property
    def as_numpy_dtype(self) -> Any:
        """The type of numpy, or of ml_dtypes: a class, as `numpy.float32`.

        Of quantized kinds it is a dtype with a field of the kind's name, as in TensorFlow.

        Raises:
            KeyError: numpy has none, as of resources and variants.
        """
        name = _NAMES[self._base]
        if name in _QUANTIZED:
            return np.dtype([(name, _QUANTIZED[name])])
        if self._base == DataType.DT_STRING:
            return object
        if self._base in (DataType.DT_RESOURCE, DataType.DT_VARIANT):
            raise KeyError(int(self._base))
        return numpy_dtype(self._base).type

    @property
    def base_dtype(self) -> DType:
        """The kind that a reference refers to; itself of any other."""
        return self if self._type_enum == self._base else DType(self._base)

    @property
    def real_dtype(self) -> DType:
        """The kind of the parts of complex numbers; itself of any other."""
        real = _COMPLEX.get(self._base)
        return self if real is None else DType(real)

    @property
    def size(self) -> int:
        """Bytes of one element; 0 for kinds of no fixed size."""
        return item_size(self._base) or 0

    @property
    def is_bool(self) -> bool:
        """Whether it is boolean."""
        return self._base == DataType.DT_BOOL

    @property
    def is_quantized(self) -> bool:
        """Whether it is one of the quantized kinds."""
        return _NAMES[self._base] in _QUANTIZED

    @property
    def is_integer(self) -> bool:
        """Whether it holds integers, and is not quantized."""
        name = _NAMES[self._base]
        return name.startswith(("int", "uint")) and not self.is_quantized

    @property
    def is_unsigned(self) -> bool:
        """Whether it holds integers that cannot be negative."""
        return self.is_integer and _NAMES[self._base].startswith("uint")

    @property
    def is_floating(self) -> bool:
        """Whether it holds floating-point numbers that are not complex."""
        return _NAMES[self._base].startswith(("float", "bfloat"))

    @property
    def is_complex(self) -> bool:
        """Whether it holds complex numbers."""
        return self._base in _COMPLEX

    @property
    def is_numpy_compatible(self) -> bool:
        """Whether numpy has a type for it."""
        return self._base not in (DataType.DT_RESOURCE, DataType.DT_VARIANT)

    def is_compatible_with(self, other: Any) -> bool:
        """Tell whether another kind is the same, or a reference to it."""
        return as_dtype(other).base_dtype == self.base_dtype

    @property
    def _base(self) -> DataType:
        return DataType(base_data_type(self._type_enum))

    def __eq__(self, other: object) -> bool:
        if other is None:
            return False
        try:
            return self._type_enum == as_dtype(other)._type_enum
        except TypeError:
            return False

    def __hash__(self) -> int:
        return self._type_enum

    def __repr__(self) -> str:
        return f"tf.{self.name}"

    def __str__(self) -> str:
        return f"<dtype: {self.name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return DType, (self._type_enum,)


DTYPES: dict[str, DType] = {
    name: DType(kind) for kind, name in _NAMES.items() if kind != DataType.DT_INVALID
}
"""Every kind by its name: `float32`, `string` ..."""

_BY_NAME = {**DTYPES, "half": DTYPES["float16"], "float": DTYPES["float32"]}
_BY_NAME |= {"double": DTYPES["float64"]}
_BY_NAME |= {f"{name}_ref": DType(kind.as_datatype_enum + _REF) for name, kind in DTYPES.items()}
_BY_CLASS: dict[object, str] = {float: "float32", bool: "bool", object: "string"}
_NO_KINDS: tuple[object, ...] = (None, int, str, bytes, complex)
"""What numpy takes for a type and TensorFlow does not."""


def __getattr__(name: str) -> DType:
    """Give `dtypes.float32` and all the others, which TensorFlow has as names of the module."""
    if name in DTYPES:
        return DTYPES[name]
    raise no_attribute(__name__, name)


def as_dtype(type_value: Any) -> DType:
    """Return the kind that a number, a name, a type of numpy or one of Python means.

    Raises:
        TypeError: It means none.
    """
    if isinstance(type_value, DType):
        return type_value
    if isinstance(type_value, int) and not isinstance(type_value, bool):
        return DType(type_value)
    if isinstance(type_value, str) and type_value in _BY_NAME:
        return _BY_NAME[type_value]
    if isinstance(type_value, type) and type_value in _BY_CLASS:
        return DTYPES[_BY_CLASS[type_value]]
    try:
        found = None if any(type_value is one for one in _NO_KINDS) else _find(np.dtype(type_value))
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"Expected a kind of element, found {type_value!r}")
    return found


def _find(wanted: np.dtype[Any]) -> DType | None:
    """Return the kind of a numpy dtype."""
    if wanted.kind in "OSU":
        return DTYPES["string"]
    if wanted.names is not None:
        return DTYPES[wanted.names[0]] if wanted.names[0] in _QUANTIZED else None
    for kind in DTYPES.values():
        if kind.is_quantized or not kind.is_numpy_compatible:
            continue
        try:
            if numpy_dtype(kind.as_datatype_enum) == wanted:
                return kind
        except (CheckpointError, ImportError):
            continue
    return None
