"""Values of V2 checkpoints: every kind, byte order, shape and place in the data files."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from builder import same
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptparse
from ckptparse import CheckpointError, UnsupportedError

Array = np.ndarray[Any, Any]


def skip_unless_known(number: int) -> None:
    if number not in b.NUMPY_TYPES:
        pytest.skip("the installed ml_dtypes has no such kind")


def sample(number: int, shape: tuple[int, ...] = (2, 3)) -> Array:
    """Elements of every bit pattern that the kind has room for."""
    kind = b.NUMPY_TYPES[number]
    count = int(np.prod(shape))
    chance = np.random.default_rng(number)
    if number == b.BOOL:
        return chance.integers(0, 2, shape).astype(bool)
    if number in b.SUB_BYTE_MASKS:
        codes = np.arange(count, dtype=np.uint8) & b.SUB_BYTE_MASKS[number]
        # Through the numbers and back: in memory the signed kinds extend their sign.
        return codes.view(kind).astype(np.float32).astype(kind).reshape(shape)
    return np.frombuffer(chance.bytes(count * kind.itemsize), kind).reshape(shape)


def round_trip(tmp_path: Path, array: Array, **options: Any) -> Array:
    big = options.pop("big", False)
    bundle = b.Bundle(big=big)
    bundle.add("x", array, **options)
    return ckptparse.read(bundle.write(tmp_path / "x"))["x"]


# ---- kinds


@pytest.mark.checklist(16)
@pytest.mark.parametrize("number", b.NUMERIC_TYPES)
def test_tensors_added_out_of_order_are_listed_sorted_and_right(
    tmp_path: Path, number: int
) -> None:
    bundle, wanted = b.Bundle(), {}
    for n, name in enumerate(["foo_003", "foo_000", "foo_002", "foo_001"]):
        wanted[name] = sample(number) if n % 2 else sample(number)[::-1].copy()
        bundle.add(name, wanted[name], dtype=number)
    prefix = bundle.write(tmp_path / "x")
    with ckptparse.open(prefix) as checkpoint:
        assert list(checkpoint) == ["foo_000", "foo_001", "foo_002", "foo_003"]
        for name, array in wanted.items():
            tensor = checkpoint[name]
            assert (tensor.dtype, tensor.data_type) == (b.NUMPY_TYPES[number], number)
            assert (tensor.shape, tensor.kind) == ((2, 3), "dense")
            assert same(tensor.read(), array) and same(tensor[...], array)
    got = ckptparse.read(prefix)
    assert list(got) == sorted(wanted) and all(same(got[k], v) for k, v in wanted.items())


@pytest.mark.checklist(16, 33)
@pytest.mark.parametrize("big", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("number", b.NUMERIC_TYPES)
def test_every_bit_pattern_of_every_kind_survives(tmp_path: Path, number: int, big: bool) -> None:
    array = sample(number, (16, 16) if b.NUMPY_TYPES[number].itemsize > 1 else (256,))
    got = round_trip(tmp_path, array, dtype=number, big=big)
    assert same(got, array)
    assert got.dtype.isnative and got.flags.writeable and got.flags.c_contiguous


@pytest.mark.parametrize(
    ("number", "stored", "values"),
    [
        (b.INT4, "08 0f 00 07", [-8, -1, 0, 7]),
        (b.UINT4, "0f 08 00", [15, 8, 0]),
        (b.INT2, "02 03 00 01", [-2, -1, 0, 1]),
        (b.UINT2, "03 02 00", [3, 2, 0]),
        (b.FLOAT4_E2M1FN, "0f 09 01 07", [-6, -0.5, 0.5, 6]),
        (b.FLOAT8_E5M2, "3c", [1]),
        (b.FLOAT8_E4M3FN, "38", [1]),
        (b.FLOAT8_E4M3FNUZ, "40", [1]),
        (b.FLOAT8_E5M2FNUZ, "40", [1]),
        (b.FLOAT8_E4M3B11FNUZ, "58", [1]),
        (b.BFLOAT16, "80 3f", [1]),
        (b.HALF, "00 3c", [1]),
        (b.UINT16, "00 3c", [15360]),
    ],
)
@pytest.mark.checklist(39)
def test_stored_bytes_have_the_values_of_the_format(
    tmp_path: Path, number: int, stored: str, values: list[float]
) -> None:
    skip_unless_known(number)
    data = bytes.fromhex(stored)
    bundle = b.Bundle()
    bundle.put_entry("x", data, b.masked_crc(data), dtype=number, shape=(len(values),))
    got = ckptparse.read(bundle.write(tmp_path / "x"))["x"]
    assert got.dtype == b.NUMPY_TYPES[number]
    assert got.astype(np.float64).tolist() == values


@pytest.mark.parametrize("number", b.SUB_BYTE_MASKS)
@pytest.mark.parametrize("way", ["read", "whole", "part", "mmap"])
def test_high_bits_of_sub_byte_kinds_are_ignored(tmp_path: Path, number: int, way: str) -> None:
    data = bytes(range(256))
    bundle = b.Bundle()
    bundle.put_entry("x", data, b.masked_crc(data), dtype=number, shape=(256,))
    prefix = bundle.write(tmp_path / "x")
    kind = b.NUMPY_TYPES[number]
    clean = bytes(n & b.SUB_BYTE_MASKS[number] for n in data)
    wanted = np.frombuffer(clean, kind).astype(np.float32)
    with ckptparse.open(prefix, mmap=way == "mmap") as checkpoint:
        tensor = checkpoint["x"]
        got = {"whole": lambda: tensor[...], "part": lambda: tensor[0:255]}.get(way, tensor.read)()
    assert got.dtype == kind
    assert np.array_equal(got.astype(np.float32), wanted[: len(got)])


@pytest.mark.checklist(40)
@pytest.mark.parametrize("way", ["read", "whole", "part", "item", "mmap"])
def test_any_non_zero_byte_of_a_bool_is_true(tmp_path: Path, way: str) -> None:
    data = bytes([0, 1, 2, 255, 128, 0])
    bundle = b.Bundle()
    bundle.put_entry("x", data, b.masked_crc(data), dtype=b.BOOL, shape=(6,))
    with ckptparse.open(bundle.write(tmp_path / "x"), mmap=way == "mmap") as checkpoint:
        tensor = checkpoint["x"]
        if way == "item":
            assert [bool(tensor[n]) for n in range(6)] == [False, True, True, True, True, False]
            return
        got = {"whole": lambda: tensor[...], "part": lambda: tensor[0:5]}.get(way, tensor.read)()
    assert got.view(np.uint8).tolist() == [0, 1, 1, 1, 1, 0][: len(got)]


def test_signalling_nans_and_negative_zeros_survive(tmp_path: Path) -> None:
    bits = np.array([0x7F800001, 0xFFC12345, 0x80000000, 0x7FA00000], np.uint32)
    assert round_trip(tmp_path, bits.view(np.float32)).view(np.uint32).tolist() == bits.tolist()


def test_integers_above_two_to_the_53_stay_exact(tmp_path: Path) -> None:
    array = np.array([2**53 + 1, -(2**63), 2**63 - 1], np.int64)
    assert round_trip(tmp_path, array).tolist() == array.tolist()


@pytest.mark.parametrize("number", [b.BFLOAT16, b.INT4, b.FLOAT8_E5M2])
def test_a_kind_that_needs_ml_dtypes_is_listed_and_verified_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from ckptparse.dtypes import numpy_dtype

    name = str(b.NUMPY_TYPES[number])
    bundle = b.Bundle()
    bundle.add("x", sample(number), dtype=number)
    bundle.add("y", np.float32(1))
    prefix = bundle.write(tmp_path / "x")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    numpy_dtype.cache_clear()
    try:
        report = ckptparse.verify(prefix)
        assert report.ok and report.tensors["x"].dtype == name
        with ckptparse.open(prefix) as checkpoint:
            assert checkpoint["x"].shape == (2, 3) and checkpoint["x"].nbytes
            checkpoint["x"].verify()
            assert checkpoint.read(["y"])["y"] == 1
            for call in (checkpoint["x"].read, checkpoint.read, lambda: checkpoint["x"].dtype):
                with pytest.raises(UnsupportedError, match=name) as caught:
                    call()
                assert "pip install 'ckptparse[ml-dtypes]'" in str(caught.value)
    finally:
        numpy_dtype.cache_clear()


@pytest.mark.parametrize("number", [b.BFLOAT16, b.INT4, b.FLOAT8_E5M2])
def test_kind_that_the_installed_ml_dtypes_lacks_is_listed_and_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import ml_dtypes

    from ckptparse.dtypes import numpy_dtype

    name = str(b.NUMPY_TYPES[number])
    bundle = b.Bundle()
    bundle.add("x", sample(number), dtype=number)
    bundle.add("y", np.float32(1))
    prefix = bundle.write(tmp_path / "x")
    monkeypatch.delattr(ml_dtypes, name)
    numpy_dtype.cache_clear()
    try:
        with ckptparse.open(prefix) as checkpoint:
            assert checkpoint["x"].shape == (2, 3) and checkpoint["y"].read() == 1
            for call in (checkpoint["x"].read, checkpoint.read, lambda: checkpoint["x"].dtype):
                with pytest.raises(UnsupportedError, match=name) as caught:
                    call()
                assert "ml_dtypes" in str(caught.value)
    finally:
        numpy_dtype.cache_clear()


# ---- big-endian bundles


@pytest.mark.checklist(34)
@pytest.mark.parametrize(
    ("number", "stored", "value"),
    [
        (b.UINT16, "12 34", 0x1234),
        (b.INT16, "ff fe", -2),
        (b.UINT32, "12 34 56 78", 0x12345678),
        (b.INT64, "12 34 56 78 9a bc de f0", 0x123456789ABCDEF0),
        (b.HALF, "3c 00", 1.0),
        (b.BFLOAT16, "3f 80", 1.0),
        (b.FLOAT, "3f 80 00 00", 1.0),
        (b.DOUBLE, "3f f0 00 00 00 00 00 00", 1.0),
        (b.COMPLEX64, "3f 80 00 00 40 00 00 00", 1 + 2j),
        (b.COMPLEX128, "3f f0 00 00 00 00 00 00 40 00 00 00 00 00 00 00", 1 + 2j),
        (b.QINT32, "ff ff ff fe", -2),
        (b.QUINT16, "12 34", 0x1234),
    ],
)
@pytest.mark.parametrize("way", ["read", "part", "item", "mmap"])
def test_known_patterns_of_a_big_endian_bundle_are_swapped(
    tmp_path: Path, number: int, stored: str, value: complex, way: str
) -> None:
    data = bytes.fromhex(stored) * 3
    bundle = b.Bundle(big=True)
    bundle.put_entry("x", data, b.masked_crc(data), dtype=number, shape=(3,))
    with ckptparse.open(bundle.write(tmp_path / "x"), mmap=way == "mmap") as checkpoint:
        assert checkpoint.byte_order == "big"
        tensor = checkpoint["x"]
        if way == "item":
            assert tensor[1] == value
            return
        got = tensor[0:2] if way == "part" else tensor.read()
        assert got.dtype.isnative and (got == value).all()


@pytest.mark.checklist(35)
@pytest.mark.parametrize("shape", [(), (4,), (2, 2), (0,)])
def test_strings_of_a_big_endian_bundle_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = [b"hello", b"", b"\x00\xff", b"x" * 300][: int(np.prod(shape))]
    array = np.array(values, object).reshape(shape)
    assert same(round_trip(tmp_path, array, big=True), array)


@pytest.mark.checklist(35)
def test_strings_sealed_in_the_other_byte_order_are_refused(tmp_path: Path) -> None:
    for big in (False, True):
        payload, check = b.string_payload([b"hello", b"you"], big=not big)
        bundle = b.Bundle(big=big)
        bundle.put_entry("s", payload, check, dtype=b.STRING, shape=(2,))
        with pytest.raises(ckptparse.ChecksumError):
            ckptparse.read(bundle.write(tmp_path / f"x{big}"))


@pytest.mark.checklist(36)
@pytest.mark.parametrize("number", [n for n, kind in b.NUMPY_TYPES.items() if kind.itemsize == 1])
def test_one_byte_kinds_of_a_big_endian_bundle_read(tmp_path: Path, number: int) -> None:
    array = sample(number)
    assert same(round_trip(tmp_path, array, dtype=number, big=True), array)


@pytest.mark.checklist(33)
def test_big_endian_bundle_of_two_shards_and_slices_reads(tmp_path: Path) -> None:
    bundle = b.Bundle(big=True)
    whole = np.arange(50, dtype=np.int32).reshape(5, 10)
    bundle.add("a", whole, shard=0)
    bundle.add("b", whole.astype(np.complex128) * 1j, shard=1)
    bundle.add_sliced("c", whole, [[None, (0, 1)], [None, (1, 9)]], shards=[1, 0])
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        assert same(checkpoint["a"].read(), whole) and same(checkpoint["c"].read(), whole)
        assert same(checkpoint["b"].read(), whole.astype(np.complex128) * 1j)
        assert checkpoint["c"][1, 2] == 12 and checkpoint["b"][1, 2] == 12j
        assert same(checkpoint["c"][1:3, ::3], whole[1:3, ::3])


def test_byte_order_of_a_usual_bundle_is_little(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", np.float32(1))
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        assert checkpoint.byte_order == "little" and checkpoint.format == "v2"


# ---- shapes


@pytest.mark.checklist(19)
@pytest.mark.parametrize("number", [b.FLOAT, b.BOOL, b.COMPLEX128, b.INT4, b.BFLOAT16])
@pytest.mark.parametrize(
    "shape", [(), (1,), (1, 1, 1), (0,), (0, 1618), (16, 0, 18), (2, 3, 4, 5), (1,) * 10]
)
@pytest.mark.parametrize("mmap", [False, True])
def test_shapes_are_kept(tmp_path: Path, number: int, shape: tuple[int, ...], mmap: bool) -> None:
    array = sample(number, shape)
    bundle = b.Bundle()
    bundle.add("x", array, dtype=number)
    prefix = bundle.write(tmp_path / "x")
    assert same(ckptparse.read(prefix, mmap=mmap)["x"], array)
    with ckptparse.open(prefix, mmap=mmap) as checkpoint:
        tensor = checkpoint["x"]
        assert tensor.shape == shape and tensor.ndim == len(shape) and tensor.size == array.size
        assert tensor.nbytes == array.nbytes and same(np.asarray(tensor), array)
        assert same(np.asarray(tensor[...]), array)


@pytest.mark.parametrize("shape", [(2**33, 0), (2**40, 0), (0, 2**40, 5)])
def test_empty_tensors_with_huge_other_dimensions_read(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    bundle = b.Bundle()
    bundle.put_entry("x", b"", b.mask(0), dtype=b.FLOAT, shape=shape)
    got = ckptparse.read(bundle.write(tmp_path / "x"))["x"]
    assert got.shape == shape and got.dtype == np.float32


@pytest.mark.parametrize("shape", [(2**62, 0), (0, 2**62, 1)])
def test_empty_tensors_too_large_for_numpy_are_refused_clearly(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    bundle = b.Bundle()
    bundle.put_entry("x", b"", b.mask(0), dtype=b.FLOAT, shape=shape)
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        assert checkpoint["x"].shape == shape and checkpoint["x"].size == 0
        with pytest.raises(UnsupportedError, match="numpy"):
            checkpoint["x"].read()


@pytest.mark.parametrize("rank", [33, 64, 65, 254])
def test_more_dimensions_than_numpy_allows_are_listed_and_refused_on_reading(
    tmp_path: Path, rank: int
) -> None:
    bundle = b.Bundle()
    payload = np.float32(7).tobytes()
    bundle.put_entry("x", payload, b.masked_crc(payload), dtype=b.FLOAT, shape=(1,) * rank)
    prefix = bundle.write(tmp_path / "x")
    assert ckptparse.list_variables(prefix) == [("x", (1,) * rank)]
    most = 64 if int(np.__version__.split(".")[0]) >= 2 else 32
    with ckptparse.open(prefix) as checkpoint:
        if rank <= most:
            assert checkpoint["x"].read().reshape(()) == 7
            return
        for call in (
            checkpoint["x"].read,
            lambda: checkpoint["x"][0],
            lambda: checkpoint["x"][...],
        ):
            with pytest.raises(UnsupportedError, match=f"{rank} dimensions"):
                call()


# ---- strings


STRING_TENSORS = {
    "scalar": np.array(b"hello", object),
    "empty scalar": np.array(b"", object),
    "one empty": np.array([b""], object),
    "no element": np.zeros((0,), object),
    "no element in three dimensions": np.zeros((2, 0, 3), object),
    "matrix": np.array([[b"a", b""], [b"\0", b"\xff\xfe"]], object),
    "lengths at the steps of a varint": np.array(
        [b"x" * n for n in (127, 128, 16383, 16384)], object
    ),
    "varint of three bytes": np.array([b"x" * 100_000, b"y"], object),
    "all lengths of one byte": np.array([b"q" * n for n in range(128)], object),
}


@pytest.mark.checklist(20)
@pytest.mark.parametrize("array", STRING_TENSORS.values(), ids=STRING_TENSORS)
@pytest.mark.parametrize("mmap", [False, True])
def test_string_tensors_come_back(tmp_path: Path, array: Array, mmap: bool) -> None:
    bundle = b.Bundle()
    bundle.add("before", np.float32(1))
    bundle.add("s", array)
    bundle.add("after", np.float32(2))
    prefix = bundle.write(tmp_path / "x")
    got = ckptparse.read(prefix, mmap=mmap)
    assert got["before"] == 1 and got["after"] == 2
    assert got["s"].dtype == object and same(got["s"], array) and got["s"].flags.writeable
    assert all(type(value) is bytes for value in got["s"].ravel())
    with ckptparse.open(prefix, mmap=mmap) as checkpoint:
        tensor = checkpoint["s"]
        assert tensor.kind == "string" and tensor.dtype == object
        assert tensor.data_type == b.STRING and tensor.shape == array.shape
        tensor.verify()


@pytest.mark.checklist(20)
def test_strings_of_32_mib_between_small_ones_and_floats_come_back(tmp_path: Path) -> None:
    bundle = b.Bundle()
    strings = np.array([b"", b"small", bytes(32 << 20), b"end"], object)
    bundle.add("scalar", np.array(b"scalar", object))
    bundle.add("floats", np.arange(16, dtype=np.float32))
    bundle.add("strings", strings)
    bundle.add("more", np.arange(3, dtype=np.float32))
    got = ckptparse.read(bundle.write(tmp_path / "x"))
    assert same(got["strings"], strings) and got["scalar"][()] == b"scalar"
    assert got["floats"].tolist() == list(range(16)) and got["more"].tolist() == [0, 1, 2]


@pytest.mark.checklist(22)
def test_bundle_of_old_code_with_narrow_string_lengths_reads(tmp_path: Path) -> None:
    # Lengths below 2**32 have the same varints in 32 bits as in 64.
    bundle = b.Bundle(header=b.Header(version=None))
    tensors = {
        "floats": np.arange(8, dtype=np.float32),
        "scalar": np.array(b"hello", object),
        "string_tensor": np.array([b"foo", b"bar"], object),
        "strs": np.array([b"hello", b"", b"x01", b"A" * 1024], object),
    }
    for name, array in tensors.items():
        bundle.add(name, array)
    got = ckptparse.read(bundle.write(tmp_path / "old_string_tensors" / "foo"))
    assert all(same(got[name], array) for name, array in tensors.items())


@pytest.mark.parametrize("width", [2, 5, 10])
def test_string_lengths_coded_wider_than_needed_read(tmp_path: Path, width: int) -> None:
    bundle = b.Bundle()
    bundle.add_strings("s", [b"ab", b"", b"c" * 200], (3,), widths=width)
    got = ckptparse.read(bundle.write(tmp_path / "x"))
    assert got["s"].tolist() == [b"ab", b"", b"c" * 200]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=40), st.booleans())
def test_any_strings_come_back(
    tmp_path_factory: pytest.TempPathFactory, values: list[bytes], big: bool
) -> None:
    array = np.empty(len(values), object)
    array[:] = values
    assert same(round_trip(tmp_path_factory.mktemp("s"), array, big=big), array)


@pytest.mark.checklist(21)
def test_lengths_of_64_bits_enter_the_checksum_as_eight_bytes() -> None:
    from ckptparse.bundle.strings import decode_strings
    from ckptparse.errors import ChecksumError, MalformedError

    # The string itself is not there, which is only found once the lengths have been accepted.
    payload, check = b.string_payload([b"ab"], lengths=[1 << 32])
    with pytest.raises(MalformedError):
        decode_strings(payload, 1, big_endian=False, crc=b.crc(b""))
    narrow = b.fixed32(b.masked_crc(b.fixed32(0)))
    with pytest.raises((ChecksumError, MalformedError)):
        decode_strings(b.varint(1 << 32) + narrow + b"ab", 1, big_endian=False, crc=check)


# ---- variants


@pytest.mark.checklist(23)
@pytest.mark.parametrize("shape", [(), (2,), (0,), (2, 1)])
@pytest.mark.parametrize("mmap", [False, True])
def test_variants_show_type_metadata_and_inner_tensors(
    tmp_path: Path, shape: tuple[int, ...], mmap: bool
) -> None:
    inner = b.tensor_proto(b.INT32, (2,), b.field(4, np.array([5, -6], "<i4").tobytes()))
    second = b.tensor_proto(b.STRING, (), b.field(8, b"text"))
    element = b.variant_proto("tensorflow::TensorList", b"\x01\x02", [inner, second])
    bundle = b.Bundle()
    bundle.add_variants("v", [element] * int(np.prod(shape)), shape)
    with ckptparse.open(bundle.write(tmp_path / "x"), mmap=mmap) as checkpoint:
        tensor = checkpoint["v"]
        assert tensor.kind == "variant" and tensor.shape == shape
        tensor.verify()
        got = tensor.read()
    assert got.shape == shape and got.dtype == object
    for value in got.ravel():
        assert value.type_name == "tensorflow::TensorList" and value.metadata == b"\x01\x02"
        assert np.asarray(value.tensors[0]).tolist() == [5, -6]
        assert np.asarray(value.tensors[1])[()] == b"text"


@pytest.mark.checklist(23)
def test_checksums_of_variants_run_through_all_elements(tmp_path: Path) -> None:
    elements = [b.variant_proto(f"type{n}", bytes([n]) * n) for n in range(4)]
    bundle = b.Bundle()
    bundle.add_variants("v", elements, (4,))
    got = ckptparse.read(bundle.write(tmp_path / "x"))["v"]
    assert [(value.type_name, value.metadata) for value in got] == [
        (f"type{n}", bytes([n]) * n) for n in range(4)
    ]
    for n in range(4):
        bundle = b.Bundle()
        bundle.add_variants("v", elements, (4,), bad_crc=n)
        with pytest.raises(ckptparse.ChecksumError):
            ckptparse.read(bundle.write(tmp_path / f"y{n}"))


@pytest.mark.parametrize(
    "control",
    [
        {"lengths": [2**40, 2]}, {"lengths": [2**64 - 1, 2]}, {"lengths": [0, 2]}, {"crc": 1},
        {"size": 3}, {"size": 0}, {"shape": (3,)}, {"shape": (1,)},
    ],
)  # fmt: skip
def test_broken_variants_are_data_loss(tmp_path: Path, control: dict[str, Any]) -> None:
    bundle = b.Bundle()
    options = {"shape": (2,)} | control
    bundle.add_variants("v", [b.variant_proto("a"), b.variant_proto("b")], **options)
    with pytest.raises(ckptparse.DataLossError):
        ckptparse.read(bundle.write(tmp_path / "x"))


def test_variant_that_is_no_message_is_malformed(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add_variants("v", [b"\xff\xff"], ())
    with pytest.raises(ckptparse.MalformedError):
        ckptparse.read(bundle.write(tmp_path / "x"))


def test_variants_of_a_big_endian_bundle_read_or_are_refused_clearly(tmp_path: Path) -> None:
    bundle = b.Bundle(big=True)
    bundle.add_variants("v", [b.variant_proto("a")], ())
    bundle.add("w", np.float32(1))
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        assert checkpoint["w"].read() == 1
        with suppress(CheckpointError):
            assert checkpoint["v"].read()[()].type_name == "a"


# ---- layout of the data files


@pytest.mark.checklist(32)
@pytest.mark.parametrize("alignment", [1, 8, 42, 64, 4096])
def test_aligned_payloads_read(tmp_path: Path, alignment: int) -> None:
    bundle, wanted = b.Bundle(alignment=alignment), {}
    for number in b.NUMERIC_TYPES:
        wanted[f"t{number:02}"] = sample(number, (3,))
        bundle.add(f"t{number:02}", wanted[f"t{number:02}"], dtype=number)
    wanted["s"] = np.array([b"ab", b"c"], object)
    bundle.add("s", wanted["s"])
    assert all(e.offset % alignment == 0 for e in bundle.entries.values())
    got = ckptparse.read(bundle.write(tmp_path / "x"))
    assert all(same(got[name], array) for name, array in wanted.items())


@pytest.mark.checklist(37)
@pytest.mark.parametrize("mmap", [False, True])
def test_gaps_overlaps_and_unaligned_offsets_read(tmp_path: Path, mmap: bool) -> None:
    bundle = b.Bundle()
    data = np.arange(100, dtype=np.float64)
    bundle.add("first", data, at=3)
    bundle.add("gap", data * 2, at=5001)
    raw = bytes(bundle.shards[0][7 : 7 + 80])
    bundle.entries[b"overlap"] = b.Entry(b.DOUBLE, (10,), 0, 7, 80, b.masked_crc(raw))
    bundle.entries[b"same"] = bundle.entries[b"first"]
    bundle.entries[b"bytes"] = b.Entry(b.UINT8, (2, 40), 0, 7, 80, b.masked_crc(raw))
    bundle.put(b"trailing junk")
    prefix = bundle.write(tmp_path / "x")
    got = ckptparse.read(prefix, mmap=mmap)
    assert same(got["first"], data) and same(got["same"], data) and same(got["gap"], data * 2)
    assert got["overlap"].tobytes() == raw and got["bytes"].tobytes() == raw
    assert all(array.flags.aligned and array.flags.writeable for array in got.values())
    got["first"][:] = -1
    got["overlap"][:] = -2
    assert same(got["same"], data) and got["bytes"].tobytes() == raw


@pytest.mark.parametrize("mmap", [False, True])
def test_tensors_lie_in_write_order_and_are_never_sought_by_name(
    tmp_path: Path, mmap: bool
) -> None:
    bundle = b.Bundle()
    for n, name in enumerate(["z", "m", "a", "zz", "b"]):
        bundle.add(name, np.full(n + 1, n, np.int16))
    got = ckptparse.read(bundle.write(tmp_path / "x"), mmap=mmap)
    assert [got[name].tolist() for name in ["z", "m", "a", "zz", "b"]] == [
        [n] * (n + 1) for n in range(5)
    ]


@pytest.mark.checklist(18, 24)
def test_bundle_of_two_shards_holds_the_union_sorted(tmp_path: Path) -> None:
    bundle = b.Bundle()
    wanted = {}
    for shard, names in enumerate([["foo_002", "foo_000"], ["foo_003", "bar", "foo_001"]]):
        for name in names:
            wanted[name] = np.array([name.encode()] * 2, object)
            bundle.add(name, wanted[name], shard=shard)
            wanted[name + "/n"] = np.arange(shard * 4, shard * 4 + 4, dtype=np.int32)
            bundle.add(name + "/n", wanted[name + "/n"], shard=shard)
    prefix = bundle.write(tmp_path / "merged")
    assert {path.name for path in tmp_path.iterdir()} == {
        "merged.index", "merged.data-00000-of-00002", "merged.data-00001-of-00002",
    }  # fmt: skip
    got = ckptparse.read(prefix)
    assert list(got) == sorted(wanted)
    assert all(same(got[name], array) for name, array in wanted.items())
    with ckptparse.open(prefix) as checkpoint:
        assert checkpoint.num_shards == 2
        assert sorted(map(str, checkpoint.files)) == sorted(map(str, tmp_path.iterdir()))
        assert checkpoint["bar"].location.shard == 1


@pytest.mark.parametrize("count", [5, 150])
def test_many_shards_read(tmp_path: Path, count: int) -> None:
    bundle = b.Bundle()
    for n in range(count):
        bundle.add(f"t{n}", np.full(3, n, np.int32), shard=n)
    got = ckptparse.read(bundle.write(tmp_path / "x"))
    assert all(got[f"t{n}"].tolist() == [n] * 3 for n in range(count))


def test_shard_numbers_widen_beyond_five_digits(tmp_path: Path) -> None:
    bundle = b.Bundle(header=b.Header(num_shards=123_456))
    bundle.add("a", np.float32(1), shard=100_000)
    bundle.shards.pop(0)
    prefix = bundle.write(tmp_path / "x")
    assert (tmp_path / "x.data-100000-of-123456").exists()
    assert ckptparse.read(prefix, limits=ckptparse.Limits(shards=123_456))["a"] == 1


def test_shards_that_nothing_refers_to_may_be_absent(tmp_path: Path) -> None:
    bundle = b.Bundle(header=b.Header(num_shards=3))
    bundle.add("a", np.float32(1), shard=1)
    bundle.shards.pop(0)
    assert ckptparse.read(bundle.write(tmp_path / "x"))["a"] == 1


@pytest.mark.checklist(11)
@pytest.mark.parametrize("kind", [b.RAW, b.SNAPPY])
def test_index_of_many_blocks_lists_and_finds_all(tmp_path: Path, kind: int) -> None:
    bundle = b.Bundle()
    names = [f"model/layer_{n:05}/kernel/Adam" for n in range(12_000)]
    for n, name in enumerate(names):
        bundle.add(name, np.int32(n))
    file = bundle.table(type=kind)
    assert len(file.blocks) >= 2
    prefix = bundle.write(tmp_path / "x", type=kind)
    assert ckptparse.list_variables(prefix) == [(name, ()) for name in names]
    with ckptparse.open(prefix) as checkpoint:
        for n in (0, 1, 5000, 9519, 9520, 11_999):
            assert checkpoint[names[n]].read() == n
        assert len(checkpoint) == 12_000 and "model/layer_12000/kernel/Adam" not in checkpoint
    got = ckptparse.read(prefix)
    assert [int(array) for array in got.values()] == list(range(12_000))


@pytest.mark.checklist(17, 30)
def test_header_comes_first_and_is_no_tensor(tmp_path: Path) -> None:
    from ckptparse.files.local import LocalSource
    from ckptparse.limits import DEFAULT_LIMITS
    from ckptparse.table.reader import Table

    bundle = b.Bundle()
    for name in ("foo_001", "foo_000"):
        bundle.add(name, np.float32(1))
    prefix = bundle.write(tmp_path / "x")
    with LocalSource.open(prefix + ".index") as source:
        items = list(Table.open(source, limits=DEFAULT_LIMITS).items())
    assert [key for key, _ in items] == [b"", b"foo_000", b"foo_001"]
    assert items[0][1].hex(" ") == "08 01 1a 02 08 01"
    with ckptparse.open(prefix) as checkpoint:
        assert list(checkpoint) == ["foo_000", "foo_001"] and "" not in checkpoint
        assert checkpoint.num_shards == 1


# ---- names

NAMES = [
    "a", "A", "scope/w", "scope/w/Adam", "scope/w_1", "w:0", "with space", "tab\tnewline\n",
    "émoji 🙂/ß", "../up", "/abs", ".dot", "a" * 3000, "[brackets]*?", "\x1b[31mred",
    "layer/kernel/.ATTRIBUTES/VARIABLE_VALUE", "x.index", "日本語", "checkpoint",
]  # fmt: skip


def test_odd_names_are_listed_found_and_sorted_by_their_bytes(tmp_path: Path) -> None:
    bundle = b.Bundle()
    for n, name in enumerate(NAMES):
        bundle.add(name, np.int32(n))
    prefix = bundle.write(tmp_path / "x")
    got = ckptparse.read(prefix)
    assert list(got) == sorted(NAMES, key=str.encode)
    assert all(got[name] == n for n, name in enumerate(NAMES))
    with ckptparse.open(prefix) as checkpoint:
        assert list(checkpoint) == list(got) and all(name in checkpoint for name in NAMES)
        assert all(checkpoint[name].name == name for name in NAMES)


@pytest.mark.parametrize("key", [b"\xff\xfe", b"caf\xe9", b"a\xc3", b"\x01", b"nul\x00inside"])
def test_names_that_are_not_utf8_are_surrogate_escapes(tmp_path: Path, key: bytes) -> None:
    bundle = b.Bundle()
    bundle.add(key, np.int32(1))
    name = key.decode("utf-8", "surrogateescape")
    prefix = bundle.write(tmp_path / "x")
    assert {k: int(v) for k, v in ckptparse.read(prefix).items()} == {name: 1}
    with ckptparse.open(prefix) as checkpoint:
        assert checkpoint[name].read() == 1 and name in checkpoint
    assert ckptparse.list_variables(prefix) == [(name, ())]


def test_two_names_that_normalise_alike_stay_two(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("e\u0301", np.int32(1))
    bundle.add("\u00e9", np.int32(2))
    got = ckptparse.read(bundle.write(tmp_path / "x"))
    assert got["e\u0301"] == 1 and got["\u00e9"] == 2
