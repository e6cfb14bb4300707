"""Write bundles with the SaveV2 op itself, which takes any name, dtype and slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from fixture_cases import describe
from fixture_cases.common import Name, Output, tf

QUANTIZED = {
    "qint8": np.int8,
    "quint8": np.uint8,
    "qint16": np.int16,
    "quint16": np.uint16,
    "qint32": np.int32,
}
FLOAT8 = (
    "float8_e5m2",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e4m3b11fnuz",
    "float8_e5m2fnuz",
)
SMALL_INTEGERS = ("int4", "uint4", "int2", "uint2")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
SMALL = (*SMALL_INTEGERS, "float4_e2m1fn")
NUMERIC = ("bool", *INTEGERS, *FLOATS, *COMPLEX, *QUANTIZED, *FLOAT8, *SMALL)


def numpy_type(dtype: str) -> Any:
    """Return the numpy type of a TensorFlow dtype's name."""
    if dtype in QUANTIZED:
        return QUANTIZED[dtype]
    return getattr(ml_dtypes, dtype, None) or getattr(np, "bool_" if dtype == "bool" else dtype)


def to_tensor(dtype: str, value: Any) -> Any:
    """Return a tensor of exactly these bits."""
    if dtype == "string":
        return tf.constant(np.asarray(value, dtype=object), tf.string)
    array = np.asarray(value)
    if dtype in QUANTIZED:
        return tf.bitcast(tf.constant(array), tf.as_dtype(dtype))
    return tf.constant(array, tf.as_dtype(dtype))


def sample(dtype: str, shape: Sequence[int], rng: np.random.Generator) -> Any:
    """Return random values of any dtype."""
    if dtype == "string":
        words = [rng.bytes(int(n)) for n in rng.integers(0, 9, int(np.prod(shape)))]
        array = np.empty(len(words), dtype=object)
        array[:] = words
        return array.reshape(tuple(shape))
    if dtype in COMPLEX:
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)
    if "float" in dtype:
        return rng.normal(size=shape).astype(numpy_type(dtype))
    low, high = integer_range(dtype)
    return rng.integers(low, high, size=shape, endpoint=True, dtype=np.int64).astype(
        numpy_type(dtype)
    )


def integer_range(dtype: str) -> tuple[int, int]:
    """Return the smallest and the largest value of an integer kind, within int64."""
    if dtype == "bool":
        return 0, 1
    if dtype in SMALL_INTEGERS:
        bits = int(dtype[-1])
        return (0, 2**bits - 1) if dtype[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    info = np.iinfo(numpy_type(dtype))
    return int(info.min), min(int(info.max), 2**63 - 1)


def save(prefix: str, tensors: Mapping[Name, tuple[str, Any]]) -> None:
    """Write whole tensors, name to (dtype, value), in the order given."""
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[to_tensor(dtype, value) for dtype, value in tensors.values()],
    )


@dataclass(frozen=True, slots=True)
class Part:
    """One slice to write.

    name, dtype, value: the whole tensor's.
    slice: as SaveV2 wants it, such as `-:0,1`.
    """

    name: Name
    dtype: str
    value: Any
    slice: str

    @property
    def extents(self) -> list[tuple[int, int]]:
        """Start and length for each dimension; (0, -1) is the whole dimension."""
        pieces = (piece.split(",") for piece in self.slice.split(":"))
        return [(0, -1) if piece == ["-"] else (int(piece[0]), int(piece[1])) for piece in pieces]

    @property
    def data(self) -> Any:
        """The values of the slice."""
        whole = np.asarray(self.value)
        ranges = tuple(
            slice(None) if length < 0 else slice(start, start + length)
            for start, length in self.extents
        )
        return whole[ranges]

    @property
    def spec(self) -> str:
        """The shape of the whole and the slice, as SaveV2 wants them."""
        return " ".join([*map(str, np.shape(self.value)), self.slice])

    def describe(self) -> dict[str, Any]:
        """Describe the slice for the expected file."""
        text = describe.name_text(self.name)
        row = describe.describe_tensor(text, self.dtype, self.data)
        row["slice"] = self.slice
        row["extents"] = [list(extent) for extent in self.extents]
        return row


def save_parts(prefix: str, parts: Sequence[Part]) -> None:
    """Write slices, in the order given."""
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=[part.name for part in parts],
        shape_and_slices=[part.spec for part in parts],
        tensors=[to_tensor(part.dtype, part.data) for part in parts],
    )


def wholes(parts: Sequence[Part]) -> dict[Name, tuple[str, Any]]:
    """Return the whole tensors of slices, name to (dtype, value)."""
    return {part.name: (part.dtype, part.value) for part in parts}


def save_sliced(out: Output, prefix: str, parts: Sequence[Part], **facts: Any) -> None:
    """Write slices and describe the whole tensors and the slices in the order they are stored."""
    save_parts(out.path(prefix), parts)
    out.written_checkpoint(
        prefix, wholes(parts), parts=[part.describe() for part in parts], **facts
    )
