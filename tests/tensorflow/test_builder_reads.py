"""TensorFlow reads what the tests' builder makes, where it can: the builder is no fiction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest

import ckptparse

tf = pytest.importorskip("tensorflow")

Array = np.ndarray[Any, Any]
ONE_BYTE_MODERN = range(b.FLOAT8_E5M2, b.FLOAT4_E2M1FN + 1)
"""The kinds that TensorFlow refuses in a big-endian bundle."""
ASSEMBLED = [
    b.FLOAT, b.DOUBLE, b.INT32, b.UINT8, b.INT16, b.INT8, b.COMPLEX64, b.COMPLEX128, b.INT64,
    b.BOOL, b.QINT32, b.QUINT8, b.QINT8, b.BFLOAT16, b.INT4, b.UINT4,
]  # fmt: skip
"""The kinds whose slices TensorFlow puts together."""


def array_of(number: int) -> Array:
    return (np.arange(6) % 4).astype(np.float32).astype(b.NUMPY_TYPES[number]).reshape(2, 3)


def restore(prefix: str, name: str, number: int, spec: str = "") -> Array:
    (tensor,) = tf.raw_ops.RestoreV2(
        prefix=prefix, tensor_names=[name], shape_and_slices=[spec], dtypes=[tf.as_dtype(number)]
    )
    return tensor.numpy()


def check_both(prefix: str, name: str, number: int, wanted: Array) -> None:
    """Hold that TensorFlow and we read the same array."""
    theirs = restore(prefix, name, number)
    ours = ckptparse.read(prefix, [name])[name]
    for got in (theirs, ours):
        if wanted.dtype == object:
            assert np.asarray(got, object).ravel().tolist() == wanted.ravel().tolist()
        else:
            assert got.astype(wanted.dtype).tobytes() == wanted.tobytes()
    assert theirs.shape == ours.shape == wanted.shape


@pytest.mark.parametrize("big", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("number", b.NUMERIC_TYPES)
def test_every_kind_of_either_byte_order(tmp_path: Path, number: int, big: bool) -> None:
    bundle = b.Bundle(big=big)
    bundle.add("w", array_of(number), dtype=number)
    prefix = bundle.write(tmp_path / "x")
    if big and number in ONE_BYTE_MODERN:
        with pytest.raises(tf.errors.OpError):
            restore(prefix, "w", number)
        assert ckptparse.read(prefix)["w"].tobytes() == array_of(number).tobytes()
        return
    check_both(prefix, "w", number, array_of(number))


@pytest.mark.parametrize("big", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("shape", [(), (2,), (0,), (2, 2)])
def test_strings_of_either_byte_order(tmp_path: Path, big: bool, shape: tuple[int, ...]) -> None:
    values = [b"hello", b"", b"\0\xff", b"x" * 300][: int(np.prod(shape))]
    array = np.array(values, object).reshape(shape)
    bundle = b.Bundle(big=big)
    bundle.add("s", array)
    prefix = bundle.write(tmp_path / "x")
    theirs = np.asarray(restore(prefix, "s", b.STRING), object)
    assert theirs.ravel().tolist() == values
    assert ckptparse.read(prefix)["s"].ravel().tolist() == values


@pytest.mark.parametrize("kind", [b.RAW, b.SNAPPY])
@pytest.mark.parametrize("restart_interval", [1, 16, 1000])
@pytest.mark.parametrize("block_size", [100, 4096, 262144])
def test_tables_of_other_makes(
    tmp_path: Path, kind: int, restart_interval: int, block_size: int
) -> None:
    bundle = b.Bundle()
    for n in range(300):
        bundle.add(f"layer/{n:03}", np.float32(n))
    prefix = bundle.write(
        tmp_path / "x", type=kind, index_type=kind, restart_interval=restart_interval,
        block_size=block_size,
    )  # fmt: skip
    reader = tf.train.load_checkpoint(prefix)
    assert sorted(reader.get_variable_to_shape_map()) == list(ckptparse.read(prefix))
    assert [float(reader.get_tensor(f"layer/{n:03}")) for n in (0, 150, 299)] == [0, 150, 299]


@pytest.mark.parametrize("alignment", [1, 42, 64])
def test_alignment_gaps_overlaps_and_other_shards(tmp_path: Path, alignment: int) -> None:
    bundle = b.Bundle(alignment=alignment)
    bundle.add("a", array_of(b.FLOAT), at=3)
    bundle.add("b", array_of(b.DOUBLE), shard=1)
    bundle.entries[b"c"] = bundle.entries[b"a"]
    prefix = bundle.write(tmp_path / "x")
    for name, number in (("a", b.FLOAT), ("b", b.DOUBLE), ("c", b.FLOAT)):
        check_both(prefix, name, number, array_of(number))


@pytest.mark.parametrize("number", ASSEMBLED)
def test_slices_of_the_kinds_that_it_puts_together(tmp_path: Path, number: int) -> None:
    array = array_of(number)
    bundle = b.Bundle()
    slices = [[(0, 1), None], [(1, 1), (0, 2)], [(1, 1), (2, 1)]]
    bundle.add_sliced("w", array, slices, dtype=number, shards=[0, 1, 0])
    prefix = bundle.write(tmp_path / "x")
    check_both(prefix, "w", number, array)
    part = restore(prefix, "w", number, "2 3 -:1,2")
    with ckptparse.open(prefix) as checkpoint:
        ours = checkpoint["w"][:, 1:3]
    assert part.tobytes() == ours.tobytes() == array[:, 1:3].tobytes()


@pytest.mark.parametrize("number", sorted({*b.NUMERIC_TYPES} - {*ASSEMBLED}))
def test_slices_of_the_other_kinds_are_read_by_us_alone(tmp_path: Path, number: int) -> None:
    array = array_of(number)
    bundle = b.Bundle()
    bundle.add_sliced("w", array, [[(0, 1), None], [(1, 1), None]], dtype=number)
    prefix = bundle.write(tmp_path / "x")
    with pytest.raises(tf.errors.OpError):
        restore(prefix, "w", number)
    assert ckptparse.read(prefix)["w"].tobytes() == array.tobytes()


def test_odd_headers_that_it_accepts(tmp_path: Path) -> None:
    for n, header in enumerate(
        [
            b.Header(version=None),
            b.Header(version=b.version_proto(99, 0)),
            b.Header(version=b.version_proto(1, 1)),
            b.Header(extra=b.field(99, b"new")),
        ]
    ):
        bundle = b.Bundle(header=header)
        bundle.add("a", array_of(b.FLOAT))
        check_both(bundle.write(tmp_path / f"x{n}"), "a", b.FLOAT, array_of(b.FLOAT))


def test_names_of_any_bytes(tmp_path: Path) -> None:
    for n, name in enumerate(["a/b", "é 日本 🙂", "x" * 1000, "new\nline"]):
        bundle = b.Bundle()
        bundle.add(name, array_of(b.INT64))
        check_both(bundle.write(tmp_path / f"x{n}"), name, b.INT64, array_of(b.INT64))
