"""Every kind of element that SaveV2 writes, with the values at its edges."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from fixture_cases import bundles, describe
from fixture_cases.common import Name, Output, case, tf

Tensors = dict[Name, tuple[str, Any]]


def bits(dtype: str, codes: list[int]) -> tuple[str, Any]:
    """Return values given as their bits."""
    kind = np.dtype(bundles.numpy_type(dtype))
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[kind.itemsize]
    return dtype, np.array(codes, unsigned).view(kind)


def save(out: Output, tensors: Tensors, prefix: str = "model") -> None:
    """Write a bundle and describe it."""
    bundles.save(out.path(prefix), tensors)
    out.written_checkpoint(prefix, tensors)


@case(
    "dtypes/integers",
    "The smallest and largest values of every integer kind, -1, 0 and 1, 2**53 + 1, and bool.",
    checklist=(16,),
)
def integers(out: Output) -> None:
    tensors: Tensors = {"bool": ("bool", np.array([True, False, True]))}
    for dtype in bundles.INTEGERS:
        info = np.iinfo(dtype)
        values = {int(info.min), int(info.max), 0, 1, max(-1, int(info.min))}
        if info.bits == 64:
            values.add(2**53 + 1)
        tensors[dtype] = dtype, np.array(sorted(values), dtype)
    save(out, tensors)


@case(
    "dtypes/floats",
    "float16, bfloat16, float32 and float64: NaNs with payloads, quiet and signalling, of both "
    "signs, infinities, -0.0, the smallest denormal, the smallest normal and the largest values.",
)
def floats(out: Output) -> None:
    half = [
        0x7E00,
        0x7D01,
        0x7E2A,
        0xFE01,
        0xFD55,
        0x7C00,
        0xFC00,
        0x8000,
        1,
        0x400,
        0x7BFF,
        0x3C00,
    ]
    brain = [
        0x7FC0,
        0x7F81,
        0x7FEA,
        0xFFC1,
        0xFF95,
        0x7F80,
        0xFF80,
        0x8000,
        1,
        0x80,
        0x7F7F,
        0x3F80,
    ]
    single = [code << 16 for code in brain] + [0x7F800001, 0xFFBFFFFF, 1, 0x7F7FFFFF, 0x3DCCCCCD]
    double = [code << 48 for code in (0x7FF8, 0x7FF4, 0xFFF8, 0xFFF1, 0x7FF0, 0xFFF0, 0x8000)]
    double += [0x7FF0000000000001, 0xFFF7FFFFFFFFFFFF, 1, 1 << 52, 0x7FEFFFFFFFFFFFFF]
    save(
        out,
        {
            "float16": bits("float16", half),
            "bfloat16": bits("bfloat16", brain),
            "float32": bits("float32", single),
            "float64": bits("float64", double),
        },
    )


@case(
    "dtypes/complex",
    "complex64 and complex128 with NaN payloads, infinities and negative zeros in their parts.",
)
def complex_numbers(out: Output) -> None:
    single = np.array([0x7FA00001, 0x3F800000, 0x80000000, 0xFF800000, 0, 0x80000000], np.uint32)
    double = np.array([0x7FF4000000000001, 1 << 63, 0x7FF0 << 48, 0x3FF0 << 48], np.uint64)
    save(
        out,
        {
            "complex64": ("complex64", single.view(np.complex64)),
            "complex128": ("complex128", double.view(np.complex128)),
            "matrix": ("complex64", bundles.sample("complex64", (2, 3), out.random())),
        },
    )


@case(
    "dtypes/quantized",
    "The five quantized kinds at their smallest and largest values: readers give plain integers.",
    checklist=(16,),
)
def quantized(out: Output) -> None:
    tensors: Tensors = {}
    for dtype in bundles.QUANTIZED:
        low, high = bundles.integer_range(dtype)
        tensors[dtype] = dtype, np.array([[low, high], [0, 1]], bundles.numpy_type(dtype))
    save(out, tensors)


@case("dtypes/float8", "All 256 codes of each of the five float8 kinds.")
def float8(out: Output) -> None:
    save(out, {dtype: bits(dtype, list(range(256))) for dtype in bundles.FLOAT8})


@case(
    "dtypes/below_a_byte",
    "Every value of int4, uint4, int2, uint2 and float4_e2m1fn: one byte each, high bits zero.",
    checklist=(39,),
)
def below_a_byte(out: Output) -> None:
    tensors: Tensors = {}
    for dtype in bundles.SMALL_INTEGERS:
        low, high = bundles.integer_range(dtype)
        tensors[dtype] = dtype, np.arange(low, high + 1).astype(getattr(ml_dtypes, dtype))
    codes = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn)
    tensors["float4_e2m1fn"] = "float4_e2m1fn", codes
    save(out, tensors)


@case(
    "dtypes/shapes",
    "Scalars of every kind, one element at rank 3, empty tensors of shapes [0], [0, 1618] and "
    "[16, 0, 18], and ranks 8, 12, 32 and 64.",
    checklist=(19,),
)
def shapes(out: Output) -> None:
    rng = out.random()
    tensors: Tensors = {
        f"scalar/{dtype}": (dtype, bundles.sample(dtype, (), rng))
        for dtype in (*bundles.NUMERIC, "string")
    }
    for shape in ((0,), (0, 1618), (16, 0, 18)):
        name = "x".join(map(str, shape))
        for dtype in ("float32", "int8", "complex128", "string"):
            tensors[f"empty/{name}/{dtype}"] = dtype, bundles.sample(dtype, shape, rng)
    tensors["one"] = "float32", np.ones((1, 1, 1), np.float32)
    for shape in ((1, 2) * 4, (2, 1, 1, 3) * 3, (1,) * 31 + (2,), (1,) * 63 + (2,)):
        values = np.arange(np.prod(shape), dtype=np.int32)
        tensors[f"rank/{len(shape)}"] = "int32", values.reshape(shape)
    save(out, tensors)


@case(
    "dtypes/strings",
    "Strings: scalar, empty string, no string at all, with NUL and ff bytes, not UTF-8, a matrix, "
    "lengths of one, two and three varint bytes, and floats between them.",
    checklist=(20,),
)
def strings(out: Output) -> None:
    lengths = [b"x" * n for n in (0, 1, 127, 128, 300)]
    save(
        out,
        {
            "scalar": ("string", b"hello"),
            "scalar_empty": ("string", b""),
            "floats": ("float32", np.array([1.5, -2.5], np.float32)),
            "no_elements": ("string", np.zeros((0,), object)),
            "no_rows": ("string", np.zeros((0, 3), object)),
            "one_empty": ("string", np.array([b""], object)),
            "worked_example": (
                "string",
                np.array([b"hello", b"", b"\x00\xff", b"x" * 200], object),
            ),
            "bytes": (
                "string",
                np.array([b"\x00", b"a\x00b", b"\xff\xfe", "ключ".encode()], object),
            ),
            "matrix": ("string", np.array([[b"a", b"bb", b"ccc"], [b"", b"\n", b" "]], object)),
            "lengths": ("string", np.array(lengths, object)),
            "after": ("int64", np.int64(7)),
            "long": ("string", np.array([b"long" * 4097, b"short"], object)),
        },
    )


@case(
    "dtypes/every_kind",
    "One tensor of every kind that SaveV2 writes, stored in an order that is not the names' order.",
    checklist=(16, 17),
)
def every_kind(out: Output) -> None:
    rng = out.random()
    kinds = [*reversed(bundles.NUMERIC), "string"]
    save(out, {f"layer/{dtype}": (dtype, bundles.sample(dtype, (2, 3), rng)) for dtype in kinds})


@case(
    "dtypes/variant_tensor_lists",
    "Variants, one bundle each: TensorLists of float32 vectors and of strings, as a scalar, and as "
    "a vector of two lists. TensorFlow's Python reader cannot return them.",
    checklist=(23,),
)
def tensor_lists(out: Output) -> None:
    floats = tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    words = tf.constant([b"a", b"\x00\xff", b""])
    first = tf.raw_ops.TensorListFromTensor(tensor=floats, element_shape=[2])
    second = tf.raw_ops.TensorListFromTensor(tensor=words, element_shape=tf.constant([], tf.int32))
    save_variant(out, "floats", first)
    save_variant(out, "strings", second)
    save_variant(out, "two_lists", tf.stack([first, second]))


@case(
    "dtypes/variant_iterator",
    "The state of a tf.data iterator after two of five elements, serialized as variants.",
    checklist=(23,),
)
def iterator_state(out: Output) -> None:
    iterator = iter(tf.data.Dataset.range(5).shuffle(3, seed=1).batch(2))
    next(iterator)
    state = tf.raw_ops.SerializeIterator(resource_handle=iterator._iterator_resource)  # noqa: SLF001
    save_variant(out, "iterator", state)


def save_variant(out: Output, prefix: str, tensor: Any) -> None:
    """Write a bundle of one variant tensor: its data file is that payload and nothing else."""
    tf.raw_ops.SaveV2(
        prefix=out.path(prefix), tensor_names=["v"], shape_and_slices=[""], tensors=[tensor]
    )
    payload = (out.root / f"{prefix}.data-00000-of-00001").read_bytes()
    row = describe.describe_variant("v", list(tensor.shape), payload)
    out.add_checkpoint({"prefix": prefix, "format": "v2", "tensors": [row]}, {})
