"""What whoever writes, converts or compares tensors asks of one, wherever it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, data_type_of, item_size
from ckptparse.errors import located

__all__ = [
    "ArrayTensor",
    "TensorLike",
    "WrappedTensor",
    "as_tensor",
    "as_tensors",
    "check_names",
    "data_type_of_array",
]


class TensorLike(Protocol):
    """A tensor by name, its values unread until asked for: of a checkpoint, a recovery, a file."""

    @property
    def name(self) -> str:
        """Its stored name."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions; `()` for a scalar."""
        ...

    @property
    def data_type(self) -> int:
        """Its `DataType`."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its numpy type, in native byte order; `object` for strings."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        ...

    def read(self) -> npt.NDArray[Any]:
        """Read the whole."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Read a part."""
        ...


Wrapped = TypeVar("Wrapped", bound=TensorLike)


class WrappedTensor(Generic[Wrapped]):
    """A tensor that has shape, kind and size of another, which it stands for."""

    __slots__ = ("_tensor",)

    def __init__(self, tensor: Wrapped) -> None:
        """Take the other tensor."""
        self._tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """See `TensorLike`."""
        return self._tensor.shape

    @property
    def data_type(self) -> int:
        """See `TensorLike`."""
        return self._tensor.data_type

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `TensorLike`."""
        return self._tensor.dtype

    @property
    def nbytes(self) -> int:
        """See `TensorLike`."""
        return self._tensor.nbytes


class ArrayTensor:
    """An array as a tensor. Nothing of it is copied."""

    __slots__ = ("_array", "data_type", "name")

    def __init__(self, name: str, array: npt.NDArray[Any], data_type: int | None = None) -> None:
        """Name an array; `data_type` is told by its type unless given.

        Raises:
            UnsupportedError: TensorFlow has no such kind of element.
        """
        self.name = name
        with located(tensor=name):
            self.data_type = data_type_of_array(array) if data_type is None else data_type
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """See `TensorLike`."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `TensorLike`."""
        dtype: np.dtype[Any] = self._array.dtype.newbyteorder("=")
        return dtype

    @property
    def nbytes(self) -> int:
        """See `TensorLike`; of strings, without their lengths."""
        width = item_size(self.data_type)
        if width is not None:
            return math.prod(self.shape) * width
        return sum(len(value) for value in self._array.flat if isinstance(value, (bytes, str)))

    def read(self) -> npt.NDArray[Any]:
        """Return the array itself."""
        return self._array

    def __getitem__(self, index: Any, /) -> Any:
        """Return a part of the array."""
        return self._array[index]

    def __repr__(self) -> str:
        return f"<ArrayTensor {self.name!r} shape={self.shape} {self.dtype}>"


def as_tensor(name: str, value: Any) -> TensorLike:
    """Take a tensor as it is; make one of anything else that numpy makes an array of.

    Raises:
        UnsupportedError: TensorFlow has no such kind of element.
    """
    if hasattr(value, "data_type") and hasattr(value, "read"):
        tensor: TensorLike = value
        return tensor
    if isinstance(value, (bytes, str)):
        # numpy's own bytes would lose the NULs at their end.
        text = np.empty((), object)
        text[()] = value
        return ArrayTensor(name, text)
    return ArrayTensor(name, np.asanyarray(value))


def as_tensors(tensors: Mapping[str, Any]) -> dict[str, TensorLike]:
    """Take every value of a mapping as a tensor.

    Raises:
        TypeError: One of its names is no text.
    """
    check_names(tensors)
    return {name: as_tensor(name, value) for name, value in tensors.items()}


def check_names(tensors: Mapping[str, Any]) -> None:
    """Refuse what is no mapping of names.

    Raises:
        TypeError: It is something else, or one of its names is no text.
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(f"Expected a mapping of names to values, found {type(tensors).__name__}")
    for name in tensors:
        if not isinstance(name, str):
            raise TypeError(f"A tensor's name is a str, not {type(name).__name__}")


def data_type_of_array(array: npt.NDArray[Any]) -> DataType:
    """Return the DataType that an array is stored as; see `data_type_of`."""
    if array.dtype == object and array.size:
        from ckptparse.tensor_proto import Variant

        if all(isinstance(value, Variant) for value in array.flat):
            return DataType.DT_VARIANT
    return data_type_of(array.dtype)
