"""TensorProtos: each typed field, tensor_content, what is too little or too much, and limits."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from typing import Any

import builder as b
import numpy as np
import pytest
from google.protobuf.internal import api_implementation
from hypothesis import given
from hypothesis import strategies as st
from instruments import allocating_at_most

from ckptparse.dtypes import DataType, numpy_dtype
from ckptparse.errors import CheckpointError, LimitError, MalformedError, UnsupportedError
from ckptparse.limits import Limits
from ckptparse.proto import tensor_pb2
from ckptparse.proto.parsing import parse_message
from ckptparse.tensor_proto import (
    TensorHeader,
    Variant,
    decode_saved_values,
    decode_tensor_bytes,
    decode_tensor_header,
    decode_tensor_proto,
    decode_variant,
    decode_variants,
)

pytestmark = pytest.mark.proto

D = DataType
INT_KINDS = [
    D.DT_INT32, D.DT_INT16, D.DT_INT8, D.DT_UINT8, D.DT_UINT16, D.DT_QINT8, D.DT_QUINT8,
    D.DT_QINT16, D.DT_QUINT16, D.DT_QINT32,
]  # fmt: skip
FLOAT8_KINDS = [
    D.DT_FLOAT8_E5M2, D.DT_FLOAT8_E4M3FN, D.DT_FLOAT8_E4M3FNUZ, D.DT_FLOAT8_E4M3B11FNUZ,
    D.DT_FLOAT8_E5M2FNUZ,
]  # fmt: skip


def kinds(*data_types: DataType) -> list[Any]:
    """Parametrize by data types, and skip those that the installed ml_dtypes lacks."""
    return [
        pytest.param(
            kind, id=kind.name, marks=pytest.mark.skipif(not known(kind), reason="old ml_dtypes")
        )
        for kind in data_types
    ]


def known(kind: DataType) -> bool:
    try:
        numpy_dtype(kind)
    except UnsupportedError:
        return False
    return True


def packed(number: int, values: Sequence[int]) -> bytes:
    """A packed field of varints, negatives as ten bytes."""
    return b.field(number, b"".join(b.varint(v & 0xFFFFFFFFFFFFFFFF) for v in values))


def floats(number: int, values: Sequence[float]) -> bytes:
    return b.field(number, struct.pack(f"<{len(values)}f", *values))


def doubles(number: int, values: Sequence[float]) -> bytes:
    return b.field(number, struct.pack(f"<{len(values)}d", *values))


def decode(kind: int, shape: Sequence[int], *fields: bytes, limits: Limits | None = None) -> Any:
    return decode_tensor_bytes(b.tensor_proto(kind, shape, *fields), limits=limits or Limits())


def bits(array: Any) -> list[int]:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(f"u{flat.itemsize}").tolist()


# ---- the typed fields


def test_a_tensor_as_bytes_is_decoded() -> None:
    data = bytes.fromhex("08 01  12 04 12 02 08 02  2a 08 00 00 80 3f 00 00 00 c0")
    array = decode_tensor_bytes(data)
    assert array.dtype == np.float32
    assert array.tolist() == [1.0, -2.0]


def test_a_scalar_has_shape_of_no_dimensions() -> None:
    assert decode(D.DT_FLOAT, [], floats(5, [1.5])).shape == ()
    without_shape = b.field(1, D.DT_INT32) + packed(7, [7])
    assert decode_tensor_bytes(without_shape)[()] == 7


@pytest.mark.parametrize("kind", INT_KINDS)
def test_small_integers_are_in_int_val(kind: DataType) -> None:
    array = decode(kind, [2, 2], packed(7, [0, 1, 2, 127]))
    assert array.dtype == numpy_dtype(kind)
    assert array.tolist() == [[0, 1], [2, 127]]


@pytest.mark.parametrize(
    ("kind", "field", "expected"),
    [
        (D.DT_DOUBLE, doubles(6, [0.1, -0.0]), [0.1, -0.0]),
        (D.DT_COMPLEX64, floats(9, [1, 2, 3, -4]), [1 + 2j, 3 - 4j]),
        (D.DT_COMPLEX128, doubles(12, [1, 2, 3, -4]), [1 + 2j, 3 - 4j]),
        (D.DT_INT64, packed(10, [-(2**63), 2**63 - 1]), [-(2**63), 2**63 - 1]),
        (D.DT_BOOL, packed(11, [1, 0]), [True, False]),
        (D.DT_HALF, packed(13, [15360, 48128]), [1.0, -1.0]),
        (D.DT_BFLOAT16, packed(13, [0x3F80, 0xC000]), [1.0, -2.0]),
        (D.DT_UINT32, packed(16, [2**32 - 1, 5]), [2**32 - 1, 5]),
        (D.DT_UINT64, packed(17, [2**64 - 1, 5]), [2**64 - 1, 5]),
        (D.DT_STRING, b.field(8, b"a\x00") + b.field(8, b""), [b"a\x00", b""]),
    ],
)
def test_each_kind_has_its_field(kind: DataType, field: bytes, expected: list[Any]) -> None:
    array = decode(kind, [2], field)
    assert array.dtype == numpy_dtype(kind)
    assert array.tolist() == expected


@pytest.mark.parametrize("kind", kinds(*FLOAT8_KINDS))
def test_float8_kinds_are_bytes_in_one_field(kind: DataType) -> None:
    array = decode(kind, [3], b.field(18, b"\x00\x38\x81"))
    assert array.dtype == numpy_dtype(kind)
    assert bits(array) == [0x00, 0x38, 0x81]


@pytest.mark.parametrize("kind", kinds(D.DT_FLOAT4_E2M1FN))
def test_float4_has_four_bits(kind: DataType) -> None:
    assert decode(kind, [3], b.field(18, b"\x01\x17\xf9")).tolist() == [0.5, 6.0, -0.5]
    assert decode(kind, [3], b.field(4, b"\x01\x17\xf9")).tolist() == [0.5, 6.0, -0.5]


@pytest.mark.parametrize(
    ("kind", "stored", "expected"),
    [
        (D.DT_INT8, [300, -1, 128], [44, -1, -128]),
        (D.DT_UINT8, [300, -1, 256], [44, 255, 0]),
        (D.DT_QINT8, [300, -1, 128], [44, -1, -128]),
        (D.DT_INT16, [70000, -1, 32768], [4464, -1, -32768]),
        (D.DT_UINT16, [70000, -1, 65536], [4464, 65535, 0]),
        (D.DT_INT32, [2**32 + 3, -1, 2**31], [3, -1, -(2**31)]),
        (D.DT_HALF, [0x13C00, 0, 0], [1.0, 0.0, 0.0]),
        (D.DT_BOOL, [2, -1, 0], [True, True, False]),
    ],
)
def test_values_wrap_to_the_width_of_the_dtype(
    kind: DataType, stored: list[int], expected: list[Any]
) -> None:
    number = {D.DT_HALF: 13, D.DT_BOOL: 11}.get(kind, 7)
    assert decode(kind, [3], packed(number, stored)).tolist() == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param(*parameter.values, expected, id=parameter.id, marks=parameter.marks)
        for parameter, expected in zip(
            kinds(D.DT_INT4, D.DT_UINT4, D.DT_INT2, D.DT_UINT2),
            ([-4, -1, 7, -8], [12, 15, 7, 8], [0, -1, -1, 0], [0, 3, 3, 0]),
            strict=True,
        )
    ],
)
def test_sub_byte_integers_keep_their_low_bits(kind: DataType, expected: list[int]) -> None:
    array = decode(kind, [4], packed(7, [300, -1, 7, 8]))
    assert array.astype(int).tolist() == expected


def test_values_not_packed_and_in_several_runs_are_joined() -> None:
    fields = [b.field(7, 1), packed(7, [2, -3]), packed(7, []), b.field(7, -4), packed(7, [5])]
    assert decode(D.DT_INT32, [5], *fields).tolist() == [1, 2, -3, -4, 5]
    raw = [b.field32(5, 0x3F800000), floats(5, [2, 3]), b.field32(5, 0x40800000)]
    assert decode(D.DT_FLOAT, [4], *raw).tolist() == [1, 2, 3, 4]
    assert decode(D.DT_DOUBLE, [2], b.field64(6, 0), doubles(6, [2])).tolist() == [0, 2]


def test_fields_may_come_in_any_order() -> None:
    data = packed(7, [1, 2]) + b.field(2, b.shape_proto([2])) + b.field(1, D.DT_INT32)
    assert decode_tensor_bytes(data).tolist() == [1, 2]


def test_a_shape_given_twice_is_merged_and_a_dtype_given_twice_replaced() -> None:
    data = b.tensor_proto(D.DT_FLOAT, [2]) + b.field(2, b.shape_proto([3])) + b.field(1, D.DT_INT8)
    array = decode_tensor_bytes(data)
    assert array.shape == (2, 3)
    assert array.dtype == np.int8
    assert decode_tensor_proto(parse_message(tensor_pb2.TensorProto, data)).shape == (2, 3)


def test_version_number_and_unknown_fields_count_for_nothing() -> None:
    group = b"\x9b\x06\x08\x01\x9c\x06"
    assert decode(D.DT_INT8, [1], b.field(3, 9), b.field(99, b"x"), group, packed(7, [4])) == [4]


def test_a_field_of_the_wrong_wire_type_is_unknown() -> None:
    assert decode(D.DT_INT8, [1], b.field(4, 1), b.field32(7, 5)).tolist() == [0]


# ---- too few, too many


@pytest.mark.checklist(123)
@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([], [0, 0, 0]),
        ([7], [7, 7, 7]),
        ([7, 8], [7, 8, 8]),
        ([7, 8, 9], [7, 8, 9]),
        ([7, 8, 9, 10], [7, 8, 9]),
    ],
)
def test_the_last_value_repeats_and_what_is_too_much_is_dropped(
    stored: list[int], expected: list[int]
) -> None:
    assert decode(D.DT_INT32, [3], packed(7, stored)).tolist() == expected
    assert decode(D.DT_FLOAT, [3], floats(5, stored)).tolist() == expected
    assert (
        decode(D.DT_COMPLEX64, [3], floats(9, [p for v in stored for p in (v, 0)])).tolist()
        == expected
    )
    strings = [b.field(8, b"%d" % value) for value in stored]
    assert decode(D.DT_STRING, [3], *strings).tolist() == [
        b"%d" % v if v else b"" for v in expected
    ]
    if known(D.DT_FLOAT8_E4M3FN):
        assert bits(decode(D.DT_FLOAT8_E4M3FN, [3], b.field(18, bytes(stored)))) == expected


def test_half_a_complex_number_is_dropped() -> None:
    assert decode(D.DT_COMPLEX64, [2], floats(9, [1, 2, 3])).tolist() == [1 + 2j, 1 + 2j]
    assert decode(D.DT_COMPLEX128, [2], doubles(12, [1])).tolist() == [0, 0]


def test_what_stands_in_the_wrong_field_counts_for_nothing() -> None:
    assert decode(D.DT_INT32, [2], floats(5, [1, 2]), packed(10, [1, 2])).tolist() == [0, 0]
    assert decode(D.DT_UINT32, [2], packed(7, [1, 2]), packed(17, [3])).tolist() == [0, 0]
    assert decode(D.DT_BFLOAT16, [2], packed(7, [1, 2]), floats(5, [1])).tolist() == [0, 0]
    assert decode(D.DT_STRING, [1], b.field(18, b"abc")).tolist() == [b""]


def test_a_tensor_without_elements_has_no_values() -> None:
    assert decode(D.DT_FLOAT, [0, 3]).shape == (0, 3)
    assert decode(D.DT_FLOAT, [0, 3], floats(5, [1])).shape == (0, 3)
    assert decode(D.DT_STRING, [0], b.field(8, b"a")).shape == (0,)


# ---- tensor_content


@pytest.mark.parametrize(
    "kind",
    kinds(
        *(
            kind
            for kind in D
            if kind not in (D.DT_INVALID, D.DT_STRING, D.DT_RESOURCE, D.DT_VARIANT)
        )
    ),
)
def test_tensor_content_is_the_elements_and_wins(kind: DataType) -> None:
    expected = np.array([1, 0, 1, 1]).astype(numpy_dtype(kind)).reshape(2, 2)
    payload = b.dense_payload(expected, kind)
    others = [packed(7, [5]), floats(5, [5]), b.field(18, b"\x05")]
    array = decode(kind, [2, 2], *others, b.field(4, payload))
    assert array.dtype == expected.dtype
    assert array.shape == (2, 2)
    assert array.tobytes() == payload


@pytest.mark.parametrize("size", [1, 7, 9, 16])
def test_tensor_content_of_another_size_is_malformed(size: int) -> None:
    with pytest.raises(MalformedError, match=f"8 bytes for DT_FLOAT of shape .2,., found {size}"):
        decode(D.DT_FLOAT, [2], b.field(4, bytes(size)))


def test_content_of_a_tensor_without_elements_is_malformed() -> None:
    with pytest.raises(MalformedError, match="0 bytes"):
        decode(D.DT_FLOAT, [0], b.field(4, bytes(4)))


def test_empty_tensor_content_is_no_content() -> None:
    assert decode(D.DT_FLOAT, [2], b.field(4, b""), floats(5, [3])).tolist() == [3, 3]
    assert decode(D.DT_FLOAT, [1], b.field(4, b"abcd"), b.field(4, b""), floats(5, [3])) == [3]


def test_any_byte_of_a_bool_but_zero_is_true() -> None:
    array = decode(D.DT_BOOL, [4], b.field(4, b"\x00\x01\x02\xff"))
    assert array.tobytes() == b"\x00\x01\x01\x01"


@pytest.mark.parametrize("kind", kinds(D.DT_INT4))
def test_sub_byte_content_is_a_byte_an_element(kind: DataType) -> None:
    array = decode(kind, [3], b.field(4, b"\x0d\x17\xf8"))
    assert array.astype(int).tolist() == [-3, 7, -8]
    assert array.tobytes() == b"\x0d\x07\x08"


def test_content_of_strings_is_lengths_and_bytes_without_checksum() -> None:
    assert decode(D.DT_STRING, [3], b.field(4, b"\x01\x00\x02abb")).tolist() == [b"a", b"", b"bb"]
    long = b.varint(300) + b"\x01" + b"x" * 300 + b"y"
    assert decode(D.DT_STRING, [2], b.field(4, long)).tolist() == [b"x" * 300, b"y"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x01\x02abbZ", id="bytes left over"),
        pytest.param(b"\x01\x02ab", id="bytes missing"),
        pytest.param(b"\x01", id="length missing"),
        pytest.param(b"\x01\x80", id="length cut off"),
        pytest.param(b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", id="length of 2**64 - 1"),
        pytest.param(b"\x80" * 10 + b"\x01\x00", id="length of eleven bytes"),
    ],
)
def test_content_of_strings_that_does_not_add_up_is_malformed(content: bytes) -> None:
    with pytest.raises(MalformedError, match="2 strings"):
        decode(D.DT_STRING, [2], b.field(4, content))


# ---- NaN


NAN_PATTERNS = [
    (D.DT_FLOAT, 5, [0x7F800001, 0x7FC12345, 0xFF800002, 0x7FBFFFFF]),
    (
        D.DT_DOUBLE,
        6,
        [0x7FF0000000000001, 0x7FF8DEADBEEF0001, 0xFFF0000000000002, 0x7FF7FFFFFFFFFFFF],
    ),
]
HALF_PATTERNS = [
    (D.DT_HALF, [0x7C01, 0x7E55, 0xFC01, 0x7DFF]),
    (D.DT_BFLOAT16, [0x7F81, 0x7FC5, 0xFF81, 0x7FBF]),
]


def raw(kind: DataType, patterns: list[int]) -> bytes:
    return struct.pack(f"<{len(patterns)}{'IQ'[kind in (D.DT_DOUBLE, D.DT_COMPLEX128)]}", *patterns)


@pytest.mark.parametrize(("kind", "number", "patterns"), NAN_PATTERNS)
def test_payloads_of_nan_survive_signalling_ones_too(
    kind: DataType, number: int, patterns: list[int]
) -> None:
    typed = b.field(number, raw(kind, patterns))
    assert bits(decode(kind, [4], typed)) == patterns
    assert bits(decode(kind, [4], b.field(4, raw(kind, patterns)))) == patterns
    assert bits(decode(kind, [6], typed)) == [*patterns, patterns[-1], patterns[-1]]
    single = b.field32 if kind == D.DT_FLOAT else b.field64
    assert bits(decode(kind, [4], *(single(number, p) for p in patterns))) == patterns
    assert bits(decode_saved_values(typed, kind, 4)) == patterns


@pytest.mark.parametrize(("kind", "patterns"), HALF_PATTERNS)
def test_payloads_of_small_nan_survive(kind: DataType, patterns: list[int]) -> None:
    typed = packed(13, patterns)
    assert bits(decode(kind, [4], typed)) == patterns
    assert bits(decode(kind, [4], b.field(4, struct.pack("<4H", *patterns)))) == patterns
    assert bits(decode(kind, [5], typed)) == [*patterns, patterns[-1]]
    assert bits(decode_saved_values(typed, kind, 4)) == patterns


@pytest.mark.parametrize(
    ("kind", "number", "part"),
    [(D.DT_COMPLEX64, 9, NAN_PATTERNS[0]), (D.DT_COMPLEX128, 12, NAN_PATTERNS[1])],
)
def test_payloads_of_complex_nan_survive(kind: DataType, number: int, part: Any) -> None:
    width = "u4" if kind == D.DT_COMPLEX64 else "u8"
    stored = raw(kind, part[2])
    assert decode(kind, [2], b.field(number, stored)).view(width).tolist() == part[2]
    filled = decode(kind, [3], b.field(number, stored)).view(width).tolist()
    assert filled == part[2] + part[2][2:]
    assert decode_saved_values(b.field(number, stored), kind, 2).view(width).tolist() == part[2]


@pytest.mark.parametrize("kind", kinds(*FLOAT8_KINDS))
def test_every_byte_of_float8_survives(kind: DataType) -> None:
    every = bytes(range(256))
    assert decode(kind, [256], b.field(18, every)).tobytes() == every
    assert decode(kind, [256], b.field(4, every)).tobytes() == every


@pytest.mark.skipif(
    api_implementation.Type() == "python", reason="pure Python protobuf loses the payload"
)
@pytest.mark.parametrize(("kind", "number", "patterns"), NAN_PATTERNS)
def test_payloads_of_nan_survive_a_parsed_message(
    kind: DataType, number: int, patterns: list[int]
) -> None:
    data = b.tensor_proto(kind, [4], b.field(number, raw(kind, patterns)))
    proto = parse_message(tensor_pb2.TensorProto, data)
    assert bits(decode_tensor_proto(proto)) == patterns


# ---- varints


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(0, 3))
def test_packed_varints_are_decoded_as_protobuf_decodes_them(values: list[int], extra: int) -> None:
    data = b"".join(b.varint(v & (2**64 - 1), width=min(extra + 1, 10)) for v in values)
    for kind, number, field in [
        (D.DT_INT64, 10, "int64_val"), (D.DT_INT32, 7, "int_val"), (D.DT_UINT64, 17, "uint64_val"),
        (D.DT_UINT32, 16, "uint32_val"), (D.DT_BOOL, 11, "bool_val"),
    ]:  # fmt: skip
        message = b.field(number, data)
        expected = list(getattr(tensor_pb2.TensorProto.FromString(message), field))
        assert decode_saved_values(message, kind, len(values)).tolist() == expected


def test_packed_varints_of_many_blocks_are_decoded() -> None:
    values = np.random.default_rng(7).integers(-(2**40), 2**40, 200_000)
    values[::3] %= 100
    message = packed(10, values.tolist())
    assert (decode_saved_values(message, D.DT_INT64, len(values)) == values).all()
    assert (decode_saved_values(b.field(7, bytes(600_000)), D.DT_INT32, 600_000) == 0).all()


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(b"\x01\x80", id="cut off"),
        pytest.param(b"\x80" * 10 + b"\x01", id="eleven bytes"),
        pytest.param(b"\x01" + b"\x80" * 300_000 + b"\x01", id="longer than a block"),
    ],
)
def test_bad_packed_varints_are_malformed(run: bytes) -> None:
    with pytest.raises(MalformedError, match="packed varints"):
        decode(D.DT_INT32, [1], b.field(7, run))
    with pytest.raises(MalformedError):
        decode(D.DT_INT32, [2], b.field(7, run), packed(7, [1]))  # does not join with the next run


@pytest.mark.parametrize(
    ("kind", "number", "size"), [(1, 5, 6), (2, 6, 12), (8, 9, 3), (18, 12, 4)]
)
def test_packed_values_cut_off_are_malformed(kind: int, number: int, size: int) -> None:
    with pytest.raises(MalformedError, match=f"found {size} bytes"):
        decode(kind, [1], b.field(number, bytes(size)))


# ---- shapes, types, limits


@pytest.mark.parametrize("shape", [[-1], [2, -1], [2**62, 2], [2**62, 2**62, 0], [2**63 - 1, 2, 0]])
def test_impossible_shapes_are_malformed(shape: list[int]) -> None:
    with pytest.raises(MalformedError, match="dimensions of 0 or more"):
        decode(D.DT_FLOAT, shape)


def test_unknown_rank_counts_for_nothing() -> None:
    data = b.field(1, D.DT_FLOAT) + b.field(2, b.shape_proto([2], unknown_rank=True))
    assert decode_tensor_bytes(data).shape == (2,)


@pytest.mark.parametrize("kind", [D.DT_INVALID, 101, 133, D.DT_RESOURCE])
def test_types_that_no_tensor_has_are_malformed(kind: int) -> None:
    with pytest.raises(MalformedError):
        decode(kind, [1])


@pytest.mark.parametrize("kind", [50, 999, -3, 2**31])
def test_types_that_nobody_knows_raise_an_error_of_ours(kind: int) -> None:
    with pytest.raises(CheckpointError):
        decode(kind, [1])


def test_more_dimensions_than_numpy_has_are_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="numpy"):
        decode(D.DT_FLOAT, [1] * 65, floats(5, [1]))
    with pytest.raises(UnsupportedError, match="numpy"):
        decode(D.DT_FLOAT, [2**62, 0])


def test_more_dimensions_than_the_limit_are_refused() -> None:
    with pytest.raises(LimitError, match="rank allows 254"):
        decode(D.DT_FLOAT, [1] * 255)
    with pytest.raises(LimitError, match="rank allows 2"):
        decode(D.DT_FLOAT, [1, 1, 1], limits=Limits(rank=2))


@pytest.mark.parametrize("fields", [[], [floats(5, [1])]])
def test_a_few_bytes_do_not_fill_more_than_the_limit(fields: list[bytes]) -> None:
    with allocating_at_most(1 << 20), pytest.raises(LimitError, match="fill_bytes"):
        decode(D.DT_FLOAT, [2**40], *fields)
    assert decode(D.DT_FLOAT, [3], *fields, limits=Limits(fill_bytes=12)).shape == (3,)
    with pytest.raises(LimitError, match="fill_bytes allows 11"):
        decode(D.DT_FLOAT, [3], *fields, limits=Limits(fill_bytes=11))


def test_values_that_are_all_stored_fill_nothing() -> None:
    none = Limits(fill_bytes=0)
    assert decode(D.DT_INT32, [3], packed(7, [1, 2, 3]), limits=none).tolist() == [1, 2, 3]
    assert decode(D.DT_FLOAT, [2], b.field(4, bytes(8)), limits=none).tolist() == [0, 0]
    assert decode(D.DT_STRING, [1], b.field(8, b"a"), limits=none).tolist() == [b"a"]
    assert decode(D.DT_FLOAT, [0], limits=none).shape == (0,)


def test_strings_are_limited() -> None:
    with pytest.raises(LimitError, match="strings allows 2"):
        decode(D.DT_STRING, [3], limits=Limits(strings=2))
    with allocating_at_most(1 << 20), pytest.raises(LimitError, match="strings"):
        decode(D.DT_STRING, [2**40], b.field(4, bytes(10)))
    with pytest.raises(LimitError, match="fill_bytes allows 23"):
        decode(D.DT_STRING, [3], b.field(8, b"a"), limits=Limits(fill_bytes=23))


def test_content_of_fewer_bytes_than_strings_is_refused_in_little_memory() -> None:
    with allocating_at_most(1 << 20), pytest.raises(MalformedError):
        decode(D.DT_STRING, [50_000_000], b.field(4, bytes(10)))


def test_a_message_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(LimitError, match="message_bytes"):
        decode(D.DT_FLOAT, [1], limits=Limits(message_bytes=3))


def test_errors_say_which_tensor_and_file() -> None:
    with pytest.raises(MalformedError) as caught:
        decode_tensor_bytes(b"\x08", path="graph.pb", tensor="w")
    assert (caught.value.path, caught.value.tensor) == ("graph.pb", "w")


@given(st.binary(max_size=80))
def test_any_bytes_decode_or_raise_an_error_of_ours(data: bytes) -> None:
    few = Limits(fill_bytes=8000, strings=1000)
    for message in (data, b.field(1, data[0] if data else 1) + data):
        with contextlib.suppress(CheckpointError):
            decode_tensor_bytes(message, limits=few)


# ---- arrays


@pytest.mark.parametrize("field", [floats(5, [1, 2]), b.field(4, bytes(8)), floats(5, [1]), b""])
def test_arrays_are_writable_and_own_their_memory(field: bytes) -> None:
    data = bytearray(b.tensor_proto(D.DT_FLOAT, [2], field))
    array = decode_tensor_bytes(data)
    before = array.copy()
    data[:] = bytes(len(data))
    assert (array == before).all()
    array[:] = 9
    assert array.flags.c_contiguous


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_is_decoded(kind: Any) -> None:
    data = b.tensor_proto(D.DT_STRING, [1], b.field(8, b"abc"))
    assert decode_tensor_bytes(kind(data)).tolist() == [b"abc"]


# ---- the header alone


def test_the_header_is_dtype_and_shape() -> None:
    data = b.tensor_proto(D.DT_HALF, [2, 3], b.field(4, b"not looked at"))
    assert decode_tensor_header(data) == TensorHeader(D.DT_HALF, (2, 3))
    assert decode_tensor_header(b"") == TensorHeader(0, ())
    assert decode_tensor_header(b.field(1, -5)) == TensorHeader(-5, ())


def test_a_bad_header_is_malformed() -> None:
    with pytest.raises(MalformedError):
        decode_tensor_header(b.tensor_proto(D.DT_HALF, [-1]), path="p")
    with pytest.raises(MalformedError):
        decode_tensor_header(b.field(2, b.field(2, b.field(2, b"\xff"))))


# ---- variants


def nested_variants(depth: int) -> bytes:
    """A float in a variant, in a tensor, in a variant, ..."""
    data = b.tensor_proto(D.DT_FLOAT, [], floats(5, [1.5]))
    for _ in range(depth):
        data = b.tensor_proto(D.DT_VARIANT, [], b.field(15, b.variant_proto("T", b"", [data])))
    return data


def test_a_variant_is_a_name_and_bytes_and_tensors() -> None:
    inner = b.tensor_proto(D.DT_INT32, [2], packed(7, [1, 2]))
    element = b.variant_proto("tensorflow::TensorList", b"\x00\x01", [inner, inner])
    array = decode(D.DT_VARIANT, [1], b.field(15, element))
    assert array.dtype == object
    for variant in (array[0], decode_variant(element)):
        assert variant.type_name == "tensorflow::TensorList"
        assert variant.metadata == b"\x00\x01"
        assert [tensor.tolist() for tensor in variant.tensors] == [[1, 2], [1, 2]]


def test_missing_variants_are_empty_and_do_not_repeat() -> None:
    array = decode(D.DT_VARIANT, [3], b.field(15, b.variant_proto("T")))
    assert [variant.type_name for variant in array] == ["T", "", ""]
    assert array[1].tensors == ()
    assert (
        decode(D.DT_VARIANT, [1], *[b.field(15, b.variant_proto(n)) for n in "ab"])[0].type_name
        == "a"
    )


def test_variants_in_content_are_lengths_and_messages() -> None:
    elements = [b.variant_proto("one"), b.variant_proto("two", b"m")]
    content = bytes(len(element) for element in elements) + b"".join(elements)
    array = decode(D.DT_VARIANT, [2], b.field(4, content))
    assert [(v.type_name, v.metadata) for v in array] == [("one", b""), ("two", b"m")]


def test_a_type_name_that_is_not_utf8_is_malformed() -> None:
    with pytest.raises(MalformedError, match="UTF-8"):
        decode_variant(b.field(1, b"\xff"))


def test_variants_nest_as_deep_as_messages_may() -> None:
    value = decode_tensor_bytes(nested_variants(50))
    for _ in range(50):
        value = value[()].tensors[0]
    assert value == 1.5
    for depth in (51, 2000):
        with pytest.raises(LimitError, match="at most 100 deep"):
            decode_tensor_bytes(nested_variants(depth))
    with pytest.raises(LimitError, match="at most 3 deep"):
        decode_tensor_bytes(nested_variants(2), limits=Limits(nesting=3))


def test_fills_inside_variants_are_limited_together() -> None:
    zeros = b.tensor_proto(D.DT_FLOAT, [100])
    element = b.variant_proto("T", b"", [zeros] * 3)
    assert len(decode_variant(element, limits=Limits(fill_bytes=1200)).tensors) == 3
    with pytest.raises(LimitError, match=r"is 1200, and .* allows 1199"):
        decode_variant(element, limits=Limits(fill_bytes=1199))
    assert len(decode_variants([element] * 2, limits=Limits(fill_bytes=2400))) == 2
    with pytest.raises(LimitError, match="allows 2399"):
        decode_variants([element] * 2, limits=Limits(fill_bytes=2399))


# ---- V1


@pytest.mark.parametrize(
    ("kind", "field", "expected"),
    [
        (D.DT_INT32, "3a 01 03", [3]),
        (D.DT_INT64, "52 10 ff ff ff ff ff ff ff ff ff 01 80 80 80 80 80 20", [-1, 2**40]),
        (D.DT_UINT8, "3a 03 ff 01 00", [255, 0]),
        (D.DT_INT8, "3a 0b ff ff ff ff ff ff ff ff ff 01 05", [-1, 5]),
        (D.DT_BOOL, "5a 02 01 00", [True, False]),
        (D.DT_HALF, "6a 05 80 78 80 f8 02", [1.0, -1.0]),
        (D.DT_STRING, "42 02 61 62 42 00", [b"ab", b""]),
        (D.DT_COMPLEX64, "4a 08 00 00 80 3f 00 00 00 40", [1 + 2j]),
    ],
)
def test_values_of_v1_are_in_the_typed_field(
    kind: DataType, field: str, expected: list[Any]
) -> None:
    values = decode_saved_values(bytes.fromhex(field), kind, len(expected))
    assert values.dtype == numpy_dtype(kind)
    assert values.tolist() == expected
    values[:] = values[0]


@pytest.mark.checklist(60)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="none"),
        pytest.param(floats(5, [1]), id="one of two"),
        pytest.param(floats(5, [1, 2, 3]), id="one too many"),
        pytest.param(b.field(4, bytes(8)), id="in tensor_content"),
        pytest.param(doubles(6, [1, 2]), id="in another field"),
    ],
)
def test_another_number_of_values_in_v1_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError, match="2 values of DT_FLOAT in field 5") as caught:
        decode_saved_values(data, D.DT_FLOAT, 2, path="m.ckpt", tensor="w")
    assert (caught.value.path, caught.value.tensor) == ("m.ckpt", "w")


def test_other_kinds_in_v1_must_be_exact_too() -> None:
    for kind, data in [
        (D.DT_STRING, b.field(8, b"") * 3), (D.DT_STRING, b""), (D.DT_INT8, packed(7, [1])),
        (D.DT_COMPLEX64, floats(9, [1, 2, 3])), (D.DT_COMPLEX64, floats(9, [1, 2, 3, 4, 5])),
    ]:  # fmt: skip
        with pytest.raises(
            MalformedError, match=r"Expected 2 (values|pairs|complex numbers of two parts each)"
        ):
            decode_saved_values(data, kind, 2)


def test_what_v1_says_beside_the_values_is_ignored() -> None:
    data = b.tensor_proto(D.DT_INT8, [-1], floats(5, [1, 2]), b.field(4, b"x"))
    assert decode_saved_values(data, D.DT_FLOAT, 2).tolist() == [1, 2]


def test_an_empty_slice_of_v1_has_no_values() -> None:
    assert decode_saved_values(b"", D.DT_FLOAT, 0).shape == (0,)
    assert decode_saved_values(b"", D.DT_INT8, 0).shape == (0,)
    assert decode_saved_values(b"", D.DT_STRING, 0).shape == (0,)


def test_types_that_v1_cannot_hold_raise() -> None:
    with pytest.raises(UnsupportedError):
        decode_saved_values(b"", D.DT_VARIANT, 1)
    for kind in (D.DT_INVALID, D.DT_RESOURCE, 101):
        with pytest.raises(MalformedError):
            decode_saved_values(b"", kind, 1)


def test_a_count_of_strings_in_v1_is_limited() -> None:
    with pytest.raises(LimitError, match="strings"):
        decode_saved_values(b"", D.DT_STRING, 3, limits=Limits(strings=2))
    with allocating_at_most(1 << 20), pytest.raises(MalformedError):
        decode_saved_values(b"", D.DT_STRING, 1 << 25)


def test_values_of_v1_own_their_memory() -> None:
    data = bytearray(floats(5, [1, 2]))
    values = decode_saved_values(data, D.DT_FLOAT, 2)
    data[:] = bytes(len(data))
    assert values.tolist() == [1, 2]


def test_a_variant_needs_no_arguments() -> None:
    assert (Variant().type_name, Variant().metadata, Variant().tensors) == ("", b"", ())
