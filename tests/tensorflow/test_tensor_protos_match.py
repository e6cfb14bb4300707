"""A TensorProto is decoded as TensorFlow decodes it: any dtype, too few values, too many, none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptparse.dtypes import DataType
from ckptparse.errors import MalformedError
from ckptparse.tensor_proto import decode_tensor_bytes

tf = pytest.importorskip("tensorflow")

from tensorflow.core.framework import tensor_pb2  # noqa: E402

FIELDS: dict[str, Any] = {
    "float_val": st.floats(width=32),
    "double_val": st.floats(),
    "int_val": st.integers(-(2**31), 2**31 - 1),
    "string_val": st.binary(max_size=3),
    "scomplex_val": st.floats(width=32),
    "int64_val": st.integers(-(2**63), 2**63 - 1),
    "bool_val": st.booleans(),
    "dcomplex_val": st.floats(),
    "half_val": st.integers(0, 2**17),
    "uint32_val": st.integers(0, 2**32 - 1),
    "uint64_val": st.integers(0, 2**64 - 1),
}
SUB_BYTE = ("int4", "uint4", "int2", "uint2")
KINDS = [
    kind
    for kind in DataType
    if kind not in (DataType.DT_INVALID, DataType.DT_RESOURCE, DataType.DT_VARIANT)
    # float4 from a byte above 15 reads as another number in TensorFlow.
    and kind != DataType.DT_FLOAT4_E2M1FN
]


@st.composite
def tensor_protos(draw: st.DrawFn) -> Any:
    proto = tensor_pb2.TensorProto(dtype=int(draw(st.sampled_from(KINDS))))
    for size in draw(st.lists(st.integers(0, 3), max_size=3)):
        proto.tensor_shape.dim.add(size=size)
    for name, values in FIELDS.items():
        getattr(proto, name).extend(draw(st.lists(values, max_size=5)))
    if draw(st.booleans()):
        proto.float8_val = draw(st.binary(max_size=5))
    return proto


def theirs(proto: Any) -> Any:
    return tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype)).numpy()


def assert_same(ours: Any, expected: Any) -> None:
    expected = np.asarray(expected)
    assert ours.shape == expected.shape
    if ours.dtype == object:
        assert ours.tolist() == expected.tolist()
        return
    assert ours.dtype == expected.dtype
    if ours.dtype.name in SUB_BYTE:  # TensorFlow keeps the high bits, which mean nothing
        ours, expected = ours.astype(np.int8), expected.astype(np.int8)
    assert ours.tobytes() == expected.tobytes()


@settings(max_examples=300)
@given(tensor_protos())
def test_typed_fields_are_decoded_as_tensorflow_does(proto: Any) -> None:
    assert_same(decode_tensor_bytes(proto.SerializeToString()), theirs(proto))


@settings(max_examples=300)
@given(tensor_protos(), st.binary(min_size=1, max_size=16), st.integers(-1, 1))
def test_content_is_decoded_as_tensorflow_does(proto: Any, seed: bytes, extra: int) -> None:
    count = int(np.prod([dim.size for dim in proto.tensor_shape.dim]))
    if proto.dtype in (DataType.DT_STRING, DataType.DT_BOOL) or not count:
        return  # bytes of a bool above 1, and content of no elements, are not agreed on
    size = max(1, count * tf.as_dtype(proto.dtype).size + extra * (len(seed) < 4))
    proto.tensor_content = (seed * size)[:size]
    try:
        expected = theirs(proto)
    except tf.errors.InvalidArgumentError:
        with pytest.raises(MalformedError, match="tensor_content"):
            decode_tensor_bytes(proto.SerializeToString())
        return
    assert_same(decode_tensor_bytes(proto.SerializeToString()), expected)


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(-2, 2))
def test_content_of_strings_is_decoded_as_tensorflow_does(strings: list[bytes], extra: int) -> None:
    proto = tensor_pb2.TensorProto(dtype=int(DataType.DT_STRING))
    proto.tensor_shape.dim.add(size=len(strings))
    lengths = b"".join(_varint(len(string)) for string in strings)
    content = lengths + b"".join(strings)
    proto.tensor_content = content + b"x" * extra if extra >= 0 else content[:extra]
    if not proto.tensor_content:
        return
    try:
        expected = theirs(proto)
    except tf.errors.InvalidArgumentError:
        with pytest.raises(MalformedError):
            decode_tensor_bytes(proto.SerializeToString())
        return
    assert_same(decode_tensor_bytes(proto.SerializeToString()), expected)


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])
