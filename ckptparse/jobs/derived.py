"""Tensors made of others: cut, turned, converted; the values are worked out when they are read."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.content import Content, Write, content_of, content_of_array
from ckptparse.coding.checksum import crc32c
from ckptparse.dtypes import DataType, describe_data_type, element_name, item_size, numpy_dtype
from ckptparse.elements import iter_stored
from ckptparse.errors import UnsupportedError, located
from ckptparse.tensor_like import TensorLike

__all__ = ["FLOATS", "DerivedTensor", "RenamedTensor", "parse_dtype", "work_ahead"]

FLOATS = frozenset(
    code
    for code in DataType
    if code in (DataType.DT_FLOAT, DataType.DT_DOUBLE, DataType.DT_HALF, DataType.DT_BFLOAT16)
    or code.name.startswith("DT_FLOAT")
)
"""The kinds that `dtype` converts, and to which."""

_PIECE_ELEMENTS = 1 << 18


def parse_dtype(dtype: object) -> DataType:
    """Return the kind of floats that a numpy type, or its name, means.

    Raises:
        ValueError: It is no kind of floats.
    """
    names = {element_name(code): code for code in FLOATS}
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name  # type: ignore[call-overload]
    if name not in names:
        raise ValueError(f"dtype is one of {', '.join(sorted(names))}, not {name!r}")
    return names[name]


class RenamedTensor:
    """A tensor under another name."""

    __slots__ = ("_tensor", "name")

    def __init__(self, name: str, tensor: TensorLike) -> None:
        self.name = name
        self._tensor = tensor

    @property
    def original(self) -> TensorLike:
        """The tensor that has another name here."""
        return self._tensor

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

    def read(self) -> npt.NDArray[Any]:
        """Read the whole."""
        return self._tensor.read()

    def content(self) -> Content:
        """Return how its bytes are got: as those of the tensor itself."""
        return content_of(self._tensor)

    def __getitem__(self, index: Any, /) -> Any:
        """Read a part."""
        return self._tensor[index]


class DerivedTensor:
    """A tensor whose values are made of those of another."""

    __slots__ = ("_change", "_source_type", "_tensor", "data_type", "name", "shape")

    def __init__(
        self,
        name: str,
        tensor: TensorLike,
        shape: tuple[int, ...],
        change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
        *,
        data_type: int | None = None,
    ) -> None:
        """Set it up.

        Args:
            name: Its name.
            tensor: The tensor that it is made of.
            shape: Its shape.
            change: Makes of that tensor's array one of this shape.
            data_type: The kind that elements are then converted to, if it is another.
        """
        self.name = name
        self.shape = shape
        self.data_type = tensor.data_type if data_type is None else data_type
        self._tensor = tensor
        self._source_type = tensor.data_type
        self._change = change

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `TensorLike`."""
        return numpy_dtype(self.data_type)

    @property
    def nbytes(self) -> int:
        """See `TensorLike`."""
        width = item_size(self.data_type)
        return self._tensor.nbytes if width is None else math.prod(self.shape) * width

    def read(self) -> npt.NDArray[Any]:
        """Read it: C-ordered, of its kind."""
        with located(tensor=self._tensor.name):
            array = self._change(self._tensor.read())
            if self.data_type == self._source_type:
                return np.ascontiguousarray(array).reshape(array.shape)
            out = np.empty(array.shape, self.dtype)
            flat = out.reshape(-1)
            for start, part in _convert(array, self.data_type):
                flat[start : start + len(part)] = part
            return out

    def content(self) -> Content:
        """Return how its bytes are got: converted by the piece, as they are written."""
        with located(tensor=self._tensor.name):
            array = self._change(self._tensor.read())
            if self.data_type == self._source_type:
                return content_of_array(array, self.data_type)
            return _ConvertedContent(array, self.data_type)

    def __getitem__(self, index: Any, /) -> Any:
        """Read the whole, and pick a part."""
        return self.read()[index]


class _ConvertedContent:
    """The bytes of an array, converted piece by piece."""

    def __init__(self, array: npt.NDArray[Any], data_type: int) -> None:
        self._array = array
        self._data_type = data_type
        self.size = array.size * (item_size(data_type) or 0)

    def write_to(self, write: Write) -> int:
        """Write them; see `Content`."""
        crc = 0
        for _, part in _convert(self._array, self._data_type):
            for piece in iter_stored(part, self._data_type):
                crc = crc32c(piece, crc)
                write(piece)
        return crc


def _convert(array: npt.NDArray[Any], data_type: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Iterate over the pieces of an array, converted: where each starts, and its elements.

    Raises:
        UnsupportedError: A finite value is too large for the kind.
    """
    wanted = numpy_dtype(data_type)
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    for start in range(0, array.size, _PIECE_ELEMENTS):
        piece = flat[start : start + _PIECE_ELEMENTS]
        with np.errstate(over="ignore", invalid="ignore"):
            made = piece.astype(wanted)
        lost = np.isfinite(piece) & ~np.isfinite(made)
        if lost.any():
            largest = np.abs(piece[lost].astype(np.float64)).max()
            raise UnsupportedError(
                f"{describe_data_type(data_type)} cannot hold {largest:g}, nor any value so large",
                hint="Choose a kind of wider range, such as bfloat16, or leave the tensor out",
            )
        yield start, made


# Worked out ahead.

_AHEAD_BYTES = 64 << 20
_AHEAD_COUNT = 32


def work_ahead(tensors: Sequence[TensorLike], executor: Executor) -> list[TensorLike]:
    """Let an executor work out tensors that are changed, a few before they are asked for.

    They are to be asked for in this order. Those that are only copied are left as they are.
    """
    ahead = _Ahead(executor)
    return [ahead.take(tensor) if _is_changed(tensor) else tensor for tensor in tensors]


def _is_changed(tensor: TensorLike) -> bool:
    return isinstance(tensor, RenamedTensor) and isinstance(tensor.original, DerivedTensor)


class _Ahead:
    """Tensors in the order they will be asked for, the next few of them under way."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._waiting: deque[_AheadTensor] = deque()
        self._running: dict[str, Future[npt.NDArray[Any]]] = {}
        self._held: dict[str, int] = {}

    def take(self, tensor: TensorLike) -> TensorLike:
        made = _AheadTensor(tensor, self)
        self._waiting.append(made)
        return made

    def read(self, tensor: _AheadTensor) -> npt.NDArray[Any]:
        """Return the values of a tensor, and see to it that the next ones are under way."""
        self._submit()
        future = self._running.pop(tensor.name, None)
        self._held.pop(tensor.name, None)
        self._submit()
        return tensor.original.read() if future is None else future.result()

    def _submit(self) -> None:
        while self._waiting and len(self._running) < _AHEAD_COUNT:
            size = self._waiting[0].nbytes
            if self._running and sum(self._held.values()) + size > _AHEAD_BYTES:
                return
            tensor = self._waiting.popleft()
            self._running[tensor.name] = self._executor.submit(_read, tensor.original)
            self._held[tensor.name] = size


def _read(tensor: TensorLike) -> npt.NDArray[Any]:
    return tensor.read()


class _AheadTensor(RenamedTensor):
    """A tensor that is worked out ahead."""

    __slots__ = ("_ahead",)

    def __init__(self, tensor: TensorLike, ahead: _Ahead) -> None:
        super().__init__(tensor.name, tensor)
        self._ahead = ahead

    def read(self) -> npt.NDArray[Any]:
        """Read the whole."""
        return self._ahead.read(self)

    def content(self) -> Content:
        """Return its bytes, when they have been worked out."""
        return content_of_array(self.read(), self.data_type)
