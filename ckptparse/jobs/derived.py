"""Tensors made of others: cut, turned, converted; the values are worked out when they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.backend.small import Sized, read_small
from ckptparse.bundle.content import (
    Content,
    Write,
    content_of,
    content_of_array,
    read_bits,
    write_pieces,
)
from ckptparse.dtypes import (
    DataType,
    describe_data_type,
    element_name,
    has_numpy_type,
    item_size,
    numpy_dtype,
    widen_bfloat16,
)
from ckptparse.elements import iter_stored
from ckptparse.errors import UnsupportedError, located
from ckptparse.tensor_like import ArrayTensor, TensorLike, WrappedTensor

__all__ = ["FLOATS", "DerivedTensor", "RenamedTensor", "Step", "parse_dtype", "readable"]

FLOATS = frozenset(
    code
    for code in DataType
    if code in (DataType.DT_FLOAT, DataType.DT_DOUBLE, DataType.DT_HALF, DataType.DT_BFLOAT16)
    or code.name.startswith("DT_FLOAT")
)
"""The kinds that `dtype` converts, and to which."""

_PIECE_ELEMENTS = 1 << 18
"""Elements that are converted at once: their temporary arrays stay small, 2 MiB as float64."""


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


def readable(tensor: TensorLike) -> TensorLike:
    """Return a tensor whose values numpy can hold: of bfloat16 those of float32, if need be.

    Raises:
        CheckpointError: It cannot be read.
    """
    if tensor.data_type != DataType.DT_BFLOAT16 or has_numpy_type(tensor.data_type):
        return tensor
    return ArrayTensor(tensor.name, widen_bfloat16(read_bits(tensor)))


class RenamedTensor(WrappedTensor[TensorLike]):
    """A tensor under another name."""

    __slots__ = ("name",)

    def __init__(self, name: str, tensor: TensorLike) -> None:
        super().__init__(tensor)
        self.name = name

    @property
    def original(self) -> TensorLike:
        """The tensor that has another name here."""
        return self._tensor

    def read(self) -> npt.NDArray[Any]:
        """Read the whole."""
        return self._tensor.read()

    @classmethod
    def read_together(cls, batch: Sequence[Sized]) -> list[npt.NDArray[Any] | None]:
        """Read many, as those that they are; see `read_small`."""
        return read_small(
            [
                Sized(one.name, one.tensor.original, one.nbytes)
                for one in batch
                if isinstance(one.tensor, RenamedTensor)
            ]
        )

    def content(self) -> Content:
        """Return how its bytes are got: as those of the tensor itself."""
        return content_of(self._tensor)

    def __getitem__(self, index: Any, /) -> Any:
        """Read a part."""
        return self._tensor[index]


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a tensor; it can be pickled if its function can.

    Attributes:
        name, shape, data_type: What the tensor is then.
        change: Makes an array of these elements in their order; its shape may be another.
    """

    name: str
    shape: tuple[int, ...]
    change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    data_type: int

    def apply(self, tensor: TensorLike) -> DerivedTensor:
        """Return the tensor that another becomes."""
        return DerivedTensor(self.name, tensor, self.shape, self.change, data_type=self.data_type)


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
            change: Makes of that tensor's array one of these elements in their order; its shape
                may be another, so that no copy need be made.
            data_type: The kind that elements are then converted to, if it is another.
        """
        self.name = name
        self.shape = shape
        self.data_type = tensor.data_type if data_type is None else data_type
        self._tensor = tensor
        self._source_type = tensor.data_type
        self._change = change

    @property
    def source(self) -> TensorLike:
        """The tensor that it is made of, at the end of all changes."""
        tensor = self._tensor
        return tensor.source if isinstance(tensor, DerivedTensor) else tensor

    @property
    def steps(self) -> tuple[Step, ...]:
        """What is done with that, one change after another."""
        before = self._tensor.steps if isinstance(self._tensor, DerivedTensor) else ()
        return (*before, Step(self.name, self.shape, self._change, self.data_type))

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
            array = self.values()
            if not self.is_converted:
                return np.ascontiguousarray(array).reshape(self.shape).view(self.dtype)
            out = np.empty(array.size, self.dtype)
            for start, part in _convert(array, self._source_type, self.data_type):
                out[start : start + len(part)] = part
            return out.reshape(self.shape)

    def content(self) -> Content:
        """Return how its bytes are got: put in order and converted by the piece."""
        with located(tensor=self._tensor.name):
            array = self.values()
            if not self.is_converted:
                return content_of_array(array, self.data_type)
            return _ConvertedContent(array, self._source_type, self.data_type)

    def values(self) -> npt.NDArray[Any]:
        """Return its elements, in the order that they have, and of any shape: a view if possible.

        They are not converted. Of a kind that numpy lacks they are unsigned integers of its bits.
        """
        tensor = self._tensor
        if isinstance(tensor, DerivedTensor) and not tensor.is_converted:
            return self._change(tensor.values())
        if has_numpy_type(tensor.data_type):
            return self._change(tensor.read())
        while isinstance(tensor, RenamedTensor):
            tensor = tensor.original
        return self._change(read_bits(tensor))

    @property
    def is_converted(self) -> bool:
        """Whether its elements are of another kind than those that it is made of."""
        return self.data_type != self._source_type

    def __getitem__(self, index: Any, /) -> Any:
        """Read the whole, and pick a part."""
        return self.read()[index]


class _ConvertedContent:
    """The bytes of an array, converted piece by piece."""

    def __init__(self, array: npt.NDArray[Any], source_type: int, data_type: int) -> None:
        self._array = array
        self._source_type = source_type
        self._data_type = data_type
        self.size = array.size * (item_size(data_type) or 0)

    def write_to(self, write: Write) -> int:
        """Write them; see `Content`."""
        parts = _convert(self._array, self._source_type, self._data_type)
        pieces = (piece for _, part in parts for piece in iter_stored(part, self._data_type))
        return write_pieces(pieces, self.size, write)


def _convert(
    array: npt.NDArray[Any], source_type: int, data_type: int
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Iterate over the pieces of an array, converted: where each starts, and its elements.

    Args:
        array: Its values; of a kind that numpy lacks, their bits.
        source_type: Which kind they are.
        data_type: Which they are to be.

    Raises:
        UnsupportedError: A finite value is too large for the kind, or a package is lacking for one.
    """
    wanted = numpy_dtype(data_type)
    is_bits = not has_numpy_type(source_type)
    if is_bits and source_type != DataType.DT_BFLOAT16:
        numpy_dtype(source_type)  # It says which package has the kind.
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    for start in range(0, array.size, _PIECE_ELEMENTS):
        piece = flat[start : start + _PIECE_ELEMENTS]
        if is_bits:
            piece = widen_bfloat16(piece)
        with np.errstate(over="ignore", invalid="ignore"):
            made = piece.astype(wanted)
            # To ml_dtypes, a signalling NaN is worth a warning here too.
            lost = np.isfinite(piece) & ~np.isfinite(made)
        if lost.any():
            largest = np.abs(piece[lost].astype(np.float64)).max()
            raise UnsupportedError(
                f"{describe_data_type(data_type)} cannot hold {largest:g}, nor any value so large",
                hint="Choose a kind of wider range, such as bfloat16, or leave the tensor out",
            )
        yield start, made
